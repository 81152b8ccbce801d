"""Intervals over seeds and clips together: against a literal bootstrap, and whether they cover."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import f1_score

from avrepro.evaluation import Interval, average_precision, class_f1_intervals, micro_f1_interval, seed_interval
from avrepro.evaluation.intervals import _weights
from avrepro.evaluation.ranking import resampled
from avrepro.evaluation.seeds import corrected, counted, over_seeds, over_seeds_by_class, seed_draws

SEEDS, CLIPS, CLASSES, RESAMPLES = 4, 40, 3, 50
Metric = Callable[[np.ndarray, np.ndarray], float]
rng = np.random.default_rng(11)
TRUTH = rng.random((CLIPS, CLASSES)) < (0.5, 0.3, 0.15)
TRUTH[0] = True
DECISIONS = rng.random((2, SEEDS, CLIPS, CLASSES)) < 0.2 + 0.5 * TRUTH  # two systems


def test_f1_of_the_clips_as_they_are_is_that_of_scikit_learn() -> None:
    found = counted(TRUTH, DECISIONS[0, 0], resamples=3)
    assert found.micro_f1[0] == pytest.approx(f1_score(TRUTH, DECISIONS[0, 0], average="micro"))
    assert found.macro_f1[0] == pytest.approx(f1_score(TRUTH, DECISIONS[0, 0], average="macro"))
    np.testing.assert_allclose(found.class_f1[0], f1_score(TRUTH, DECISIONS[0, 0], average=None))


def test_counted_has_the_resamples_of_the_intervals_of_one_system() -> None:
    one, other = (counted(TRUTH, decisions, 200, seed=5) for decisions in DECISIONS[:, 0])
    expected = micro_f1_interval(TRUTH, DECISIONS[0, 0], DECISIONS[1, 0], resamples=200, seed=5)
    ends = np.quantile((one.micro_f1 - other.micro_f1)[1:], [0.025, 0.975])
    np.testing.assert_allclose(ends, [expected.low, expected.high], atol=1e-12)
    for k, interval in enumerate(class_f1_intervals(TRUTH, DECISIONS[0, 0], DECISIONS[1, 0], resamples=200, seed=5)):
        ends = np.quantile((one.class_f1 - other.class_f1)[1:, k], [0.025, 0.975])
        np.testing.assert_allclose(ends, [interval.low, interval.high], atol=1e-12)


def test_a_class_without_positive_clips_is_left_out_of_macro_f1_and_not_of_micro_f1() -> None:
    truth = TRUTH.copy()
    truth[:, 1] = False
    found, kept = counted(truth, DECISIONS[0, 0], 20), counted(truth[:, [0, 2]], DECISIONS[0, 0][:, [0, 2]], 20)
    assert np.isnan(found.class_f1[:, 1]).all()
    np.testing.assert_allclose(found.macro_f1, kept.macro_f1)
    assert (found.micro_f1 < kept.micro_f1).all()  # its false alarms count


def test_a_class_that_only_a_resample_lacks_scores_0_there() -> None:
    truth = np.zeros((CLIPS, 1), bool)
    truth[0] = True
    found = counted(truth, truth, 100)
    assert set(found.class_f1[:, 0]) == {0.0, 1.0}


def literal(systems: np.ndarray, draws: np.ndarray, clip_seed: int, metric: Metric) -> list[float]:
    """Mean over the seeds drawn of the metric of the first system less the second, on the clips drawn, one by one."""
    found = []
    clip_draws = np.random.default_rng(clip_seed)
    for seeds in draws:
        clips = clip_draws.integers(CLIPS, size=CLIPS)
        values = [
            metric(TRUTH[clips], systems[0, s][clips]) - metric(TRUTH[clips], systems[1, s][clips]) for s in seeds
        ]
        found.append(sum(values) / len(values))
    return found


def sklearn_micro_f1(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return float(f1_score(y_true, y_pred, average="micro", zero_division=0))


def mean_ap(y_true: np.ndarray, scores: np.ndarray) -> float:
    return float(np.nanmean(average_precision(y_true, scores)))


@pytest.mark.parametrize("metric", [sklearn_micro_f1, mean_ap])
def test_resamples_are_those_of_a_literal_bootstrap_over_seeds_and_clips(metric: Metric) -> None:
    if metric is sklearn_micro_f1:
        systems = DECISIONS.astype(float)
        one, other = ([counted(TRUTH, run, RESAMPLES, seed=2).micro_f1 for run in runs] for runs in systems)
    else:
        systems = np.round(rng.normal(size=DECISIONS.shape) + TRUTH, 1)  # ties
        one, other = ([resampled(TRUTH, run, RESAMPLES, seed=2).mean_ap for run in runs] for runs in systems)
    differences = [a - b for a, b in zip(one, other, strict=True)]
    draws = seed_draws(SEEDS, RESAMPLES, seed=9)
    assert draws.shape == (RESAMPLES, SEEDS - 1) and set(draws.ravel()) == set(range(SEEDS))
    repeated = np.array(literal(systems, draws, 2, metric))
    value = float(np.mean([metric(TRUTH, a) - metric(TRUTH, b) for a, b in zip(*systems, strict=True)]))
    found = over_seeds(differences, level=0.9, seed=9, paired=True)
    low, high = np.quantile(repeated, [0.05, 0.95]) - repeated.mean() + value
    np.testing.assert_allclose([found.value, found.low, found.high], [value, low, high], atol=1e-12)


def test_the_method_says_how_the_interval_was_got() -> None:
    values = list(rng.normal(size=(5, 101)))
    found = over_seeds(values, level=0.9, seed=3, paired=True)
    assert found.method == (
        "mean of 5 seeds, paired 90 % percentile bootstrap over seeds (4 drawn) and clips, 100 resamples, seed 3, "
        "moved onto the value"
    )
    assert "paired" not in over_seeds(values).method


def test_the_variance_of_the_mean_over_seeds_is_unbiased() -> None:
    """Where clips add nothing, resamples vary by s^2 / n: exactly so over all draws there are."""
    values = rng.normal(size=4)
    means = [values[list(draw)].mean() for draw in itertools.product(range(4), repeat=3)]
    assert np.var(means) == pytest.approx(values.var(ddof=1) / 4)
    resamples = 20_000
    draws = seed_draws(4, resamples, seed=0)
    assert values[draws].mean(axis=1).var() == pytest.approx(values.var(ddof=1) / 4, rel=0.05)
    found = over_seeds([np.full(resamples + 1, value) for value in values])
    low, high = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], [low, high], atol=0.05 * (high - low))


def test_seeds_and_clips_are_drawn_independently_of_each_other() -> None:
    """Also at the same seed: else a seed would go with certain clips."""
    resamples, seeds = 20_000, 10
    clips = np.random.default_rng(0).integers(1000, size=(resamples * (seeds - 1)))
    draws = seed_draws(seeds, resamples, seed=0).ravel()
    assert abs(np.corrcoef(clips, draws)[0, 1]) < 4 / np.sqrt(len(draws))


def test_one_seed_is_the_bootstrap_over_clips_alone() -> None:
    values = counted(TRUTH, DECISIONS[0, 0], 300).micro_f1
    found = over_seeds([values])
    low, high = np.quantile(values[1:], [0.025, 0.975]) - values[1:].mean() + values[0]
    np.testing.assert_allclose([found.value, found.low, found.high], [values[0], low, high])
    assert found.method.startswith("1 seed, 95 % percentile bootstrap over clips alone, 300 resamples")


def test_undefined_resamples_and_seeds_are_left_out_and_counted() -> None:
    values = rng.normal(size=(3, 101))
    values[1, 7] = np.nan
    lacks = (seed_draws(3, 100, seed=0)[6] == 1).any()
    values[0, 40] = values[1, 40] = values[2, 40] = np.nan
    found = over_seeds(list(values))
    left_out = 1 + int(lacks)
    assert found.method.endswith(f"; {left_out} resamples undefined and left out")
    assert found.low < found.value < found.high
    undefined = np.full(101, np.nan)
    assert over_seeds([*values, undefined]).value == found.value == pytest.approx(values[:, 0].mean())
    assert over_seeds([*values, undefined]).low == found.low
    assert over_seeds([*values, undefined]).method == found.method + "; 1 seeds undefined and left out"
    nothing = over_seeds([undefined, undefined])
    assert np.isnan([nothing.value, nothing.low, nothing.high]).all() and "all of 2 seeds" in nothing.method


def test_classes_share_the_draws_and_have_the_corrected_level() -> None:
    values = list(rng.normal(size=(6, 401, 3)))
    level = corrected(0.95, 3)
    assert level == pytest.approx(1 - 0.05 / 3)
    for k, found in enumerate(over_seeds_by_class(values, level, seed=4, paired=True)):
        assert found == over_seeds([one[:, k] for one in values], level, seed=4, paired=True)
        assert "98.3333 %" in found.method


@pytest.mark.parametrize("values", [[], [np.zeros(5), np.zeros(6)], [np.zeros((5, 2))], [np.zeros(1)]])
def test_arrays_of_other_shapes_are_refused(values: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"1 \+ resamples"):
        over_seeds(values)
    with pytest.raises(ValueError, match="comparisons"):
        corrected(0.95, 0)


# Worlds in which the truth is known: two systems of 10 trainings each, on one set of 300 test clips of 17 classes. What
# a clip adds is in part the same for all trainings of both systems, in part for those of one, in part of one training.
PREVALENCE = np.linspace(0.03, 0.12, 17)
STRENGTH = np.array([2.0, 1.8])  # of the two systems
WORLDS, WORLD_SEEDS, WORLD_CLIPS, WORLD_RESAMPLES = 500, 10, 300, 300
THRESHOLD = 1.2


def world(draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Truth bool [clips, classes] and scores [systems, seeds, clips, classes]."""
    shape = (2, WORLD_SEEDS, WORLD_CLIPS, 17)
    truth = draw.random(shape[2:]) < PREVALENCE
    truth[0] = True
    strength = STRENGTH[:, None, None, None] + 0.15 * draw.normal(size=(*shape[:2], 1, 1))
    scores = strength * truth + 0.3 * draw.normal(size=(*shape[:2], 1, 17))  # and by class
    scores += 0.8 * draw.normal(size=shape[2:]) + 0.6 * draw.normal(size=(2, 1, *shape[2:]))  # a clip is hard
    return truth, scores + 0.6 * draw.normal(size=shape)


