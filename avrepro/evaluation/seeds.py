"""How sure a mean over seeds is: a bootstrap over seeds and clips together.

Every seed's number is first computed on all resamples of its clips, by :func:`counted` or
:func:`avrepro.evaluation.ranking.resampled` or :func:`avrepro.evaluation.calibration.calibration_resamples`; then the
seeds are drawn anew in each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avrepro.evaluation.intervals import Interval, _check, _percentile, _weights
from avrepro.evaluation.metrics import check_same_shape, checked_labels, f1_of_counts
from avrepro.evaluation.ranking import _mean


@dataclass(frozen=True, eq=False)
class Counted:
    """A system's F1, float64 fractions 0..1; row 0 is of the clips as they are, the others of their resamples.

    Rows of two systems on the same clips are of the same draws: their differences are paired.
    """

    micro_f1: np.ndarray  # [1 + resamples]
    class_f1: np.ndarray  # [1 + resamples, classes]; NaN in all rows of a class that has no positive clip

    @property
    def macro_f1(self) -> np.ndarray:
        """Mean over the classes that have a positive clip, [1 + resamples]."""
        return _mean(self.class_f1)


def counted(y_true: np.ndarray, y_pred: np.ndarray, resamples: int = 2000, seed: int = 0) -> Counted:
    """F1 of decisions on all resamples of the clips, in the draws of :func:`resampled` with the same ``seed``.

    A class whose positive clips a resample happens to miss scores 0 there, as in :func:`class_f1_intervals`. Decisions
    for a class without any positive clip count in micro F1 still: they are false alarms.

    :param y_true: bool [clips, classes]. :param y_pred: bool, the same shape, at fixed thresholds.
    :raises ValueError: for bad input.
    """
    y_true, y_pred = checked_labels("y_true", y_true), checked_labels("y_pred", y_pred)
    check_same_shape("y_true", y_true, "y_pred", y_pred)
    counts = np.stack([y_true & y_pred, y_pred, y_true], axis=1).astype(np.float64)  # (clips, 3, classes)
    flat = counts.reshape(len(counts), -1)
    blocks = [np.ones((1, len(flat))), *_weights(len(flat), resamples, seed)]
    totals = np.concatenate([weights @ flat for weights in blocks]).reshape(-1, *counts.shape[1:])
    hits, predicted, positive = np.moveaxis(totals, 1, 0)  # (1 + resamples, classes) each
    micro = f1_of_counts(hits.sum(axis=1), predicted.sum(axis=1), positive.sum(axis=1))
    return Counted(micro, np.where(y_true.any(axis=0), f1_of_counts(hits, predicted, positive), np.nan))


def over_seeds(values: Sequence[np.ndarray], level: float = 0.95, seed: int = 0, paired: bool = False) -> Interval:
    """Mean over seeds of a number, or of a paired difference, with its interval over seeds and clips together.

    Resample b draws n - 1 of the n seeds with replacement and averages their b-th rows. Drawing n would make the spread
    of the mean over seeds too small by (n - 1) / n; of n - 1 its variance is s^2 / n, s^2 being the unbiased variance
    of the seeds. The percentiles are moved onto the value as in :func:`avrepro.evaluation.ranking.interval_of`. With
    one seed it is the bootstrap over clips alone, and ``method`` says so. Percentiles know nothing of Student's t:
    where the seeds' spread is all there is, 95 % intervals cover 91 of 100 times with 10 seeds and 88 with 5; where
    that of the clips is as large or larger, 93 to 95.

    Whether all seeds are scored on the same draws of clips is the caller's choice, by the ``seed`` given to the
    bootstrap of the clips. Seeds that share one test set must share it too: what a clip adds to all of them does not
    average out. What a clip adds to one seed alone is counted three times, in the spread of the seeds and, as seeds are
    drawn more than once, twice in that of the clips: no bootstrap of crossed factors is exact (McCullagh 2000; Owen
    2007), and this one errs towards too wide. Seeds with test clips of their own, each with another bootstrap seed, are
    all of that kind: the interval is up to 1.7 times too wide, and :func:`seed_interval` of the rows 0 fits better.

    :param values: one array a seed, [1 + resamples], row 0 of the clips as they are. Seeds whose row 0 is NaN are left
        out, and resamples that are NaN in a seed drawn; ``method`` counts both.
    :param level: 0..1, exclusive. :param seed: of the draws of seeds, a stream apart from that of the clips.
    :param paired: whether the values are differences, for ``method``.
    :raises ValueError: where the arrays are not of one shape, or there are none.
    """
    return _over_seeds(_stacked(values, 1)[:, :, None], level, seed, paired)[0]


def over_seeds_by_class(
    values: Sequence[np.ndarray], level: float = 0.95, seed: int = 0, paired: bool = False
) -> list[Interval]:
    """:func:`over_seeds` of each class, in the same draws of seeds; values are [1 + resamples, classes] each.

    Each interval is at ``level`` by itself: see :func:`corrected`.
    """
    return _over_seeds(_stacked(values, 2), level, seed, paired)


def corrected(level: float, comparisons: int) -> float:
    """The level of each of so many intervals with which all of them hold together at ``level`` (Bonferroni).

    Of 2,000 resamples, 17 comparisons at 95 % leave three beyond each end; many more need more resamples.
    """
    if comparisons < 1:
        raise ValueError(f"expected comparisons >= 1, found {comparisons}")
    return 1 - (1 - level) / comparisons


def seed_draws(seeds: int, resamples: int, seed: int) -> np.ndarray:
    """Which seeds each resample has, int [resamples, seeds - 1]; with one seed always that one."""
    # A stream of its own: default_rng(seed) draws the clips, and from the same numbers both would be linked.
    rng = np.random.default_rng([seed, 1])
    return rng.integers(seeds, size=(resamples, max(1, seeds - 1)))


def _stacked(values: Sequence[np.ndarray], dimensions: int) -> np.ndarray:
    arrays = [np.asarray(one, np.float64) for one in values]
    shapes = sorted({one.shape for one in arrays})
    if len(shapes) != 1 or len(shapes[0]) != dimensions or shapes[0][0] < 2:
        expected = "[1 + resamples]" if dimensions == 1 else "[1 + resamples, classes]"
        raise ValueError(f"expected one array {expected} a seed, all of one shape, found the shapes {shapes}")
    return np.stack(arrays)


def _over_seeds(values: np.ndarray, level: float, seed: int, paired: bool) -> list[Interval]:
    """:param values: [seeds, 1 + resamples, any]."""
    _check(values.shape[1] - 1, level)
    draws = {n: seed_draws(n, values.shape[1] - 1, seed) for n in range(1, len(values) + 1)}
    found = []
    for column in np.moveaxis(values, 2, 0):  # (seeds, 1 + resamples)
        known = column[~np.isnan(column[:, 0])]
        left_out = len(column) - len(known)
        found.append(_one(known, draws.get(len(known)), left_out, level, seed, paired))
    return found


def _one(
    values: np.ndarray, draws: np.ndarray | None, left_out: int, level: float, seed: int, paired: bool
) -> Interval:
    """:param values: [seeds, 1 + resamples], no NaN in column 0. :param draws: None where no seed is left."""
    n, resamples = len(values), values.shape[1] - 1
    if draws is None:
        return Interval(np.nan, np.nan, np.nan, f"undefined in all of {left_out} seeds")
    value = float(values[:, 0].mean())
    rows = np.arange(1, resamples + 1)
    repeated = values[draws, rows[:, None]].mean(axis=1)  # (resamples, seeds drawn) -> (resamples,)
    kept = repeated[~np.isnan(repeated)]
    moved = kept - kept.mean() + value if len(kept) else kept
    bounds = _percentile(value, moved, paired, level, seed)
    over = f"over seeds ({n - 1} drawn) and clips" if n > 1 else "over clips alone"
    method = f"mean of {n} seeds, " if n > 1 else "1 seed, "
    method += f"{'paired ' if paired else ''}{100 * level:g} % percentile bootstrap {over}, {resamples} resamples"
    method += f", seed {seed}, moved onto the value"
    if len(kept) < resamples:
        method += f"; {resamples - len(kept)} resamples undefined and left out"
    if left_out:
        method += f"; {left_out} seeds undefined and left out"
    return Interval(value, bounds.low, bounds.high, method)
