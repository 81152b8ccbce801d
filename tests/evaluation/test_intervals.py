"""Bootstrap intervals of one run against a literal bootstrap and against simulated truth."""

from __future__ import annotations

import time

import numpy as np
import pytest
from sklearn.metrics import f1_score

from avrepro.evaluation import (
    Interval,
    average_precision,
    d_prime,
    d_prime_interval,
    metric_interval,
    micro_f1_interval,
    resample,
    summarise,
    tagging_scores,
)


def systems(rng: np.random.Generator, clips: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and the decisions of two systems that err together on hard clips; the second errs more."""
    y_true = rng.random((clips, classes)) < np.linspace(0.1, 0.3, classes)
    hard = rng.random((clips, 1))
    wrong = rng.random(y_true.shape) < 0.3 * hard
    worse = wrong | (rng.random(y_true.shape) < 0.05)
    return y_true, y_true ^ wrong, y_true ^ worse


def literal_bootstrap(statistic, clips: int, resamples: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    values = [statistic(rng.integers(clips, size=clips)) for _ in range(resamples)]
    return tuple(np.percentile(values, [2.5, 97.5]))


def sklearn_micro(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return f1_score(y_true, y_pred, average="micro", zero_division=0)


@pytest.mark.parametrize("paired", [False, True])
def test_both_ways_are_the_literal_bootstrap(paired: bool) -> None:
    y, a, b = systems(np.random.default_rng(0), 80, 5)

    def statistic(rows: np.ndarray | slice) -> float:
        return sklearn_micro(y[rows], a[rows]) - paired * sklearn_micro(y[rows], b[rows])

    low, high = literal_bootstrap(statistic, 80, 200, 7)
    against = b if paired else None
    for found in (
        micro_f1_interval(y, a, against, resamples=200, seed=7),
        metric_interval(lambda t, p: tagging_scores(t, p).f1, y, a, against, resamples=200, seed=7),
    ):
        assert (found.value, found.low, found.high) == pytest.approx((statistic(slice(None)), low, high), abs=1e-12)
        assert found.method == "paired " * paired + "95 % percentile bootstrap over clips, 200 resamples, seed 7"


def test_undefined_resamples_are_counted() -> None:
    y = np.zeros((12, 1), dtype=bool)
    y[3] = True  # (11/12)^12 = 35 % of resamples hold no positive
    scores = np.linspace(0, 1, 12)[:, None]

    def metric(truth: np.ndarray, found: np.ndarray) -> float:
        return average_precision(truth, found)[0]

    interval = metric_interval(metric, y, scores, resamples=400)
    left_out = int(interval.method.split("resamples, seed 0, ")[1].split()[0])
    assert 0.25 < left_out / 400 < 0.45
    assert interval.low <= interval.value <= interval.high
    undefined = metric_interval(metric, np.zeros_like(y), scores, resamples=10)
    assert np.isnan([undefined.value, undefined.low, undefined.high]).all()


def test_intervals_of_95_percent_cover_the_truth() -> None:
    # 1,000 corpora (seed 20171), 300 resamples each; the truth is what 400,000 clips of that world give. On
    # 200 clips the percentile bootstrap covers 94 % (3,000 other corpora), a little less than it states.
    rng = np.random.default_rng(20171)
    y, a, b = systems(rng, 400_000, 3)
    truth = tagging_scores(y, a).f1
    gain = truth - tagging_scores(y, b).f1
    covered = np.zeros(2)
    for simulation in range(1000):
        y, a, b = systems(rng, 200, 3)
        one = micro_f1_interval(y, a, resamples=300, seed=simulation)
        both = micro_f1_interval(y, a, b, resamples=300, seed=simulation)
        covered += [one.low <= truth <= one.high, both.low <= gain <= both.high]
    assert (covered >= 920).all() and (covered <= 980).all(), covered / 1000


def test_pairing_narrows_and_equal_systems_do_not_differ() -> None:
    y, a, b = systems(np.random.default_rng(4), 300, 17)
    paired = micro_f1_interval(y, a, b)
    apart = [micro_f1_interval(y, system, seed=s) for s, system in enumerate((a, b))]
    assert paired.low > 0
    assert paired.high - paired.low < sum(i.high - i.low for i in apart) / 2
    same = micro_f1_interval(y, a, a)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    wide, narrow = micro_f1_interval(y, a, level=0.99), micro_f1_interval(y, a, level=0.8)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_quick_on_the_evaluation_set() -> None:
    y, a, b = systems(np.random.default_rng(5), 1103, 17)
    start = time.process_time()
    micro_f1_interval(y, a, b)
    assert time.process_time() - start < 2.5


def test_d_prime_has_the_bounds_of_the_mean_auc() -> None:
    found = d_prime_interval(Interval(0.9, 0.8, 0.97, "made"))
    assert (found.value, found.low, found.high) == pytest.approx([d_prime(one) for one in (0.9, 0.8, 0.97)])
    assert found.method == "d' of the mean AUC: made"
    assert np.isnan(d_prime_interval(Interval(0.9, np.nan, np.nan, "made")).low)
    # Resamples in which all ranks are right have an infinite d', and no mean.
    y = np.arange(40)[:, None] < 4
    mauc = resample(y, np.where(y, 1.0, 0.0) + (np.arange(40) == 20)[:, None] * 2, 0.5).mauc
    assert np.isinf(d_prime(mauc)).sum() > 100 and not np.isnan(mauc[0])
    found = d_prime_interval(summarise([mauc], resplit=None, paired=False))
    assert 0 < found.low < found.value < found.high


def test_bad_input_is_named() -> None:
    y, a, b = systems(np.random.default_rng(6), 20, 3)
    with pytest.raises(ValueError, match=r"y_true and against.*\(20, 3\) and \(19, 3\)"):
        micro_f1_interval(y, a, b[1:])
    with pytest.raises(ValueError, match=r"y_pred: expected bool or 0 and 1, found 0\.4"):
        micro_f1_interval(y, np.full(y.shape, 0.4))
    with pytest.raises(ValueError, match="20 >= 1 clips as in y_true, found 19"):
        metric_interval(sklearn_micro, y, a[1:])
    with pytest.raises(ValueError, match="0 < level < 1, found 2000 and 95"):
        micro_f1_interval(y, a, level=95)
