"""What attention fusion changes class by class, and how it weighs sound (Fayek and Kumar 2020, section 5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avrepro import protocol
from avrepro.conditions import Condition
from avrepro.evaluation.seeds import summarise
from avrepro.evaluation.summary import Summary, seed_scores
from avrepro.results import Run

ATTENTION, AUDIO, VISUAL = "fayek2020/attention", "fayek2020/audio", "fayek2020/visual"
BETTER = "better of audio and visual"
LOW = 0.1  # average precision of audio and of visual below which the paper sees no gain by fusion
ALIKE = 0.1  # largest difference of their average precisions that counts as "similar"


def add_changes(run: Run, conditions: Sequence[Condition]) -> None:
    """Note the change of each class's average precision against the better of audio and visual (section 5.1).

    And shares of the classes by their change, and mean changes of classes in which both are low, alike, and of others.
    """
    names = (ATTENTION, AUDIO, VISUAL)
    summary = Summary([seed_scores(names, one) for one in conditions], "test")
    of = {name: summary.rows(name, "average_precision") for name in names}
    pairs = list(zip(of[AUDIO], of[VISUAL], strict=True))
    changes = [mine - np.maximum(*pair) for mine, pair in zip(of[ATTENTION], pairs, strict=True)]  # (1 + R, classes)
    known = ~np.isnan(np.mean([one[0] for one in changes], axis=0))
    for label, found in summary.summarise_classes(changes, paired=True).items():
        run.add(ATTENTION, "average_precision", found, against=BETTER, split="test", label=label)
    audio, visual = (np.mean([one[0, known] for one in of[name]], axis=0) for name in (AUDIO, VISUAL))
    change = np.mean([one[0, known] for one in changes], axis=0)
    shares = {
        "improved": change > 0, "improved by more than 10 points": change > 0.1,
        "worse by more than 5 points": change < -0.05, "worse by more than 10 points": change < -0.1,
        "visual better than audio": visual > audio,
    }  # fmt: skip
    for label, here in shares.items():
        run.add(ATTENTION, "share_of_classes", float(here.mean()), split="test", label=label)
    low, alike = np.maximum(audio, visual) < LOW, np.abs(audio - visual) < ALIKE
    for label, here in {"both low": low, "alike": alike & ~low, "unlike": ~alike & ~low}.items():
        run.add(ATTENTION, "share_of_classes", float(here.mean()), split="test", label=label)
        if here.any():
            means = [one[:, known][:, here].mean(axis=1) for one in changes]
            found = summarise(means, resplit=summary.resplit, paired=True)
            run.add(ATTENTION, "map", found, against=BETTER, split="test", label=label)


def add_weights(run: Run, conditions: Sequence[Condition]) -> None:
    """Note the mean alpha_a of each class over the test clips that contain it (section 5.2), and over all of them."""
    weights = []
    for condition in conditions:
        data, fitted = protocol.load(condition), protocol.fit(ATTENTION, condition)
        rows = data.rows("test")
        weights.append(np.where(data.targets[rows], protocol.modality_weights(fitted, data)[rows], np.nan))
    for k, label in enumerate(run.corpora[0].classes):
        if not np.isnan(weights[0][:, k]).all():
            run.add(ATTENTION, "modality_weight", _mean([one[:, k] for one in weights]), split="test", label=label)
    run.add(ATTENTION, "modality_weight", _mean(weights), split="test")


def _mean(values: Sequence[np.ndarray]) -> float:
    return float(np.mean([np.nanmean(one) for one in values]))
