"""Average precision and AUC on resampled clips, all resamples of a class at once: intervals of mAP, mAUC and d'.

What :func:`avrepro.evaluation.metric_interval` computes resample by resample, hundreds of times quicker. Drawing a clip
several times is giving it a weight, and the order of the scores is the same in every resample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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
    precision, auc = (np.empty((resamples + 1, y_true.shape[1])) for _ in range(2))
    orders = np.argsort(-scores, axis=0, kind="stable")
    blocks = (
        [np.ones((1, len(y_true))), *_weights(len(y_true), resamples, seed)]
        if resamples
        else [np.ones((1, len(y_true)))]
    )
    start = 0
    for weights in blocks:
        rows = slice(start, start + len(weights))
        start += len(weights)
        for k, order in enumerate(orders.T):
            ranked = scores[order, k]
            last = np.append(ranked[1:] != ranked[:-1], True)  # the last clip of each group of equal scores
            drawn = weights[:, order]
            found = np.cumsum(drawn * y_true[order, k], axis=1)[:, last]  # positives with at least this score
            taken = np.cumsum(drawn, axis=1)[:, last]
            precision[rows, k], auc[rows, k] = _areas(found, taken)
    return Resampled(precision, auc, seed)


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


def _areas(found: np.ndarray, taken: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC of cumulative counts of positives and of all clips, [resamples, groups] -> [resamples] each."""
    gained = np.diff(found, axis=1, prepend=0)
    passed = np.diff(taken - found, axis=1, prepend=0)  # negatives of each group
    positives, negatives = found[:, -1], taken[:, -1] - found[:, -1]
    with np.errstate(invalid="ignore", divide="ignore"):
        ap = (gained * np.where(taken > 0, found / taken, 0)).sum(axis=1) / positives
        auc = (passed * (found - gained / 2)).sum(axis=1) / (positives * negatives)
    return ap, auc


def _mean(values: np.ndarray) -> np.ndarray:
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0).sum(axis=1) / known.sum(axis=1)
