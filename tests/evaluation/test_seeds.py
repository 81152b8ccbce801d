"""Intervals over seeds against literal bootstraps and formulas, and whether they cover where the truth is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from avrepro.evaluation import average_precision, resample, summarise
from avrepro.evaluation.resampling import clip_weights
from avrepro.evaluation.seeds import resplit_interval, seed_draws

SEEDS, CLIPS, CLASSES, RESAMPLES = 4, 40, 3, 50
Metric = Callable[[np.ndarray, np.ndarray], float]
rng = np.random.default_rng(11)
TRUTH = rng.random((CLIPS, CLASSES)) < (0.5, 0.3, 0.15)
TRUTH[0] = True
DECISIONS = rng.random((2, SEEDS, CLIPS, CLASSES)) < 0.2 + 0.5 * TRUTH  # two systems
SCORES = np.round(rng.normal(size=DECISIONS.shape) + TRUTH, 1)  # ties


def over_seeds(values: list[np.ndarray] | np.ndarray, level: float = 0.95, paired: bool = False):
    return summarise(list(values), resplit=None, paired=paired, level=level)


def sklearn_micro_f1(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return float(f1_score(y_true, y_pred, average="micro", zero_division=0))


def mean_ap(y_true: np.ndarray, scores: np.ndarray) -> float:
    return float(np.nanmean(average_precision(y_true, scores)))


@pytest.mark.parametrize(("metric", "name", "systems"),
                         [(sklearn_micro_f1, "micro_f1", DECISIONS), (mean_ap, "map", SCORES)])  # fmt: skip
def test_resamples_are_those_of_a_literal_bootstrap_over_seeds_and_clips(
    metric: Metric, name: str, systems: np.ndarray
) -> None:
    ours, theirs = ([getattr(resample(TRUTH, one, 0.5, RESAMPLES, seed=2), name) for one in runs] for runs in systems)
    draws = seed_draws(SEEDS, RESAMPLES)
    assert draws.shape == (RESAMPLES, SEEDS - 1) and set(draws.ravel()) == set(range(SEEDS))
    clip_draws, repeated = np.random.default_rng(2), []
    for seeds in draws:
        clips = clip_draws.integers(CLIPS, size=CLIPS)
        of = [[metric(TRUTH[clips], runs[s][clips]) for s in seeds] for runs in systems]
        repeated.append(np.mean(of[0]) - np.mean(of[1]))
    value = float(np.mean([metric(TRUTH, a) - metric(TRUTH, b) for a, b in zip(*systems, strict=True)]))
    found = over_seeds([a - b for a, b in zip(ours, theirs, strict=True)], level=0.9, paired=True)
    low, high = np.quantile(repeated, [0.05, 0.95]) - np.mean(repeated) + value
    np.testing.assert_allclose([found.value, found.low, found.high], [value, low, high], atol=1e-12)
    assert found.method == (
        "mean of 4 seeds, paired 90 % percentile bootstrap over seeds (3 drawn) and clips, 50 resamples, "
        "moved onto the value; clipped to -1..1"
    )


def test_the_variance_of_the_mean_over_seeds_is_unbiased() -> None:
    """Where clips add nothing, resamples vary by s^2 / n: exactly so over all draws there are."""
    values = rng.normal(0.5, 0.1, size=4)
    means = [values[list(draw)].mean() for draw in itertools.product(range(4), repeat=3)]
    assert np.var(means) == pytest.approx(values.var(ddof=1) / 4)
    resamples = 20_000
    assert values[seed_draws(4, resamples)].mean(axis=1).var() == pytest.approx(values.var(ddof=1) / 4, rel=0.05)
    found = over_seeds([np.full(resamples + 1, value) for value in values])
    low, high = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.05 * (high - low))


def test_seeds_and_clips_are_drawn_independently_of_each_other() -> None:
    """Else a seed would go with certain clips."""
    clips = np.random.default_rng(0).integers(1000, size=20_000 * 9)
    assert abs(np.corrcoef(clips, seed_draws(10, 20_000).ravel())[0, 1]) < 4 / np.sqrt(len(clips))


@pytest.mark.parametrize("resplit", [None, (60, 20)])
def test_one_seed_is_the_bootstrap_over_clips_alone(resplit: tuple[int, int] | None) -> None:
    values = resample(TRUTH, DECISIONS[0, 0], 0.5, 300).micro_f1
    found = summarise([values], resplit=resplit, paired=False)
    low, high = np.quantile(values[1:], [0.025, 0.975]) - values[1:].mean() + values[0]
    np.testing.assert_allclose([found.value, found.low, found.high], [values[0], low, high])
    assert found.method.startswith("1 seed, 95 % percentile bootstrap over clips alone, 300 resamples")


def test_undefined_resamples_and_seeds_are_left_out_and_counted() -> None:
    values = rng.normal(0.5, 0.1, size=(3, 101))
    values[1, 7] = np.nan
    lacks = (seed_draws(3, 100)[6] == 1).any()
    values[0, 40] = values[1, 40] = values[2, 40] = np.nan
    found = over_seeds(values)
    assert f"the value, {1 + int(lacks)} of them undefined and left out;" in found.method
    assert found.low < found.value < found.high
    undefined = np.full(101, np.nan)
    more = over_seeds([*values, undefined])
    assert (more.value, more.low) == (found.value, found.low) and found.value == pytest.approx(values[:, 0].mean())
    assert more.method == found.method + "; 1 of 4 seeds undefined and left out"
    for resplit in (None, (60, 20)):
        nothing = summarise([undefined, undefined], resplit=resplit, paired=False)
        assert np.isnan([nothing.value, nothing.low, nothing.high]).all() and "2 of 2 seeds" in nothing.method
        one = summarise([values[0], undefined], resplit=resplit, paired=False)
        assert one.value == values[0, 0] and np.isnan(one.low) == (resplit is not None)  # one split tells no spread


@pytest.mark.parametrize("resplit", [None, (60, 20)])
def test_no_interval_leaves_what_its_metric_can_be(resplit: tuple[int, int] | None) -> None:
    """A near perfect system: moved percentiles, and Student's t, would pass 1."""
    near = np.clip(1 - np.abs(rng.normal(0, 0.05, size=(4, 401))), 0, 1)
    near[:, 0] = 0.999, 0.99, 1.0, 0.97
    for values, paired, least, most in ((near, False, 0, 1), (1 - near, False, 0, 1), (-near, True, -1, 1)):
        found = summarise(list(values), resplit=resplit, paired=paired)
        assert least <= found.low < found.value < found.high <= most
        assert found.low == least or found.high == most
        assert found.method.endswith(f"; clipped to {least}..{most}")
    wide = summarise(list(2 * near - 0.1), resplit=resplit, paired=True, bounds=(-2, 2))
    assert 1 < wide.high <= 2 and wide.method.endswith("-2..2")


