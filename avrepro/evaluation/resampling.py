"""A system's metrics on the clips as they are and on resamples of them: where every interval comes from.

A clip is drawn with all its labels and scores, since those are not independent of each other. The resamples depend on
the number of clips, ``resamples`` and ``seed`` alone, so two systems on the same clips share them: differences of their
rows are paired. Thresholds and models stay fixed; what varies is which clips were scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from avrepro.evaluation.calibration import bin_excesses
from avrepro.evaluation.metrics import checked_pair, f1_of_counts, ratio
from avrepro.evaluation.ranking import ranking_areas

BLOCK_ELEMENTS = 4_000_000  # of resample weights held at a time: 32 MB


@dataclass(frozen=True, eq=False)
class Resampled:
    """Metrics of one system, float64 [1 + resamples] or [1 + resamples, classes]; row 0 is of the clips as they are.

    A class without any positive clip is NaN, and left out of means over classes; its false alarms count in micro F1,
    precision and recall still, which pool all decisions. A class whose positive clips a resample happens to miss has
    F1 0 there, and no AP or AUC.
    """

    y_true: np.ndarray  # bool [clips, classes]
    scores: np.ndarray  # finite [clips, classes]
    probabilities: np.ndarray  # finite [clips, classes], for the calibration error alone
    thresholds: np.ndarray | float  # [classes], or one for all
    resamples: int
    seed: int

    @property
    def micro_f1(self) -> np.ndarray:
        return f1_of_counts(*self._counts.sum(axis=2))

    @property
    def micro_precision(self) -> np.ndarray:
        return ratio(*self._counts[:2].sum(axis=2))

    @property
    def micro_recall(self) -> np.ndarray:
        return ratio(*self._counts[::2].sum(axis=2))

    @property
    def class_f1(self) -> np.ndarray:
        return np.where(self.y_true.any(axis=0), f1_of_counts(*self._counts), np.nan)

    @property
    def macro_f1(self) -> np.ndarray:
        return mean_over_classes(self.class_f1)

    @property
    def average_precision(self) -> np.ndarray:
        return self._areas[0]

    @property
    def roc_auc(self) -> np.ndarray:
        return self._areas[1]

    @property
    def map(self) -> np.ndarray:
        return mean_over_classes(self.average_precision)

    @property
    def mauc(self) -> np.ndarray:
        return mean_over_classes(self.roc_auc)

    @cached_property
    def calibration_error(self) -> np.ndarray:
        """Expected calibration error over all decisions, clips x classes together (Guo et al. 2017, equation 3).

        The mean over bins, each weighted by its share of the decisions, of |mean probability - share that is true|. The
        bins' limits are those of the clips as they are. ValueError where the probabilities are not 0..1.
        """
        # What a bin adds is |its sum of p - y| / decisions, so a resample needs only sums over clips.
        return np.abs(self._totals(bin_excesses(self.y_true, self.probabilities))).sum(axis=1) / self.y_true.size

    @cached_property
    def _counts(self) -> np.ndarray:
        """Hits, predictions and positives of each class, [3, 1 + resamples, classes]."""
        decisions = self.scores >= self.thresholds
        counts = np.concatenate([self.y_true & decisions, decisions, self.y_true], axis=1)  # (clips, 3 x classes)
        return np.stack(np.split(self._totals(counts.astype(np.float64)), 3, axis=1))

    @cached_property
    def _areas(self) -> tuple[np.ndarray, np.ndarray]:
        return ranking_areas(self.y_true, self.scores, self._weights())

    def _totals(self, values: np.ndarray) -> np.ndarray:
        """Sums over the clips of each resample, [clips, any] -> [1 + resamples, any]."""
        return np.concatenate([weights @ values for weights in self._weights()])

    def _weights(self) -> Iterator[np.ndarray]:
        yield np.ones((1, len(self.y_true)))
        yield from clip_weights(len(self.y_true), self.resamples, self.seed)


def resample(
    y_true: np.ndarray,
    scores: np.ndarray,
    thresholds: np.ndarray | float,
    resamples: int = 2000,
    seed: int = 0,
    probabilities: np.ndarray | None = None,
) -> Resampled:
    """A system's metrics with what they are on resamples of the clips.

    :param y_true: bool [clips, classes]. :param scores: finite [clips, classes], higher meaning likelier.
    :param thresholds: of the decisions score >= threshold, [classes] or one for all classes; +inf decides for nothing.
    :param seed: of the draws of clips. Trainings on the same test clips share it: what a clip adds to all of them does
        not average out.
    :param probabilities: of the calibration error, 0..1, where the scores are none; see ``platt``.
    :raises ValueError: for bad input.
    """
    y_true, scores = checked_pair(y_true, scores)
    probabilities = scores if probabilities is None else checked_pair(y_true, probabilities)[1]
    if np.shape(thresholds) not in ((), y_true.shape[1:]) or np.isnan(thresholds).any():
        raise ValueError(f"thresholds: expected a number, or one for each of {y_true.shape[1]} classes, and no NaN")
    return Resampled(y_true, scores, probabilities, thresholds, resamples, seed)


def clip_draws(clips: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of the clips of each resample, int [clips]."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.integers(clips, size=clips)


def clip_weights(clips: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The same draws as how often each clip is in each resample, in blocks, float64 [some resamples, clips]."""
    draws = clip_draws(clips, resamples, seed)
    block = max(1, BLOCK_ELEMENTS // clips)
    for start in range(0, resamples, block):
        weights = np.empty((min(block, resamples - start), clips))
        for row in weights:
            row[:] = np.bincount(next(draws), minlength=clips)
        yield weights


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Mean over the classes that are not NaN, [any, classes] -> [any]; NaN where all are."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)
