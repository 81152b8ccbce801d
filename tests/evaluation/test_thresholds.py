"""Threshold tuning against enumeration of every threshold."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from sklearn.metrics import f1_score

from avrepro.evaluation import tagging_scores, thresholds, tune_thresholds


def candidates(scores: np.ndarray) -> np.ndarray:
    """Every decision that some threshold can make of one class: each distinct score, and nothing."""
    return np.append(np.inf, np.unique(scores)[::-1])


def micro_f1(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return tagging_scores(y_true, y_pred).f1


def corpus(seed: int, clips: int, classes: int, levels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels of very different rates and scores that know something of them; `levels` makes ties."""
    rng = np.random.default_rng(seed)
    y_true = rng.random((clips, classes)) < rng.uniform(0, 0.5, size=classes)
    scores = 1 / (1 + np.exp(-rng.normal(size=y_true.shape) - 1.5 * y_true + 1))
    if levels is not None:
        scores = np.floor(scores * levels) / levels
    return y_true, scores.astype(np.float32 if seed % 2 else np.float64)


SMALL = [
    (seed, clips, classes, levels)
    for seed, (clips, classes, levels) in enumerate(itertools.product((3, 12, 40), (1, 2, 5), (2, 6, None)))
]


@pytest.mark.parametrize("seed", range(12))
def test_step_1_is_the_best_class_f1(seed: int) -> None:
    y_true, scores = corpus(seed, 30, 1, 8 if seed % 3 else None)
    y_true[0] = True
    threshold = tune_thresholds(y_true, scores)  # with one class, step 2 has nothing left to gain
    found = f1_score(y_true[:, 0], scores[:, 0] >= threshold[0])
    best = [f1_score(y_true[:, 0], scores[:, 0] >= t, zero_division=0) for t in candidates(scores)]
    assert found == pytest.approx(max(best), abs=1e-12)
    highest = candidates(scores)[np.flatnonzero(np.isclose(best, max(best)))[0]]
    assert ((scores >= threshold) == (scores >= highest)).all()  # of equals, the one that predicts the fewest


