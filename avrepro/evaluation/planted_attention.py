"""Do fusions rely on sound and on pictures as they should? Beside what was planted in the demo world.

How far a fusion relies on sound in one clip and class is asked in two ways:

    weight      alpha_a of an attention fusion
    loss        what the class's score loses where the sound, or the pictures, are taken away

alpha_a alone is no answer: n_a and n_v are free to scale, shift or turn round what it weighs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import scipy.stats
import torch

from avrepro import protocol
from avrepro.conditions import Condition
from avrepro.corpora.base import Corpus
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.truth import read_events, read_sights
from avrepro.evaluation.resampling import clip_draws, mean_over_classes
from avrepro.evaluation.seeds import summarise
from avrepro.results import Run
from avrepro.systems import Data
from avrepro.systems.fayek2020 import AttentionFusion

FUSIONS = ("fayek2020/attention", "fayek2020/mlp", "fayek2020/regression", "fayek2020/average")
FEWEST = 5  # clips of a class for a rank correlation
RESAMPLES = 500


def add_planted(run: Run, conditions: Sequence[Condition]) -> None:
    """Note rank correlations of reliance with planted signal-to-noise ratio and visibility, on the test clips.

    Over the clips in which a class sounds, class by class, then the mean over classes; of the demo world, and of those
    fusions that the run has measured.
    """
    if not conditions[0].drawn:
        return
    measured = {row["system"] for row in run.rows}
    found: dict[tuple[str, str], list[np.ndarray]] = {}  # system, and metric -> (1 + R, classes) a seed
    for condition in conditions:
        for name in (name for name in FUSIONS if name in measured):
            for metric, truth, rate in correlated(name, condition):
                draws = [np.arange(len(truth)), *clip_draws(len(truth), RESAMPLES, 0)]
                values = np.stack([correlations(truth[rows], rate[rows]) for rows in draws])
                found.setdefault((name, metric), []).append(values)
    for (name, metric), seeds in found.items():
        means = [mean_over_classes(one) for one in seeds]
        run.add(name, metric, summarise(means, resplit=None, paired=False, bounds=(-1.0, 1.0)), split="test")
        for label, column in zip(run.corpora[0].classes, np.stack([one[0] for one in seeds]).T, strict=True):
            if np.isfinite(column).any():
                run.add(name, metric, float(np.nanmean(column)), split="test", label=label)


def correlated(name: str, condition: Condition) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Metric, planted truth and reliance of a fusion on the test clips, the latter two [clips, classes]."""
    data, fitted = protocol.load(condition), protocol.fit(name, condition)
    rows, test = data.rows("test"), data.corpus.split("test")
    snr = planted_snr(test)
    visible = np.where(np.isnan(snr), np.nan, planted_visibility(test))  # asked of clips in which the class sounds
    if isinstance(fitted.system, AttentionFusion):
        weights = protocol.modality_weights(fitted, data)[rows]
        yield "weight_snr_correlation", snr, weights
        yield "weight_visible_correlation", visible, weights
    for truth, how, metric in ((snr, "silent", "loss_snr"), (visible, "black", "loss_visible")):
        yield f"{metric}_correlation", truth, score_loss(fitted, data, how)[rows]


def score_loss(fitted: protocol.Fitted, data: Data, impaired: str) -> np.ndarray:
    """By how much the logit of each class falls where all clips are impaired, [clips, classes].

    :param impaired: "silent" or "black".
    """
    whole, worse = (
        torch.logit(torch.tensor(protocol.scores(fitted, one), dtype=torch.float64), eps=1e-7)
        for one in (data, data.with_impairment(impaired))
    )
    return (whole - worse).numpy()


def planted_snr(corpus: Corpus) -> np.ndarray:
    """Signal-to-noise ratio of the loudest event of each class, dB, [clips, classes]; NaN where it does not sound."""
    return _by_clip(read_events(corpus).groupby(["clip", "label"])["snr_db"].max(), corpus, np.nan)


def planted_visibility(corpus: Corpus) -> np.ndarray:
    """Share 0..1 of each class's source that is in view, mean over the clip's frames, [clips, classes]."""
    form = load_world_description().clip
    best = read_sights(corpus).groupby(["clip", "label", "frame"])["visible"].max()
    shares = best.groupby(["clip", "label"]).sum() / round(form.seconds * form.frames_per_second)
    return _by_clip(shares, corpus, 0.0)


def correlations(truth: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation of each class, -1..1, over the clips whose truth is known; both [clips, classes].

    0 where the rate is the same for all clips: it follows nothing. NaN for fewer than 5 clips or equal truths.
    """
    found = np.full(truth.shape[1], np.nan)
    for k in range(truth.shape[1]):
        known = ~np.isnan(truth[:, k])
        a, b = truth[known, k], rate[known, k]
        if len(a) < FEWEST or np.ptp(a) == 0:
            continue
        found[k] = 0 if np.ptp(b) < 1e-6 else np.corrcoef(scipy.stats.rankdata(a), scipy.stats.rankdata(b))[0, 1]
    return found


def _by_clip(values: pd.Series, corpus: Corpus, nothing: float) -> np.ndarray:
    """A series by clip and label as [clips, classes]."""
    wide = values.unstack("label").reindex(index=[clip.id for clip in corpus.clips], columns=list(corpus.classes))
    return wide.fillna(nothing).to_numpy(dtype=np.float64)