def all_micro_f1(truth: np.ndarray, scores: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """What counted says of every training, all at once: [systems, seeds, draws]; drawn is [clips, draws]."""
    decisions = scores > THRESHOLD
    hits, sizes = (decisions & truth).sum(axis=3) @ drawn, (decisions.sum(axis=3) + truth.sum(axis=1)) @ drawn
    return 2 * hits / sizes


def all_map(truth: np.ndarray, scores: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """What resampled says likewise, where no scores tie."""
    ap = []
    for positive, of_class in zip(truth.T, np.moveaxis(scores, 3, 0), strict=True):
        above = (of_class[..., None, :] >= of_class[..., positive, None]).astype(np.float32)
        gained = drawn[positive]
        found, taken = above[..., positive] @ gained, above @ drawn  # (systems, seeds, positives, draws)
        ap.append(
            (gained * found / np.maximum(taken, 1)).sum(axis=2)
            / np.where(gained.any(axis=0), gained.sum(axis=0), np.nan)
        )
    return np.nanmean(ap, axis=0)


def test_the_quick_scores_of_a_world_are_those_of_counted_and_resampled() -> None:
    truth, scores = world(np.random.default_rng(0))
    drawn = np.concatenate([np.ones((1, WORLD_CLIPS)), *_weights(WORLD_CLIPS, 30, 6)]).T.astype(np.float32)
    f1, ap = all_micro_f1(truth, scores, drawn), all_map(truth, scores, drawn)
    for a, s in ((0, 3), (1, 8)):
        np.testing.assert_allclose(f1[a, s], counted(truth, scores[a, s] > THRESHOLD, 30, seed=6).micro_f1, rtol=1e-5)
        np.testing.assert_allclose(ap[a, s], resampled(truth, scores[a, s], 30, seed=6).mean_ap, rtol=1e-5)


def test_intervals_of_paired_differences_cover_93_to_97_of_100_times() -> None:
    """Trainings and test clips drawn anew 500 times, micro F1 and mAP; the mean of all worlds stands for the truth."""
    draw = np.random.default_rng(2024)
    found: dict[str, list[Interval]] = {"micro F1": [], "mAP": []}
    for _ in range(WORLDS):
        truth, scores = world(draw)
        clips = draw.integers(WORLD_CLIPS, size=(WORLD_RESAMPLES, WORLD_CLIPS))
        drawn = np.stack([np.ones(WORLD_CLIPS), *(np.bincount(row, minlength=WORLD_CLIPS) for row in clips)], axis=1)
        for name, values in (
            ("micro F1", all_micro_f1(truth, scores, drawn)),
            ("mAP", all_map(truth, scores, drawn.astype(np.float32))),
        ):
            found[name].append(over_seeds(list(values[0] - values[1]), paired=True))
    for name, intervals in found.items():
        expected = np.mean([one.value for one in intervals])  # its standard error is 1/22 of a value's
        covered = np.mean([one.low <= expected <= one.high for one in intervals])
        assert 0.93 <= covered <= 0.97, (name, covered)


def test_seeds_with_test_clips_of_their_own_get_too_wide_an_interval() -> None:
    """As the docstring says: spread over clips only, sd 1, is counted three times; seed_interval counts it once."""
    draw, widths, covered = np.random.default_rng(5), [], 0
    for _ in range(400):
        runs = draw.normal(size=(10, 1))
        found = over_seeds(list(np.hstack([runs, runs + draw.normal(size=(10, 200))])))
        widths.append((found.high - found.low) / 2 / 1.96)
        fitting = seed_interval(list(runs[:, 0]))
        covered += fitting.low <= 0 <= fitting.high
    assert np.mean(widths) == pytest.approx(np.sqrt(3 / 10), rel=0.05)
    assert 0.92 < covered / 400 < 0.98
