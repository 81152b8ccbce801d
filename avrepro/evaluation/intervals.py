"""How sure a score is: percentile bootstrap over clips (Efron and Tibshirani 1993, chapter 13).

A clip is drawn with all its labels and decisions, since those are not independent of each other. The
resamples depend on the number of clips, `resamples` and `seed` alone, so two systems on the same clips share
them: that is the paired bootstrap. Thresholds and models stay fixed; what varies is which clips were scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from avrepro.evaluation.metrics import check_same_shape, checked_labels, f1_of_counts

BLOCK_ELEMENTS = 4_000_000  # of resample weights held at a time: 32 MB


@dataclass(frozen=True)
class Interval:
    """A value on the clips as they are, its interval, and how that was got (a sentence for the passport)."""

    value: float
    low: float
    high: float
    method: str


def micro_f1_interval(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    against: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of the micro F1 of y_pred or, with `against`, of micro F1(y_pred) - micro F1(against), paired.

    All arrays are bool [clips, classes] at fixed thresholds; F1 is a fraction 0..1. ValueError for bad input.
    """

    def micro_f1(totals: np.ndarray) -> np.ndarray:
        return f1_of_counts(*np.moveaxis(totals, -2, 0).sum(axis=-1))

    return _count_intervals(micro_f1, y_true, y_pred, against, resamples, level, seed)[0]


def class_f1_intervals(
    y_true: np.ndarray,
    y_pred: np.ndarray,
    against: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """One interval a class, each at the stated level by itself, of class F1 or its paired difference.

    Input as in micro_f1_interval. A resample without a positive or a prediction of a class scores 0 there.
    """

    def class_f1(totals: np.ndarray) -> np.ndarray:
        return f1_of_counts(*np.moveaxis(totals, -2, 0))

    return _count_intervals(class_f1, y_true, y_pred, against, resamples, level, seed)


def metric_interval(
    metric: Callable[[np.ndarray, np.ndarray], float],
    y_true: np.ndarray,
    scores: np.ndarray,
    against: np.ndarray | None = None,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of any metric(y_true, scores) or, with `against`, of metric(scores) - metric(against), paired.

    The metric is called anew on the rows (clips) of each resample: slow, but good for AP, AUC or any other.
    Resamples on which it is NaN (a class without positives, say) are left out, and `method` counts them;
    where it is NaN on the clips themselves, so is the interval. ValueError where the numbers of clips differ.
    """
    y_true, systems = np.asarray(y_true), [np.asarray(scores)]
    if against is not None:
        systems.append(np.asarray(against))
    for system in systems:
        if not len(y_true) or len(system) != len(y_true):
            raise ValueError(f"expected scores of {len(y_true)} >= 1 clips as in y_true, found {len(system)}")

    def on(rows: np.ndarray | slice) -> float:
        values = [float(metric(y_true[rows], system[rows])) for system in systems]
        return values[0] - values[1] if against is not None else values[0]

    _check(resamples, level)
    repeated = np.array([on(draw) for draw in _draws(len(y_true), resamples, seed)])
    return _percentile(on(slice(None)), repeated, against is not None, level, seed)


def seed_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of one number over runs with different seeds, with Student's t interval of that mean.

    What varies between the runs is what their seeds decide. NaN bounds for fewer than two runs; runs in which the
    number is NaN are left out, and ``method`` counts them.
    """
    kept = np.array([value for value in values if not np.isnan(value)])
    method = f"mean of {len(kept)} seeds, {100 * level:g} % Student t interval"
    if len(kept) < len(values):
        method += f", {len(values) - len(kept)} undefined and left out"
    if len(kept) < 2:
        return Interval(float(kept.mean()) if len(kept) else np.nan, np.nan, np.nan, method)
    half = scipy.stats.t.ppf((1 + level) / 2, len(kept) - 1) * kept.std(ddof=1) / np.sqrt(len(kept))
    return Interval(float(kept.mean()), float(kept.mean() - half), float(kept.mean() + half), method)


def _count_intervals(
    statistic: Callable[[np.ndarray], np.ndarray],
    y_true: np.ndarray,
    y_pred: np.ndarray,
    against: np.ndarray | None,
    resamples: int,
    level: float,
    seed: int,
) -> list[Interval]:
    """Intervals of a statistic of summed counts, [..., 3, classes] -> [...] or [..., classes].

    F1 needs only sums over clips of each clip's counts, so all resamples are one matrix product.
    """
    _check(resamples, level)
    y_true = checked_labels("y_true", y_true)
    systems = [("y_pred", y_pred)] if against is None else [("y_pred", y_pred), ("against", against)]
    counts = []
    for name, decisions in systems:
        y = checked_labels(name, decisions)
        check_same_shape("y_true", y_true, name, y)
        counts.append(np.stack([y_true & y, y, y_true], axis=1))  # (clips, 3, classes)
    clip_counts = np.stack(counts, axis=1).astype(np.float64)  # (clips, systems, 3, classes)

    def of(totals: np.ndarray) -> np.ndarray:  # (any, systems, 3, classes) -> (any, 1 or classes)
        values = np.stack([statistic(totals[:, s]) for s in range(len(systems))])
        difference = values[0] - values[1] if against is not None else values[0]
        return difference.reshape(len(totals), -1)

    flat = clip_counts.reshape(len(y_true), -1)
    totals = np.concatenate([weights @ flat for weights in _weights(len(y_true), resamples, seed)])
    repeated = of(totals.reshape(resamples, *clip_counts.shape[1:]))
    values = of(clip_counts.sum(axis=0, keepdims=True))[0]
    return [
        _percentile(float(value), column, against is not None, level, seed)
        for value, column in zip(values, repeated.T, strict=True)
    ]


def _draws(clips: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Indices of the clips of each resample, int [clips]."""
    rng = np.random.default_rng(seed)
    for _ in range(resamples):
        yield rng.integers(clips, size=clips)


def _weights(clips: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The same draws as how often each clip is in each resample, in blocks [some resamples, clips]."""
    draws = _draws(clips, resamples, seed)
    block = max(1, BLOCK_ELEMENTS // clips)
    for start in range(0, resamples, block):
        weights = np.empty((min(block, resamples - start), clips))
        for row in weights:
            row[:] = np.bincount(next(draws), minlength=clips)
        yield weights


def _percentile(value: float, repeated: np.ndarray, paired: bool, level: float, seed: int) -> Interval:
    kept = repeated[~np.isnan(repeated)]
    method = f"{100 * level:g} % percentile bootstrap over clips, {len(repeated)} resamples, seed {seed}"
    if paired:
        method = "paired " + method
    if len(kept) < len(repeated):
        method += f", {len(repeated) - len(kept)} of them undefined and left out"
    if np.isnan(value) or not len(kept):
        return Interval(value, np.nan, np.nan, method)
    low, high = np.quantile(kept, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), method)


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"expected resamples >= 1 and 0 < level < 1, found {resamples} and {level}")
