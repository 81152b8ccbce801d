"""Threshold tuning against enumeration of every threshold."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from avrepro.evaluation import cross_validated_decisions, tagging_scores, thresholds, tune_thresholds


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


@pytest.mark.parametrize(("seed", "clips", "classes", "levels"), SMALL)
def test_no_single_threshold_can_do_better(
    seed: int, clips: int, classes: int, levels: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    y_true, scores = corpus(seed, clips, classes, levels)
    tuned = tune_thresholds(y_true, scores, seed=seed)
    assert (tuned == tune_thresholds(y_true.astype(np.int64), scores, seed=seed)).all()
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
        levels_of_k = candidates(scores[:, k])
        f1 = [micro_f1(y_true[:, [k]], scores[:, [k]] >= t) for t in levels_of_k]
        highest = levels_of_k[np.flatnonzero(np.isclose(f1, max(f1)))[0]]  # of equals, the one that predicts the fewest
        assert ((scores[:, k] >= by_class[k]) == (scores[:, k] >= highest)).all()


def test_thresholds_lie_between_scores_and_keep_the_decisions() -> None:
    y_true = np.array([[1], [1], [0], [0]])
    scores = np.array([[0.9], [0.7], [0.3], [0.1]])
    assert tune_thresholds(y_true, scores) == pytest.approx([0.5])
    assert tune_thresholds(np.ones((4, 1)), scores) == pytest.approx([0.1])  # nothing below the lowest score
    # Between neighbouring float32 numbers there is no middle, and rounding must not let the lower one in.
    low = np.float32(0.3)
    close = np.array([[np.nextafter(low, np.float32(1))], [low]], dtype=np.float32)
    for tuned in (tune_thresholds([[1], [0]], close), tune_thresholds([[1], [0]], close).astype(np.float32)):
        assert (close >= tuned).tolist() == [[True], [False]]
    huge = np.array([[1.7e308], [1.6e308]])
    assert (huge >= tune_thresholds([[1], [0]], huge)).tolist() == [[True], [False]]


def test_classes_that_are_silenced() -> None:
    """One without positives, and one that finds its one positive last: its own best F1 predicts all of 100 clips."""
    y_true, scores = np.zeros((100, 3), dtype=bool), np.tile(np.linspace(0, 1, 100)[:, None], 3)
    y_true[50:, 0] = True
    y_true[0, 1] = True
    tuned = tune_thresholds(y_true, scores)
    assert tuned.dtype == np.float64 and scores[49, 0] < tuned[0] <= scores[50, 0]
    assert np.isinf(tuned[1:]).all()
    assert np.isinf(tune_thresholds(np.zeros_like(y_true), scores)).all()
    with pytest.raises(ValueError, match="scores: expected finite"):
        tune_thresholds(y_true, np.where(y_true, np.nan, scores))


def test_cross_validation_decides_each_clip_without_it() -> None:
    y_true, scores = corpus(6, 40, 4, None)
    everyone = cross_validated_decisions(y_true, scores, folds=40, seed=3)
    for clip in range(40):  # with a fold a clip, the dealing does not matter
        others = np.arange(40) != clip
        tuned = tune_thresholds(y_true[others], scores[others], seed=3)
        assert (everyone[clip] == (scores[clip] >= tuned)).all()
    changed = y_true.copy()
    changed[:5] = ~changed[:5]
    by_fold, again = (cross_validated_decisions(labels, scores, folds=4, seed=1) for labels in (y_true, changed))
    assert (by_fold != again).any()
