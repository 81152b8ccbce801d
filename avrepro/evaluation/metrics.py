"""Precision, recall and F1 of decisions about clips; and the checks that all metrics put their input to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)  # eq=False: arrays have no single truth value to compare by
class TaggingScores:
    """Precision, recall and F1 of clip-level decisions, fractions 0..1; 0/0 counts as 0.

    The micro-averages pool the decisions of all classes ("instance-wise" in the DCASE 2017 Task 4 evaluator;
    Li et al. 2017, Table 1). The zero for an empty denominator is that evaluator's convention.
    """

    precision: float
    recall: float
    f1: float
    class_precision: np.ndarray  # float64 [classes]
    class_recall: np.ndarray  # float64 [classes]
    class_f1: np.ndarray  # float64 [classes]


def tagging_scores(y_true: np.ndarray, y_pred: np.ndarray) -> TaggingScores:
    """Score decisions against weak labels, both bool (or 0 and 1) [clips, classes].

    Raises ValueError where a shape or a value is not that.
    """
    y_true = checked_labels("y_true", y_true)
    y_pred = checked_labels("y_pred", y_pred, y_true.shape)
    hits = (y_true & y_pred).sum(axis=0)  # (classes,), as are the next two
    predicted, positive = y_pred.sum(axis=0), y_true.sum(axis=0)
    return TaggingScores(
        precision=float(ratio(hits.sum(), predicted.sum())),
        recall=float(ratio(hits.sum(), positive.sum())),
        f1=float(f1_of_counts(hits.sum(), predicted.sum(), positive.sum())),
        class_precision=ratio(hits, predicted),
        class_recall=ratio(hits, positive),
        class_f1=f1_of_counts(hits, predicted, positive),
    )


def ratio(numerator: np.ndarray | float, denominator: np.ndarray | float) -> np.ndarray:
    """numerator / denominator, float64, and 0 where the denominator is 0."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, np.float64), np.asarray(denominator, np.float64))
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom != 0)


def f1_of_counts(hits: np.ndarray | float, predicted: np.ndarray | float, positive: np.ndarray | float) -> np.ndarray:
    """F1 from true positives, predictions made and positives there are; the same as 2PR / (P + R)."""
    return ratio(2 * np.asarray(hits), np.asarray(predicted) + np.asarray(positive))


def checked_labels(name: str, values: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    """values as bool [clips, classes], or a ValueError that says what was found instead.

    :param shape: of ``y_true``, where it must be the same.
    """
    array = _matrix(name, values, shape)
    wrong = (array != 0) & (array != 1)
    if wrong.any():
        clip, k = np.argwhere(wrong)[0]
        raise ValueError(
            f"{name}: expected bool or 0 and 1, found {array[clip, k]} at clip {clip}, class {k}; "
            "turn scores into decisions with scores >= thresholds"
        )
    return array.astype(bool)


def checked_pair(y_true: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels as bool and scores as floats, both [clips, classes], or a ValueError."""
    y_true = checked_labels("y_true", y_true)
    scores = _matrix("scores", scores, y_true.shape)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        clip, k = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"scores: expected finite numbers, found {scores[clip, k]} at clip {clip}, class {k}; "
            "leave out clips that could not be scored"
        )
    return y_true, scores


def _matrix(name: str, values: np.ndarray, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: expected [clips, classes], at least one of each, found shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected bool, integers or floats, found dtype {array.dtype}")
    if shape not in (None, array.shape):
        raise ValueError(f"{name}: expected [clips, classes] of shape {shape} as in y_true, found {array.shape}")
    return array
