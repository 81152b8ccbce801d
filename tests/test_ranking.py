"""Quick intervals of mAP, mAUC and d' against scikit-learn and against the slow bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from avrepro.evaluation import average_precision, d_prime, metric_interval, roc_auc
from avrepro.evaluation.ranking import interval_of, resampled

rng = np.random.default_rng(7)
CLIPS, CLASSES = 60, 4
TRUTH = rng.random((CLIPS, CLASSES)) < (0.5, 0.3, 0.15, 0.05)
TRUTH[0] = True
SCORES = np.round(rng.normal(size=TRUTH.shape) + TRUTH, 1)  # many ties


def test_the_clips_as_they_are_score_as_scikit_learn_says() -> None:
    whole = resampled(TRUTH, SCORES, resamples=3)
    for k in range(CLASSES):
        expected = average_precision_score(TRUTH[:, k], SCORES[:, k])
        assert whole.average_precision[0, k] == pytest.approx(expected, abs=1e-10)
        assert whole.roc_auc[0, k] == pytest.approx(roc_auc_score(TRUTH[:, k], SCORES[:, k]), abs=1e-10)
    np.testing.assert_allclose(whole.average_precision[0], average_precision(TRUTH, SCORES), atol=1e-12)
    np.testing.assert_allclose(whole.roc_auc[0], roc_auc(TRUTH, SCORES), atol=1e-12)
    assert whole.d_prime[0] == pytest.approx(d_prime(float(roc_auc(TRUTH, SCORES).mean())))


@pytest.mark.parametrize("metric", [average_precision, roc_auc])
def test_resamples_are_those_of_the_slow_bootstrap(metric: Callable[..., np.ndarray]) -> None:
    """Draws, ties and classes that a draw has no positive of: all as when each draw is scored by itself."""
    other = SCORES + np.random.default_rng(8).normal(scale=0.5, size=SCORES.shape)

    def mean(y_true: np.ndarray, scores: np.ndarray) -> float:
        return float(np.nanmean(metric(y_true, scores)))

    name = "mean_ap" if metric is average_precision else "mean_auc"
    found, against = (getattr(resampled(TRUTH, one, resamples=200, seed=3), name) for one in (SCORES, other))
    for fast, slow in (
        (found, metric_interval(mean, TRUTH, SCORES, resamples=200, seed=3)),
        (found - against, metric_interval(mean, TRUTH, SCORES, other, resamples=200, seed=3)),
    ):
        low, high = np.quantile(fast[1:], [0.025, 0.975])
        np.testing.assert_allclose([fast[0], low, high], [slow.value, slow.low, slow.high], atol=1e-12)
        interval = interval_of(fast, seed=3)
        assert interval.low < interval.value < interval.high
        assert interval.high - interval.low == pytest.approx(high - low)


def test_the_interval_covers_what_such_tests_score_in_the_mean() -> None:
    """Clips drawn anew from a known world many times; with few positives plain percentiles lie too high."""
    draw = np.random.default_rng(0)

    def world() -> tuple[np.ndarray, np.ndarray]:
        truth = draw.random((200, 17)) < 0.04
        truth[:2] = True
        return truth, draw.normal(size=truth.shape) + 1.2 * truth

    expected = np.mean([resampled(*world(), resamples=0).mean_ap[0] for _ in range(1000)])
    covered = plain = 0
    for _ in range(200):
        found = resampled(*world(), resamples=200).mean_ap
        interval = interval_of(found)
        covered += interval.low <= expected <= interval.high
        low, high = np.quantile(found[1:], [0.025, 0.975])
        plain += low <= expected <= high
    assert covered / 200 > 0.91  # three standard errors below 95 %
    assert plain / 200 < 0.91


def test_a_class_without_positives_is_left_out() -> None:
    truth = TRUTH.copy()
    truth[:, 2] = False
    found = resampled(truth, SCORES, resamples=20)
    assert np.isnan(found.average_precision[:, 2]).all() and np.isnan(found.roc_auc[:, 2]).all()
    kept = [0, 1, 3]
    expected = resampled(truth[:, kept], SCORES[:, kept], resamples=20)
    np.testing.assert_allclose(found.mean_ap, expected.mean_ap)


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = resampled(TRUTH, SCORES, resamples=50)
    monkeypatch.setattr("avrepro.evaluation.intervals.BLOCK_ELEMENTS", 7 * CLIPS)
    blocks = resampled(TRUTH, SCORES, resamples=50)
    np.testing.assert_allclose(blocks.average_precision, whole.average_precision, rtol=1e-14)
