"""How sure a number is that one run gives: percentile bootstrap over clips (Efron and Tibshirani 1993, chapter 13)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avrepro.evaluation.metrics import check_same_shape, checked_labels
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
    _check(resamples, level)
    systems = {"y_pred": y_pred} if against is None else {"y_pred": y_pred, "against": against}
    y_true, found = checked_labels("y_true", y_true), []
    for name, decisions in systems.items():
        decisions = checked_labels(name, decisions)
        check_same_shape("y_true", y_true, name, decisions)
        found.append(resample(y_true, decisions, 0.5, resamples, seed).micro_f1)  # scores of 0 and 1
    values = found[0] if against is None else found[0] - found[1]
    return percentile_interval(
        float(values[0]), values[1:], f"clips, {resamples} resamples, seed {seed}", against is not None, level
    )


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

    The metric is called anew on the rows (clips) of each resample: slow, but good for any, such as those of
    localisation. Resamples on which it is NaN are left out, and `method` counts them; where it is NaN on the clips
    themselves, so is the interval. ValueError where the numbers of clips differ.
    """
    _check(resamples, level)
    y_true, systems = np.asarray(y_true), [np.asarray(scores)]
    if against is not None:
        systems.append(np.asarray(against))
    for system in systems:
        if not len(y_true) or len(system) != len(y_true):
            raise ValueError(f"expected scores of {len(y_true)} >= 1 clips as in y_true, found {len(system)}")

    def on(rows: np.ndarray | slice) -> float:
        values = [float(metric(y_true[rows], system[rows])) for system in systems]
        return values[0] - values[1] if against is not None else values[0]

    repeated = np.array([on(draw) for draw in clip_draws(len(y_true), resamples, seed)])
    return percentile_interval(
        on(slice(None)), repeated, f"clips, {resamples} resamples, seed {seed}", against is not None, level
    )


def d_prime_interval(mean_auc: Interval) -> Interval:
    """d' of a mean AUC; its bounds are d' of that one's bounds, and infinite where those are 0 or 1.

    d' rises with the AUC, so percentiles stay percentiles. Resamples of d' itself are infinite where the AUC is 1.
    """
    value, low, high = (float(d_prime(one)) for one in (mean_auc.value, mean_auc.low, mean_auc.high))
    return Interval(value, low, high, f"d' of the mean AUC: {mean_auc.method}")


def percentile_interval(
    value: float, repeated: np.ndarray, drawn: str, paired: bool, level: float, moved: bool = False
) -> Interval:
    """Percentiles of a number's resamples; those that are NaN are left out, and ``method`` counts them.

    :param drawn: what was drawn and how often, for ``method``. :param moved: whether the percentiles are moved so that
        the resamples' mean lies on the value.
    """
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


def _check(resamples: int, level: float) -> None:
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"expected resamples >= 1 and 0 < level < 1, found {resamples} and {level}")
