"""Bootstrap intervals of one run against a literal bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from avrepro.evaluation import (
    average_precision,
    d_prime,
    metric_interval,
    micro_f1_interval,
    resample,
    summarise,
)
from avrepro.evaluation.intervals import d_prime_interval


def systems(rng: np.random.Generator, clips: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and the decisions of two systems that err together on hard clips; the second errs more."""
    y_true = rng.random((clips, classes)) < np.linspace(0.1, 0.3, classes)
    hard = rng.random((clips, 1))
    wrong = rng.random(y_true.shape) < 0.3 * hard
    worse = wrong | (rng.random(y_true.shape) < 0.05)
    return y_true, y_true ^ wrong, y_true ^ worse


def sklearn_micro(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return f1_score(y_true, y_pred, average="micro", zero_division=0)


@pytest.mark.parametrize("paired", [False, True])
def test_both_ways_are_the_literal_bootstrap(paired: bool) -> None:
    y, a, b = systems(np.random.default_rng(0), 80, 5)

    def statistic(y: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
        return sklearn_micro(y, a) - paired * sklearn_micro(y, b)

    rng = np.random.default_rng(0)
    draws = [rng.integers(80, size=80) for _ in range(200)]
    low, high = np.percentile([statistic(y[rows], a[rows], b[rows]) for rows in draws], [2.5, 97.5])
    quick = micro_f1_interval(y, a, b if paired else None, resamples=200)
    for found in (quick, metric_interval(statistic, y, a, b, resamples=200)):
        assert (found.value, found.low, found.high) == pytest.approx((statistic(y, a, b), low, high), abs=1e-12)
    assert quick.method == "paired " * paired + "95 % percentile bootstrap over clips, 200 resamples, seed 0"


def test_undefined_resamples_are_counted() -> None:
    y = np.zeros((12, 1), dtype=bool)
    y[3] = True  # (11/12)^12 = 35 % of resamples hold no positive
    scores = np.linspace(0, 1, 12)[:, None]

    def metric(truth: np.ndarray, found: np.ndarray) -> float:
        return average_precision(truth, found)[0]

    interval = metric_interval(metric, y, scores, resamples=400)
    left_out = int(interval.method.split("resamples, seed 0, ")[1].split()[0])
    assert 0.25 < left_out / 400 < 0.45 and interval.low <= interval.value <= interval.high
    undefined = metric_interval(metric, np.zeros_like(y), scores, resamples=10)
    assert np.isnan([undefined.value, undefined.low, undefined.high]).all()


def test_pairing_narrows_and_equal_systems_do_not_differ() -> None:
    y, a, b = systems(np.random.default_rng(4), 300, 17)
    paired, alone, same = micro_f1_interval(y, a, b), micro_f1_interval(y, a), micro_f1_interval(y, a, a)
    assert paired.low > 0 and paired.high - paired.low < alone.high - alone.low
    assert (same.value, same.low, same.high) == (0, 0, 0)
    wide, narrow = micro_f1_interval(y, a, level=0.99), micro_f1_interval(y, a, level=0.8)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_d_prime_has_the_bounds_of_the_mean_auc() -> None:
    """Resamples in which all ranks are right have an infinite d', and no mean."""
    y = np.arange(40)[:, None] < 4
    mauc = resample(y, np.where(y, 1.0, 0.0) + (np.arange(40) == 20)[:, None] * 2, 0.5).mauc
    assert np.isinf(d_prime(mauc)).sum() > 100 and not np.isnan(mauc[0])
    of_auc = summarise([mauc], resplit=None, paired=False)
    found = d_prime_interval(of_auc)
    assert (found.value, found.low, found.high) == tuple(map(d_prime, (of_auc.value, of_auc.low, of_auc.high)))
    assert 0 < found.low < found.value < found.high and found.method == f"d' of the mean AUC: {of_auc.method}"


def test_bad_input_is_named() -> None:
    y, a, b = systems(np.random.default_rng(6), 20, 3)
    with pytest.raises(ValueError, match=r"against.*\(20, 3\) as in y_true, found \(19, 3\)"):
        micro_f1_interval(y, a, b[1:])
    with pytest.raises(ValueError, match=r"y_pred: expected bool or 0 and 1, found 0\.4"):
        micro_f1_interval(y, np.full(y.shape, 0.4))