# Seeds that re-split one pool of clips.


def test_the_corrected_resampled_t_is_its_formula() -> None:
    values = [0.31, 0.35, 0.28, 0.40, 0.33]
    mean = sum(values) / 5
    s2 = sum((value - mean) ** 2 for value in values) / 4
    half = stats.t(df=4).ppf(0.975) * (s2 * (1 / 5 + 20 / 60)) ** 0.5
    found = resplit_interval(values, clips_train=60, clips_test=20)
    assert (found.value, found.low, found.high) == pytest.approx((mean, mean - half, mean + half))
    rows = [np.array([value]) for value in values]  # of the clips as they are: no resample is needed
    summary = summarise(rows, resplit=(60, 20), paired=False)
    assert (summary.low, summary.high) == (found.low, found.high)
    assert summary.method == (
        "mean of 5 seeds, 95 % corrected resampled t interval (60 training and 20 test clips, split anew by each "
        "seed); clipped to 0..1"
    )
    # With hardly any test clips it is Student's t, as if the splits were independent.
    plain = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = resplit_interval(values, 10**9, 1)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), rel=1e-6)
    alone = resplit_interval([0.3], 60, 20)
    assert alone.value == 0.3 and np.isnan([alone.low, alone.high]).all()


def test_it_covers_where_splits_share_clips_and_student_s_t_does_not() -> None:
    """The mean of 60 of 100 numbers predicts 20 others; its expected squared error is known: 1 + 1 / 60."""
    draw, covered = np.random.default_rng(0), np.zeros(2)
    for _ in range(1000):
        pool, errors = draw.normal(size=100), []
        for _ in range(10):
            order = draw.permutation(100)
            errors.append(np.mean((pool[order[80:]] - pool[order[:60]].mean()) ** 2))
        for row, found in enumerate((resplit_interval(errors, 60, 20), resplit_interval(errors, 10**9, 1))):
            covered[row] += found.low <= 1 + 1 / 60 <= found.high
    corrected, student = covered / 1000
    assert 0.93 < corrected < 0.975 and student < 0.8


# Seeds that share their test clips.


def test_intervals_of_paired_differences_cover_93_to_97_of_100_times() -> None:
    """Ten trainings and 300 test clips drawn anew 500 times: what a clip adds is in part the same for all trainings."""
    draw, covered, truth = np.random.default_rng(2024), 0, 0.05
    for number in range(500):
        gains = (
            truth + 0.02 * draw.normal(size=(10, 1)) + 0.3 * draw.normal(size=300) + 0.4 * draw.normal(size=(10, 300))
        )
        weights = np.concatenate([np.ones((1, 300)), *clip_weights(300, 300, number)]) / 300
        found = over_seeds(gains @ weights.T, paired=True)
        covered += found.low <= truth <= found.high
    assert 0.93 <= covered / 500 <= 0.97, covered


@pytest.mark.parametrize(("seeds", "covers"), [(10, 0.91), (5, 0.88)])
def test_where_seeds_are_all_that_varies_percentiles_are_a_little_narrow(seeds: int, covers: float) -> None:
    """As the docstring says."""
    draw = np.random.default_rng(1)
    found = [over_seeds([np.full(301, one) for one in draw.normal(0.5, 0.05, seeds)]) for _ in range(2000)]
    assert np.mean([one.low <= 0.5 <= one.high for one in found]) == pytest.approx(covers, abs=0.02)
