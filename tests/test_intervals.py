"""Bootstrap intervals against a literal bootstrap and against simulated truth."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from avrepro.evaluation import (
    average_precision,
    class_f1_intervals,
    intervals,
    metric_interval,
    micro_f1_interval,
    seed_interval,
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


def test_micro_f1_and_its_difference_as_the_literal_bootstrap() -> None:
    y, a, b = systems(np.random.default_rng(0), 80, 5)
    one = micro_f1_interval(y, a, resamples=200, seed=7)
    expected = literal_bootstrap(lambda rows: sklearn_micro(y[rows], a[rows]), 80, 200, 7)
    assert (one.low, one.high) == pytest.approx(expected, abs=1e-12)
    assert one.value == pytest.approx(sklearn_micro(y, a), abs=1e-12)

    both = micro_f1_interval(y, a, against=b, resamples=200, seed=7)
    expected = literal_bootstrap(
        lambda rows: sklearn_micro(y[rows], a[rows]) - sklearn_micro(y[rows], b[rows]), 80, 200, 7
    )
    assert (both.low, both.high) == pytest.approx(expected, abs=1e-12)
    assert both.value == pytest.approx(sklearn_micro(y, a) - sklearn_micro(y, b), abs=1e-12)
    assert one.method == "95 % percentile bootstrap over clips, 200 resamples, seed 7"
    assert both.method == "paired " + one.method


def test_class_f1_as_the_literal_bootstrap() -> None:
    y, a, b = systems(np.random.default_rng(1), 50, 3)

    def class_f1(y_pred: np.ndarray, rows: np.ndarray, k: int) -> float:
        return f1_score(y[rows, k], y_pred[rows, k], zero_division=0)

    alone = class_f1_intervals(y, a, resamples=100, seed=2)
    differences = class_f1_intervals(y, a, against=b, resamples=100, seed=2)
    assert len(alone) == len(differences) == 3
    for k in range(3):
        expected = literal_bootstrap(lambda rows, k=k: class_f1(a, rows, k), 50, 100, 2)
        assert (alone[k].low, alone[k].high) == pytest.approx(expected, abs=1e-12)
        expected = literal_bootstrap(lambda rows, k=k: class_f1(a, rows, k) - class_f1(b, rows, k), 50, 100, 2)
        assert (differences[k].low, differences[k].high) == pytest.approx(expected, abs=1e-12)
        assert alone[k].value == pytest.approx(tagging_scores(y, a).class_f1[k], abs=1e-12)


def test_slow_path_gives_the_same_numbers() -> None:
    y, a, b = systems(np.random.default_rng(2), 60, 4)
    for against in (None, b):
        fast = micro_f1_interval(y, a, against, resamples=150)
        slow = metric_interval(lambda t, p: tagging_scores(t, p).f1, y, a, against, resamples=150)
        assert (slow.value, slow.low, slow.high) == pytest.approx((fast.value, fast.low, fast.high), abs=1e-12)
        assert slow.method == fast.method


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    y, a, b = systems(np.random.default_rng(3), 90, 4)
    whole = micro_f1_interval(y, a, b, resamples=101)
    monkeypatch.setattr(intervals, "BLOCK_ELEMENTS", 90 * 7)
    assert micro_f1_interval(y, a, b, resamples=101) == whole


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


def test_seed_interval_is_the_one_sample_t_interval() -> None:
    values = [0.31, 0.35, 0.28, 0.40, 0.33]
    found = seed_interval(values)
    oracle = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((np.mean(values), oracle.low, oracle.high))
    assert found.method == "mean of 5 seeds, 95 % Student t interval"
    fewer = seed_interval([*values, np.nan])
    assert (fewer.low, fewer.high) == (found.low, found.high) and "1 undefined and left out" in fewer.method
    alone = seed_interval([0.3])
    assert alone.value == 0.3 and np.isnan(alone.low) and np.isnan(alone.high)


def test_quick_on_the_evaluation_set() -> None:
    y, a, b = systems(np.random.default_rng(5), 1103, 17)
    start = time.process_time()
    micro_f1_interval(y, a, b)
    assert time.process_time() - start < 2.5


def test_bad_input_is_named() -> None:
    y, a, b = systems(np.random.default_rng(6), 20, 3)
    with pytest.raises(ValueError, match=r"y_true and against.*\(20, 3\) and \(19, 3\)"):
        micro_f1_interval(y, a, b[1:])
    with pytest.raises(ValueError, match=r"y_pred: expected bool or 0 and 1, found 0\.5"):
        class_f1_intervals(y, np.full(y.shape, 0.5))
    with pytest.raises(ValueError, match="20 >= 1 clips as in y_true, found 19"):
        metric_interval(sklearn_micro, y, a[1:])
    with pytest.raises(ValueError, match="0 < level < 1, found 2000 and 95"):
        micro_f1_interval(y, a, level=95)