@pytest.mark.parametrize(("seed", "clips", "classes", "levels"), SMALL)
def test_no_single_threshold_can_do_better(
    seed: int, clips: int, classes: int, levels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    y_true, scores = corpus(seed, clips, classes, levels)
    tuned = tune_thresholds(y_true, scores, seed=seed)
    reached = micro_f1(y_true, scores >= tuned)
    for k in range(classes):
        for t in candidates(scores[:, k]):
            changed = tuned.copy()
            changed[k] = t
            assert micro_f1(y_true, scores >= changed) <= reached + 1e-12
    monkeypatch.setattr(thresholds, "_raise_micro_f1", lambda cuts, chosen, positive, rng: chosen)
    by_class = tune_thresholds(y_true, scores)  # step 1 alone
    assert micro_f1(y_true, scores >= by_class) <= reached + 1e-12
    for k in range(classes):
        found = tagging_scores(y_true[:, [k]], scores[:, [k]] >= by_class[k]).f1
        best = max(micro_f1(y_true[:, [k]], scores[:, [k]] >= t) for t in candidates(scores[:, k]))
        assert found == pytest.approx(best, abs=1e-12)


def test_near_the_best_of_all_combinations() -> None:
    gaps = []
    for seed in range(20):
        y_true, scores = corpus(seed, 10, 3, None)
        every = itertools.product(*(candidates(scores[:, k]) for k in range(3)))
        best = max(micro_f1(y_true, scores >= np.array(combination)) for combination in every)
        gaps.append(best - micro_f1(y_true, scores >= tune_thresholds(y_true, scores)))
    assert min(gaps) >= -1e-12
    assert np.median(gaps) < 1e-12  # coordinate ascent may stop short, but seldom does


def test_thresholds_lie_between_scores_and_keep_the_decisions() -> None:
    y_true = np.array([[1], [1], [0], [0]])
    scores = np.array([[0.9], [0.7], [0.3], [0.1]])
    assert tune_thresholds(y_true, scores) == pytest.approx([0.5])
    assert tune_thresholds(np.ones((4, 1)), scores) == pytest.approx([0.1])  # nothing below the lowest score
    # Between neighbouring float32 numbers there is no middle, and rounding must not let the lower one in.
    low = np.float32(0.3)
    close = np.array([[np.nextafter(low, np.float32(1))], [low]], dtype=np.float32)
    for decisions in (
        close >= tune_thresholds([[1], [0]], close),
        close >= tune_thresholds([[1], [0]], close).astype(np.float32),
    ):
        assert decisions.tolist() == [[True], [False]]
    huge = np.array([[1.7e308], [1.6e308]])
    assert (huge >= tune_thresholds([[1], [0]], huge)).tolist() == [[True], [False]]


def test_class_without_positives_predicts_nothing() -> None:
    y_true, scores = corpus(7, 50, 4, None)
    y_true[:, 2] = False
    tuned = tune_thresholds(y_true, scores)
    assert tuned.shape == (4,) and tuned.dtype == np.float64
    assert np.isinf(tuned).tolist() == [False, False, True, False]
    assert np.isinf(tune_thresholds(np.zeros_like(y_true), scores)).all()


def test_hopeless_class_is_silenced_for_the_micro_average() -> None:
    # Class 1 finds its one positive last of 100 clips: its own best F1 predicts all, the micro-average none.
    y_true, scores = np.zeros((100, 2), dtype=bool), np.tile(np.linspace(0, 1, 100)[:, None], 2)
    y_true[50:, 0] = True
    y_true[0, 1] = True
    tuned = tune_thresholds(y_true, scores)
    assert scores[49, 0] < tuned[0] <= scores[50, 0]
    assert np.isinf(tuned[1])


def test_same_seed_same_thresholds_and_labels_as_numbers() -> None:
    y_true, scores = corpus(9, 200, 17, None)
    first = tune_thresholds(y_true, scores, seed=4)
    assert (first == tune_thresholds(y_true.astype(np.int64), scores, seed=4)).all()
    with pytest.raises(ValueError, match="scores: expected finite"):
        tune_thresholds(y_true, np.where(y_true, np.nan, scores))


def test_quick_enough_for_every_epoch() -> None:
    y_true, scores = corpus(11, 1103, 17, None)
    tune_thresholds(y_true, scores)
    taken = []
    for _ in range(5):
        start = time.process_time()
        tune_thresholds(y_true, scores)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.03


def test_sweep_uses_one_threshold_for_all_classes() -> None:
    y_true, scores = corpus(3, 120, 6, 7)
    levels = (0.0, 3 / 7, 0.5, 2.0)
    for threshold, found in zip(levels, thresholds.threshold_sweep(y_true, scores, levels), strict=True):
        expected = f1_score(y_true, scores >= threshold, average="micro", zero_division=0)
        assert found.f1 == pytest.approx(expected, abs=1e-12)


def test_cross_validation_decides_each_clip_without_it() -> None:
    y_true, scores = corpus(6, 40, 4, None)
    everyone = thresholds.cross_validated_decisions(y_true, scores, folds=40, seed=3)
    for clip in range(40):  # with a fold a clip, the dealing does not matter
        others = np.arange(40) != clip
        tuned = tune_thresholds(y_true[others], scores[others], seed=3)
        assert (everyone[clip] == (scores[clip] >= tuned)).all()

    by_fold = thresholds.cross_validated_decisions(y_true, scores, folds=4, seed=1)
    assert by_fold.shape == y_true.shape and by_fold.dtype == bool
    assert (by_fold == thresholds.cross_validated_decisions(y_true, scores, folds=4, seed=1)).all()
    moved = 0
    for clip in range(40):
        changed = y_true.copy()
        changed[clip] = ~changed[clip]
        again = thresholds.cross_validated_decisions(changed, scores, folds=4, seed=1)
        assert (again[clip] == by_fold[clip]).all()  # a clip's labels take no part in its own decisions
        moved += int((again != by_fold).any())
    assert moved > 10  # but they do in those of others


@pytest.mark.parametrize("folds", [1, 41])
def test_folds_must_fit_the_clips(folds: int) -> None:
    with pytest.raises(ValueError, match=rf"folds: expected 2 to 40 .*found {folds}"):
        thresholds.cross_validated_decisions(*corpus(6, 40, 4, None), folds=folds)
