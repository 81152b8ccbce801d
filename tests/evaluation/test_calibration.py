"""Calibration error against a literal loop; Platt scaling against another solver."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from avrepro.evaluation import calibration_error, platt

rng = np.random.default_rng(3)
CLIPS, CLASSES = 80, 5
SCORES = rng.normal(-1.5, 1.5, size=(CLIPS, CLASSES))
PROBABILITY = np.round(expit(SCORES), 2)  # many ties
TRUTH = rng.random(SCORES.shape) < expit(2 * SCORES + 0.5)  # so the probabilities are wrong


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_the_error_is_that_of_a_literal_loop(bins: int) -> None:
    """Decision by decision and bin by bin; of resamples in test_resampling.py."""
    limits = np.quantile(PROBABILITY, [i / bins for i in range(1, bins)])
    members: dict[int, list[tuple[float, bool]]] = {}
    for p, y in zip(PROBABILITY.ravel(), TRUTH.ravel(), strict=True):
        members.setdefault(sum(p >= limit for limit in limits), []).append((p, y))
    expected = 0.0
    for pairs in members.values():
        confidence, true = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
        expected += len(pairs) / TRUTH.size * abs(confidence - true)
    assert calibration_error(TRUTH, PROBABILITY, bins) == pytest.approx(expected, abs=1e-12) and expected > 0.01


def test_bins_are_filled_equally_and_small_probabilities_have_bins_of_their_own() -> None:
    """The lower half of the decisions have 0.02 and are never true, the others 0.04 and are true in 6 of 100."""
    probability = np.repeat([0.02, 0.04], 100)[:, None]
    truth = np.zeros((200, 1), bool)
    truth[100:106] = True
    assert calibration_error(truth, probability, bins=2) == pytest.approx((0.02 + 0.02) / 2)
    assert calibration_error(truth, probability, bins=1) == pytest.approx(0)  # as in one bin of 0..0.1


def test_by_hand() -> None:
    truth = np.array([[True], [False], [True], [True]])
    probability = np.array([[0.1], [0.3], [0.6], [0.8]])
    assert calibration_error(truth, probability, bins=2) == pytest.approx(abs(0.2 - 0.5) / 2 + abs(0.7 - 1) / 2)
    assert calibration_error(truth, truth.astype(float)) == 0
    assert calibration_error(truth, 1.0 - truth) == 1


def test_probabilities_outside_0_to_1_are_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.1, found .*platt"):
        calibration_error(TRUTH, SCORES)
    assert calibration_error(TRUTH[:1, :1], np.array([[1 + 1e-7]])) == float(not TRUTH[0, 0])  # a sum, rounded up
    with pytest.raises(ValueError, match="bins"):
        calibration_error(TRUTH, PROBABILITY, bins=0)
    with pytest.raises(ValueError, match="finite"):
        calibration_error(TRUTH, np.full_like(PROBABILITY, np.nan))


def test_platt_scaling_is_what_another_solver_finds() -> None:
    """The cross entropy of Platt (1999), written out, minimised without derivatives."""
    positives, negatives = TRUTH.sum(), (~TRUTH).sum()
    target = np.where(TRUTH, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def cross_entropy(line: np.ndarray) -> float:
        p = expit(line[0] * SCORES + line[1])
        return float(-(target * np.log(p) + (1 - target) * np.log1p(-p)).sum())

    line = minimize(cross_entropy, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    np.testing.assert_allclose(platt(TRUTH, SCORES)(SCORES), expit(line[0] * SCORES + line[1]), atol=1e-6)


def test_platt_scaling_calibrates_scores_of_any_range() -> None:
    draw = np.random.default_rng(8)
    scores = draw.uniform(-2, 2, size=(4000, 4))
    truth = draw.random(scores.shape) < expit(3 * scores - 2)
    to_probability = platt(truth[:2000], scores[:2000])
    assert calibration_error(truth[2000:], to_probability(scores[2000:])) < 0.02
    assert calibration_error(truth[2000:], expit(scores[2000:])) > 0.1  # a sigmoid alone does not do
    np.testing.assert_allclose(to_probability(np.array([0.0, 2 / 3])), expit([-2, 0]), atol=0.03)


def test_platt_scaling_stays_finite_where_a_score_parts_the_labels_or_there_is_one_label_alone() -> None:
    truth = np.array([[True], [True], [False], [False], [False]])
    scores = np.array([[2.0], [1.5], [0.1], [-1.0], [-2.0]])
    found = platt(truth, scores)(scores)
    assert (np.diff(found[:, 0]) < 0).all() and found.min() > 0.01 and found.max() < 0.99
    nothing = platt(np.zeros_like(truth), scores)(scores)
    np.testing.assert_allclose(nothing, 1 / 7, atol=1e-4)  # Platt's target of 5 negatives
