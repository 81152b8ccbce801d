"""The numbers of the chapter on Parekh et al. (2018): Tables 1 and 2, localisation, and what the systems cost."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from avrepro.evaluation import (
    class_f1_intervals,
    metric_interval,
    micro_f1_interval,
    tune_thresholds,
)
from avrepro.experiments.parekh2018 import Inputs, Systems
from avrepro.experiments.parekh2018_located import add_localisation
from avrepro.results import Results, Run
from avrepro.sampling import BalancedBatches
from avrepro.training import choose_device, device_name

CHAPTER = "unsynchronized_mil"
TUNED = "tuned on validation, class by class (section 4)"
PROPOSED = "two_stream"
# s from the begin of a sound to the first sight of its source; the last band is open
BANDS = {"0 to 1 s": (0.0, 1.0), "1 to 3 s": (1.0, 3.0), "3 s and more": (3.0, np.inf)}
UNSEEN = "heard, not seen"


def evaluate(
    inputs: Inputs,
    systems: Systems,
    folder: Path | None = None,
    parts: tuple[str, ...] = (),
    more: Mapping[str, np.ndarray] | None = None,
) -> Results:
    """Every number of the chapter for this corpus, written to ``folder`` (default: the results store).

    Where nothing was trained, only what was measured of the clips is noted.

    :param parts: as of Run, for results that are committed.
    :param more: what other systems decide of every clip, bool [clips, classes], scored beside these.
    """
    corpus, parameters = inputs.corpus, inputs.parameters
    device = device_name(choose_device(parameters.device))
    run = Run(CHAPTER, parameters.model_dump() | inputs.networks, corpus, device, parts)
    run.add("corpus", "", "clips", len(corpus.clips))
    run.add("corpus", "", "regions_per_clip", float(inputs.regions.sizes.mean()))
    run.add("corpus", "", "segments_per_clip", float(inputs.segments.sizes.mean()))
    run.add("features", "", "seconds_per_clip", inputs.seconds_per_clip)
    if inputs.trains:
        targets = corpus.targets()
        decided = decisions(inputs, systems) | dict(more or {})
        for split in ("validation", "test", "evaluation"):
            rows = inputs.rows(split)
            if len(rows):
                here = {name: one[rows] for name, one in decided.items()}
                add_scores(run, split, targets[rows], here, here[PROPOSED])
        for name, trained in systems.trained.items():
            run.add(name, "", "training_seconds", trained.seconds)
        _add_sampler(run, inputs)
        if corpus.name.startswith("demo"):
            add_localisation(run, inputs, systems)
            _add_recall_by_gap(run, inputs, decided)
    run.add("corpus", "", "peak_memory_mb", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return run.write(folder)


def decisions(inputs: Inputs, systems: Systems) -> dict[str, np.ndarray]:
    """What each system decides of every clip, bool [clips, classes]; and guessing by class frequency."""
    decided = {name: scores >= systems.trained[name].thresholds for name, scores in systems.scores.items()}
    return decided | {"class frequency": guesses(inputs)}


def guesses(inputs: Inputs) -> np.ndarray:
    """The best that class frequencies alone can do: the same classes for every clip, chosen on validation."""
    targets, rows = inputs.corpus.targets(), inputs.rows("validation")
    frequency = np.tile(targets[inputs.rows("train")].mean(axis=0), (len(targets), 1))
    return frequency >= tune_thresholds(targets[rows], frequency[rows], inputs.parameters.seed)


def add_scores(
    run: Run, split: str, targets: np.ndarray, decided: Mapping[str, np.ndarray], proposed: np.ndarray
) -> None:
    """Micro F1, precision, recall and class F1 of systems, and what the proposed one is ahead of each by.

    :param targets: bool [clips, classes]; ``proposed`` likewise: what two streams decide.
    :param decided: likewise, by system.
    """
    for name, found in decided.items():
        run.add(name, split, "micro_f1", micro_f1_interval(targets, found), threshold_rule=TUNED)
        run.add(name, split, "micro_precision", metric_interval(_precision, targets, found), threshold_rule=TUNED)
        run.add(name, split, "micro_recall", metric_interval(_recall, targets, found), threshold_rule=TUNED)
        for label, interval in zip(run.corpus.classes, class_f1_intervals(targets, found), strict=True):
            run.add(name, split, "class_f1", interval, label=label, threshold_rule=TUNED)
        if name != PROPOSED:
            lead = micro_f1_interval(targets, proposed, found)
            run.add(name, split, "micro_f1_lead", lead, threshold_rule=TUNED)


def _add_sampler(run: Run, inputs: Inputs) -> None:
    """Clips of each class in training, and in as many draws of the balanced batches."""
    rows, profile = inputs.rows("train"), inputs.profile
    targets = inputs.corpus.targets()[rows]
    batches = max(1, len(rows) // profile.batch)
    drawn = BalancedBatches(targets, profile.batch, inputs.parameters.seed).counts(batches).seen
    scale = len(rows) / (batches * profile.batch)
    for k, label in enumerate(inputs.corpus.classes):
        run.add("corpus", "train", "positive_clips", int(targets[:, k].sum()), label=label)
        run.add("sampler", "train", "positive_clips", float(drawn[k] * scale), label=label)


def _add_recall_by_gap(run: Run, inputs: Inputs, decided: Mapping[str, np.ndarray]) -> None:
    """Share of the test clips' sounding events that are found, by how far apart they are heard and first seen."""
    from avrepro.corpora.demo.truth import planted_gaps

    test = inputs.corpus.split("test")
    events = planted_gaps(test)
    row = {clip.id: at for at, clip in enumerate(test.clips)}
    column = {label: at for at, label in enumerate(test.classes)}
    clips, classes = events["clip"].map(row).to_numpy(), events["label"].map(column).to_numpy()
    bands = {name: events["gap"].between(*ends, inclusive="left") for name, ends in BANDS.items()}
    bands[UNSEEN] = events["gap"].isna()
    for name, chosen in bands.items():
        run.add("corpus", "test", "events", int(chosen.sum()), label=name)
        asked = np.zeros((len(test.clips), len(test.classes)), dtype=bool)
        asked[clips[chosen], classes[chosen]] = True
        for system in ("two_stream", "synchronous", "audio_only"):
            found = decided[system][inputs.rows("test")]
            run.add(system, "test", "recall", metric_interval(_recall, asked, found), label=name, threshold_rule=TUNED)


def _precision(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Share of what is found that is true; 0 where nothing is found, as in tagging_scores."""
    return float(y_true[y_pred].mean()) if y_pred.any() else 0.0


def _recall(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Share of what is true that is found; not a number where nothing is."""
    return float(y_pred[y_true].mean()) if y_true.any() else np.nan
