"""Platt scaling against another solver; the calibration error is tested in test_resampling.py."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from avrepro.evaluation import platt


def test_platt_scaling_is_what_another_solver_finds() -> None:
    """The cross entropy of Platt (1999), written out, minimised without derivatives."""
    rng = np.random.default_rng(3)
    scores = rng.normal(-1.5, 1.5, size=(80, 5))
    truth = rng.random(scores.shape) < expit(2 * scores + 0.5)
    positives, negatives = truth.sum(), (~truth).sum()
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def cross_entropy(line: np.ndarray) -> float:
        p = expit(line[0] * scores + line[1])
        return float(-(target * np.log(p) + (1 - target) * np.log1p(-p)).sum())

    line = minimize(cross_entropy, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x
    np.testing.assert_allclose(platt(truth, scores)(scores), expit(line[0] * scores + line[1]), atol=1e-6)


def test_platt_scaling_stays_finite_where_a_score_parts_the_labels_or_there_is_one_label_alone() -> None:
    truth = np.array([[True], [True], [False], [False], [False]])
    scores = np.array([[2.0], [1.5], [0.1], [-1.0], [-2.0]])
    found = platt(truth, scores)(scores)
    assert (np.diff(found[:, 0]) < 0).all() and found.min() > 0.01 and found.max() < 0.99
    nothing = platt(np.zeros_like(truth), scores)(scores)
    np.testing.assert_allclose(nothing, 1 / 7, atol=1e-4)  # Platt's target of 5 negatives
