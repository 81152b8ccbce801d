"""Metrics on resamples against scikit-learn, draw by draw."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score, roc_auc_score

from avrepro.evaluation import resample

rng = np.random.default_rng(7)
CLIPS, CLASSES, RESAMPLES, SEED = 60, 5, 40, 3
TRUTH = rng.random((CLIPS, CLASSES)) < (0.5, 0.3, 0.15, 0, 0)  # the last class has no positive clip
TRUTH[0, :4] = True  # the last but one has one, which a third of all draws miss
SCORES = np.round(rng.normal(size=TRUTH.shape) + TRUTH, 1)  # many ties
THRESHOLDS = np.array([0.5, 0.2, 1.0, 0.8, 1.5])
PROBABILITIES = np.round(1 / (1 + np.exp(-SCORES)), 2)
Drawn = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray | float]  # of labels, scores and decisions


def by_class(metric: Callable[[np.ndarray, np.ndarray], float], y: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """A metric of each class, NaN where it has no label of a kind that it needs."""
    needs_negatives = metric is roc_auc_score
    found = np.full(CLASSES, np.nan)
    for k in range(CLASSES):
        if y[:, k].any() and not (needs_negatives and y[:, k].all()):
            found[k] = metric(y[:, k], scores[:, k])
    return found


def of_decisions(metric: Callable[..., float]) -> Drawn:
    return lambda y, scores, decisions: metric(y, decisions, average="micro", zero_division=0)


def class_f1(y: np.ndarray, scores: np.ndarray, decisions: np.ndarray) -> np.ndarray:
    return np.append(f1_score(y, decisions, average=None, zero_division=0)[:4], np.nan)


ORACLES: dict[str, Drawn] = {
    "micro_f1": of_decisions(f1_score),
    "micro_precision": of_decisions(precision_score),
    "micro_recall": of_decisions(recall_score),
    "class_f1": class_f1,
    "macro_f1": lambda *drawn: float(np.nanmean(class_f1(*drawn))),
    "average_precision": lambda y, scores, _: by_class(average_precision_score, y, scores),
    "roc_auc": lambda y, scores, _: by_class(roc_auc_score, y, scores),
    "map": lambda y, scores, _: float(np.nanmean(by_class(average_precision_score, y, scores))),
    "mauc": lambda y, scores, _: float(np.nanmean(by_class(roc_auc_score, y, scores))),
}


def draws() -> Iterator[np.ndarray]:
    """The clips as they are, and the literal resamples."""
    yield np.arange(CLIPS)
    generator = np.random.default_rng(SEED)
    for _ in range(RESAMPLES):
        yield generator.integers(CLIPS, size=CLIPS)


@pytest.mark.parametrize("name", ORACLES)
def test_each_metric_is_that_of_scikit_learn_on_every_draw(name: str) -> None:
    """Ties, classes without a positive clip and draws that miss those of a class: all as if scored one by one."""
    found = getattr(resample(TRUTH, SCORES, THRESHOLDS, RESAMPLES, SEED), name)
    decisions = SCORES >= THRESHOLDS
    with warnings.catch_warnings(action="ignore"):
        expected = np.array([ORACLES[name](TRUTH[rows], SCORES[rows], decisions[rows]) for rows in draws()])
    assert found.shape == expected.shape and len(found) == 1 + RESAMPLES
    np.testing.assert_allclose(found, expected, atol=1e-12)
    if found.ndim == 2:
        assert np.isnan(found[:, 4]).all() and not np.isnan(found[0, :4]).any()
        missed = found[:, 3] == 0 if name == "class_f1" else np.isnan(found[:, 3])
        assert 5 < missed.sum() < 25


def test_the_calibration_error_is_that_of_a_literal_loop_in_the_bins_of_the_clips_as_they_are() -> None:
    limits = np.quantile(PROBABILITIES, [i / 10 for i in range(1, 10)])

    def literal(clips: np.ndarray) -> float:
        bins: dict[int, list[float]] = {}
        for clip in clips:
            for p, y in zip(PROBABILITIES[clip], TRUTH[clip], strict=True):
                bins.setdefault(sum(p >= limit for limit in limits), []).append(p - y)
        decisions = len(clips) * CLASSES
        return sum(len(excess) / decisions * abs(sum(excess) / len(excess)) for excess in bins.values())

    found = resample(TRUTH, SCORES, THRESHOLDS, RESAMPLES, SEED, PROBABILITIES)
    np.testing.assert_allclose(found.calibration_error, [literal(rows) for rows in draws()], atol=1e-12)
    with pytest.raises(ValueError, match=r"0\.\.1, found .*platt"):
        _ = resample(TRUTH, SCORES, THRESHOLDS, 1).calibration_error


def test_blocks_of_resamples_and_their_number_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, none = (resample(TRUTH, SCORES, THRESHOLDS, count, SEED) for count in (RESAMPLES, 0))
    monkeypatch.setattr("avrepro.evaluation.resampling.BLOCK_ELEMENTS", 7 * CLIPS)
    blocks = resample(TRUTH, SCORES, THRESHOLDS, RESAMPLES, SEED, PROBABILITIES)
    for name in ORACLES:
        np.testing.assert_allclose(getattr(blocks, name), getattr(whole, name), rtol=1e-14)
        np.testing.assert_allclose(getattr(none, name), getattr(whole, name)[:1], rtol=1e-14)
    assert blocks.calibration_error.shape == (1 + RESAMPLES,)
