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

    @property
    def class_average_f1(self) -> float:
        """F1 of the mean class precision and mean class recall: the evaluator's "class-wise average"."""
        precision, recall = self.class_precision.mean(), self.class_recall.mean()
        return float(ratio(2 * precision * recall, precision + recall))

    @property
    def macro_f1(self) -> float:
        """Mean of the classes' F1. It differs from class_average_f1, and papers mean either by "macro"."""
        return float(self.class_f1.mean())


def tagging_scores(y_true: np.ndarray, y_pred: np.ndarray) -> TaggingScores:
    """Score decisions against weak labels, both bool (or 0 and 1) [clips, classes].

    Raises ValueError where a shape or a value is not that.
    """
    y_true, y_pred = checked_labels("y_true", y_true), checked_labels("y_pred", y_pred)
    check_same_shape("y_true", y_true, "y_pred", y_pred)
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


def cumulative_counts(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What ``score >= threshold`` decides for one class, for each of its distinct scores as the threshold.

    labels bool [clips], scores float [clips] -> (distinct scores falling, true positives, clips predicted),
    each [distinct scores].
    """
    order = np.argsort(-scores)
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[:-1] != ordered[1:], True))  # the last clip of each run of ties
    return ordered[last], np.cumsum(labels[order])[last], last + 1


def checked_labels(name: str, values: np.ndarray) -> np.ndarray:
    """values as bool [clips, classes], or a ValueError that says what was found instead."""
    array = _matrix(name, values)
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
    y_true, scores = checked_labels("y_true", y_true), _matrix("scores", scores)
    check_same_shape("y_true", y_true, "scores", scores)
    if not np.issubdtype(scores.dtype, np.floating):
        scores = scores.astype(np.float64)
    if not np.isfinite(scores).all():
        clip, k = np.argwhere(~np.isfinite(scores))[0]
        raise ValueError(
            f"scores: expected finite numbers, found {scores[clip, k]} at clip {clip}, class {k}; "
            "leave out clips that could not be scored"
        )
    return y_true, scores


def check_same_shape(name: str, array: np.ndarray, other_name: str, other: np.ndarray) -> None:
    """ValueError unless the two arrays have one shape."""
    if array.shape != other.shape:
        raise ValueError(
            f"{name} and {other_name}: expected one shape [clips, classes], found {array.shape} and {other.shape}"
        )


def _matrix(name: str, values: np.ndarray) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name}: expected [clips, classes], at least one of each, found shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name}: expected bool, integers or floats, found dtype {array.dtype}")
    return array
