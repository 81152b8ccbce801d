"""How sure a number is that one run gives: percentile bootstrap over clips (Efron and Tibshirani 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avrepro.evaluation.metrics import checked_labels
from avrepro.evaluation.ranking import d_prime
from avrepro.evaluation.resampling import clip_draws, resample


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
    y_true = checked_labels("y_true", y_true)
    y_pred = checked_labels("y_pred", y_pred, y_true.shape)
    rows = resample(y_true, y_pred, 0.5, resamples, seed).micro_f1  # scores of 0 and 1
    if against is not None:
        against = checked_labels("against", against, y_true.shape)
        rows = rows - resample(y_true, against, 0.5, resamples, seed).micro_f1
    return percentile_interval(rows, f"clips, {resamples} resamples, seed {seed}", against is not None, level)


def metric_interval(metric: Callable[..., float], *arrays: np.ndarray, resamples: int = 2000) -> Interval:
    """95 % interval of any metric of arrays that have a row a clip each.

    The metric is called anew on the rows of each resample: slow, but good for any. Resamples on which it is NaN are
    left out, and `method` counts them; where it is NaN on the clips themselves, so is the interval.
    """
    clips = len(arrays[0])
    draws = [np.arange(clips), *clip_draws(clips, resamples, 0)]
    values = np.array([float(metric(*(array[rows] for array in arrays))) for rows in draws])
    return percentile_interval(values, f"clips, {resamples} resamples, seed 0", False, 0.95)


def d_prime_interval(mean_auc: Interval) -> Interval:
    """d' of a mean AUC; its bounds are d' of that one's bounds, and infinite where those are 0 or 1.

    d' rises with the AUC, so percentiles stay percentiles. Resamples of d' itself are infinite where the AUC is 1.
    """
    value, low, high = (float(d_prime(one)) for one in (mean_auc.value, mean_auc.low, mean_auc.high))
    return Interval(value, low, high, f"d' of the mean AUC: {mean_auc.method}")


def percentile_interval(values: np.ndarray, drawn: str, paired: bool, level: float, moved: bool = False) -> Interval:
    """Percentiles of a number's resamples; those that are NaN are left out, and ``method`` counts them.

    :param values: the number, then its resamples, [1 + resamples]. :param drawn: what was drawn and how often.
    :param moved: whether the percentiles are moved so that the resamples' mean lies on the value.
    """
    value, repeated = float(values[0]), values[1:]
    defined = repeated[~np.isnan(repeated)]
    method = f"{'paired ' if paired else ''}{100 * level:g} % percentile bootstrap over {drawn}"
    if moved:
        method += ", moved onto the value"
    if len(defined) < len(repeated):
        method += f", {len(repeated) - len(defined)} of them undefined and left out"
    if np.isnan(value) or not len(defined):
        return Interval(value, np.nan, np.nan, method)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    shift = value - defined.mean() if moved else 0.0
    return Interval(value, float(low + shift), float(high + shift), method)
