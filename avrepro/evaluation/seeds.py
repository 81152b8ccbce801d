"""How sure a number over seeds is: a bootstrap over seeds and clips, or the corrected resampled t where seeds re-split.

Every number that the book shows of systems comes from here, of one seed as of many, from the rows of a metric that
:func:`avrepro.evaluation.resample` gives for each seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy.special import stdtrit

from avrepro.evaluation.intervals import Interval, percentile_interval


def summarise(
    values: Sequence[np.ndarray],
    *,
    resplit: tuple[int, int] | None,
    paired: bool,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Mean over seeds of a number, or of a paired difference, with its interval.

    **Seeds that share their test clips** (``resplit=None``): resample b draws n - 1 of the n seeds with replacement and
    averages their b-th rows. Drawing n would make the spread of the mean over seeds too small by (n - 1) / n; of n - 1
    its variance is s^2 / n, s^2 being the unbiased variance of the seeds. The percentiles are moved so that their mean
    lies on the value: a clip that is drawn twice stands twice at the same rank, which makes rankings look better the
    fewer positives there are. With one seed it is the bootstrap over clips alone, and ``method`` says so.

    Percentiles know nothing of Student's t: where the seeds' spread is all there is, 95 % intervals cover 91 of 100
    times with 10 seeds and 88 with 5; where that of the clips is as large or larger, 93 to 95. What a clip adds to one
    seed alone is counted three times, in the spread of the seeds and, as seeds are drawn more than once, twice in that
    of the clips: no bootstrap of crossed factors is exact (McCullagh 2000; Owen 2007), and this one errs towards too
    wide.

    **Seeds that each split one pool of clips anew** (``resplit``): :func:`resplit_interval` of the rows 0. With one
    seed the spread over splits is unknown: it is the bootstrap over clips alone.

    :param values: one array a seed, float64 [1 + resamples], row 0 of the clips as they are. Seeds whose row 0 is NaN
        are left out, and resamples that are NaN in a seed drawn; ``method`` counts both.
    :param resplit: training and test clips of a seed where each seed splits one pool of clips anew; else None.
    :param paired: whether the values are differences of two systems, for ``method`` and ``bounds``.
    :param level: 0..1, exclusive.
    :param bounds: what the number can be, to which the interval is clipped; by default 0..1, of differences -1..1.
    :raises ValueError: where the arrays are not of one shape, or there are none.
    """
    return _summary(_stacked(values, "[1 + resamples]", resplit), resplit, paired, level, bounds)


def summarise_by_class(
    values: Sequence[np.ndarray],
    *,
    resplit: tuple[int, int] | None,
    paired: bool,
    level: float = 0.95,
    bounds: tuple[float, float] | None = None,
) -> list[Interval]:
    """:func:`summarise` of each class, in the same draws of seeds; values are [1 + resamples, classes] each.

    Each interval is at ``level`` by itself: see :func:`bonferroni_level`.
    """
    stacked = _stacked(values, "[1 + resamples, classes]", resplit)
    return [_summary(column, resplit, paired, level, bounds) for column in np.moveaxis(stacked, 2, 0)]


def resplit_interval(values: Sequence[float], clips_train: int, clips_test: int, level: float = 0.95) -> Interval:
    """Mean of one number over J random splits of one pool of clips, with the corrected resampled t interval.

    Splits share clips, so their results are not independent, and s^2 / J, their variance as if they were, is far too
    small. Nadeau and Bengio (2003), Inference for the generalization error, section 4: the variance of the mean is
    taken as (1 / J + clips_test / clips_train) s^2, with J - 1 degrees of freedom. What the interval is about is the
    number that training on ``clips_train`` clips gives in the mean. NaN bounds for fewer than two splits.
    """
    splits, mean = len(values), float(np.mean(values)) if len(values) else np.nan
    method = f"mean of {splits} seeds, {100 * level:g} % corrected resampled t interval"
    method += f" ({clips_train} training and {clips_test} test clips, split anew by each seed)"
    if splits < 2:
        return Interval(mean, np.nan, np.nan, method)
    variance = (1 / splits + clips_test / clips_train) * np.var(values, ddof=1)
    half = float(stdtrit(splits - 1, (1 + level) / 2) * np.sqrt(variance))
    return Interval(mean, mean - half, mean + half, method)


def bonferroni_level(level: float, comparisons: int) -> float:
    """The level of each of so many intervals with which all of them hold together at ``level``.

    Of 2,000 resamples, 17 comparisons at 95 % leave three beyond each end; many more need more resamples.
    """
    if comparisons < 1:
        raise ValueError(f"expected comparisons >= 1, found {comparisons}")
    return 1 - (1 - level) / comparisons


def seed_draws(seeds: int, resamples: int) -> np.ndarray:
    """Which seeds each resample has, int [resamples, seeds - 1]; with one seed always that one."""
    # A stream of its own: default_rng(0) draws the clips, and from the same numbers both would be linked.
    return np.random.default_rng([0, 1]).integers(seeds, size=(resamples, max(1, seeds - 1)))


def _stacked(values: Sequence[np.ndarray], expected: str, resplit: tuple[int, int] | None) -> np.ndarray:
    arrays = [np.asarray(one, np.float64) for one in values]
    shapes = sorted({one.shape for one in arrays})
    fits = len(shapes) == 1 and len(shapes[0]) == expected.count(",") + 1
    if not fits or shapes[0][0] < (2 if resplit is None else 1):
        raise ValueError(f"expected one array {expected} a seed, all of one shape, found the shapes {shapes}")
    return np.stack(arrays)


def _summary(
    values: np.ndarray,  # [seeds, 1 + resamples]
    resplit: tuple[int, int] | None,
    paired: bool,
    level: float,
    bounds: tuple[float, float] | None,
) -> Interval:
    known = values[~np.isnan(values[:, 0])]
    if resplit is not None and len(values) > 1:
        found = resplit_interval(list(known[:, 0]), *resplit, level)
    elif len(known):
        found = _over_seeds_and_clips(known, paired, level)
    else:
        found = Interval(np.nan, np.nan, np.nan, "undefined")
    least, most = bounds or ((-1, 1) if paired else (0, 1))
    low, high = np.clip([found.low, found.high], least, most)
    method = f"{found.method}; clipped to {least:g}..{most:g}"
    if len(known) < len(values):
        method += f"; {len(values) - len(known)} of {len(values)} seeds undefined and left out"
    return Interval(found.value, float(low), float(high), method)


def _over_seeds_and_clips(values: np.ndarray, paired: bool, level: float) -> Interval:
    n, resamples = len(values), values.shape[1] - 1
    repeated = values[seed_draws(n, resamples), np.arange(1, resamples + 1)[:, None]].mean(axis=1)
    drawn = f"{f'seeds ({n - 1} drawn) and clips' if n > 1 else 'clips alone'}, {resamples} resamples"
    found = percentile_interval(float(values[:, 0].mean()), repeated, drawn, paired, level, moved=True)
    return replace(found, method=f"{f'mean of {n} seeds' if n > 1 else '1 seed'}, {found.method}")
