"""Average precision and AUC on resampled clips, all resamples of a class at once: intervals of mAP, mAUC and d'.

What :func:`avrepro.evaluation.metric_interval` computes resample by resample, hundreds of times quicker. Drawing a clip
several times is giving it a weight, and the order of the scores is the same in every resample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from avrepro.evaluation.intervals import Interval, _percentile, _weights
from avrepro.evaluation.metrics import checked_pair, d_prime


@dataclass(frozen=True)
class Resampled:
    """A system's AP and AUC by class, float64 [1 + resamples, classes]; row 0 is of the clips as they are.

    NaN where a class has no positive clip, in ``auc`` also where it has no negative one. Rows of two systems on the
    same clips are of the same draws: their differences are paired.
    """

    average_precision: np.ndarray
    roc_auc: np.ndarray
    seed: int

    @property
    def mean_ap(self) -> np.ndarray:
        """mAP over the classes that have a positive clip, [1 + resamples]."""
        return _mean(self.average_precision)

    @property
    def mean_auc(self) -> np.ndarray:
        """mAUC likewise."""
        return _mean(self.roc_auc)

    @property
    def d_prime(self) -> np.ndarray:
        """d' of the mean AUC."""
        return np.asarray(d_prime(self.mean_auc))


def resampled(y_true: np.ndarray, scores: np.ndarray, resamples: int = 2000, seed: int = 0) -> Resampled:
    """AP and AUC of each class on all resamples of the clips.

    :param y_true: bool [clips, classes]. :param scores: finite [clips, classes], higher meaning likelier; ties count
        as in :func:`average_precision` and :func:`roc_auc`.
    :raises ValueError: for bad input.
    """
    y_true, scores = checked_pair(y_true, scores)
    classes = [_Class.of(y_true[:, k], scores[:, k]) for k in range(y_true.shape[1])]
    precision, auc = (np.empty((resamples + 1, len(classes))) for _ in range(2))
    start = 0
    for weights in [np.ones((1, len(y_true))), *(_weights(len(y_true), resamples, seed) if resamples else ())]:
        rows = slice(start, start + len(weights))
        start += len(weights)
        drawn = np.ascontiguousarray(weights.T, dtype=np.float32)  # (clips, resamples); counts, so nothing is rounded
        for k, one in enumerate(classes):
            precision[rows, k], auc[rows, k] = one.areas(drawn)
    return Resampled(precision, auc, seed)


@dataclass(frozen=True)
class _Class:
    """Clips of one class in bands of falling score, with the positives' scores as their limits.

    AP and AUC need only know how many clips rank above each positive, so clips between two positives are one band.
    """

    bands: csr_array  # float32 [2 x levels + 1, clips]: those above a level, those at it, and last those below all
    positives: csr_array  # float32 [levels, clips]; a level is a distinct score that a positive clip has

    @classmethod
    def of(cls, labels: np.ndarray, scores: np.ndarray) -> _Class:
        """:param labels: bool [clips]. :param scores: [clips]."""
        levels = np.unique(scores[labels])[::-1]  # falling
        above = len(levels) - np.searchsorted(levels[::-1], scores, side="right")  # levels higher than each clip
        tied = np.isin(scores, levels)
        clips, where = np.arange(len(scores)), np.flatnonzero(labels)
        ones = np.ones(len(scores), np.float32)
        return cls(
            csr_array((ones, (2 * above + tied, clips)), shape=(2 * len(levels) + 1, len(scores))),
            csr_array((ones[where], (above[where], where)), shape=(len(levels), len(scores))),
        )

    def areas(self, drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AP and AUC where each clip counts as often as it is drawn, [clips, resamples] -> [resamples] each."""
        sizes, gained = (np.asarray(one @ drawn, np.float64) for one in (self.bands, self.positives))
        taken = np.cumsum(sizes, axis=0)[1::2]  # clips with at least this score, (levels, resamples)
        found = np.cumsum(gained, axis=0)  # positives among them
        positives = gained.sum(axis=0)
        negatives = sizes.sum(axis=0) - positives
        tied = sizes[1::2] - gained  # negatives
        outranked = negatives - (taken - found) + tied / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            ap = (gained * np.where(taken > 0, found / taken, 0)).sum(axis=0) / positives
            return ap, (gained * outranked).sum(axis=0) / (positives * negatives)


def interval_of(values: np.ndarray, seed: int = 0, paired: bool = False) -> Interval:
    """The 95 % interval of a number and its resamples, [1 + resamples]: their percentiles, moved onto the number.

    A clip that is drawn twice stands twice at the same rank, which makes rankings look better the fewer positives there
    are: the resamples lie around a higher value than the clips' own, and their spread is what they tell.
    """
    kept = values[1:][~np.isnan(values[1:])]
    moved = kept - kept.mean() + values[0] if len(kept) else kept
    found = _percentile(float(values[0]), moved, paired, 0.95, seed)
    left_out = len(values) - 1 - len(kept)
    method = f"{found.method}, moved onto the value" + (f"; {left_out} undefined and left out" if left_out else "")
    return Interval(found.value, found.low, found.high, method)


def _mean(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)
