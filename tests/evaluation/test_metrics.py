"""Metrics of decisions and of scores against scikit-learn; on published outputs in test_dcase2017.py."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from avrepro.evaluation import average_precision, d_prime, roc_auc, tagging_scores

SHAPES = [(1, 1), (2, 3), (40, 17), (1103, 17)]


def labels(rng: np.random.Generator, shape: tuple[int, int], rate: float) -> np.ndarray:
    return rng.random(shape) < rate


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_tagging_scores_as_scikit_learn(shape: tuple[int, int], rate: float) -> None:
    rng = np.random.default_rng(1)
    y_true, y_pred = labels(rng, shape, rate), labels(rng, shape, 0.2)
    ours = tagging_scores(y_true, y_pred)
    # The last column keeps scikit-learn from reading a single class as a binary problem.
    pad = np.zeros((shape[0], 1), dtype=bool)
    truth, guess = np.hstack([y_true, pad]), np.hstack([y_pred, pad])
    micro = precision_recall_fscore_support(truth, guess, average="micro", zero_division=0)[:3]
    per_class = precision_recall_fscore_support(truth, guess, average=None, zero_division=0)[:3]
    np.testing.assert_allclose([ours.precision, ours.recall, ours.f1], micro, atol=1e-12)
    found = [ours.class_precision, ours.class_recall, ours.class_f1]
    np.testing.assert_allclose(found, np.stack(per_class)[:, :-1], atol=1e-12)


@pytest.mark.parametrize("distinct", [1, 2, 5, None])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_ranking_metrics_as_scikit_learn(shape: tuple[int, int], dtype: type, distinct: int | None) -> None:
    rng = np.random.default_rng(shape[0] * 100 + shape[1])
    y_true = labels(rng, shape, 0.15)
    y_true[:, 0] |= shape[0] == 2  # one class of positives alone
    scores = (rng.normal(size=shape) + y_true).astype(dtype)
    if distinct is not None:
        scores = np.clip(np.round(scores), 0, distinct - 1).astype(dtype) / 3
    ap, auc = average_precision(y_true, scores), roc_auc(y_true, scores)
    assert ap.shape == auc.shape == (shape[1],)
    for k in range(shape[1]):
        if not y_true[:, k].any():
            assert np.isnan(ap[k]) and np.isnan(auc[k])
            continue
        assert ap[k] == pytest.approx(average_precision_score(y_true[:, k], scores[:, k]), abs=1e-12)
        if y_true[:, k].all():
            assert np.isnan(auc[k])
        else:
            assert auc[k] == pytest.approx(roc_auc_score(y_true[:, k], scores[:, k]), abs=1e-12)


def test_d_prime() -> None:
    assert d_prime(0.5) == 0
    assert isinstance(d_prime(0.9), float)
    np.testing.assert_allclose(
        d_prime(np.array([0.0, 0.760249938906523, 1.0, np.nan])), [-np.inf, 1, np.inf, np.nan], atol=1e-9
    )
    # Two unit normals d' = 1.5 apart, drawn: their ROC area gives the distance back.
    rng = np.random.default_rng(5)
    y_true = np.arange(200_000)[:, None] % 2 == 0
    assert d_prime(roc_auc(y_true, rng.normal(size=y_true.shape) + 1.5 * y_true))[0] == pytest.approx(1.5, abs=0.02)
    with pytest.raises(ValueError, match=r"0\.\.1, found 97"):
        d_prime(97)


BAD = [
    (np.zeros(4, bool), np.zeros(4), r"y_true.*\[clips, classes\].*\(4,\)"),
    (np.zeros((0, 2), bool), np.zeros((0, 2)), r"at least one.*\(0, 2\)"),
    (np.zeros((4, 2), bool), np.zeros((4, 3)), r"\(4, 2\) as in y_true, found \(4, 3\)"),
    (np.full((4, 2), 0.4), np.zeros((4, 2)), r"y_true.*0 and 1.*found 0\.4 at clip 0, class 0"),
    (np.full((4, 2), "dog"), np.zeros((4, 2)), r"y_true.*dtype <U3"),
    (np.zeros((1, 2)), np.array([[0, np.nan]]), r"(scores.*finite|y_pred.*0 and 1).* found nan at clip 0, class 1"),
]


@pytest.mark.parametrize(("y_true", "scores", "message"), BAD)
@pytest.mark.parametrize("metric", [tagging_scores, average_precision, roc_auc])
def test_bad_input_is_named(metric, y_true: np.ndarray, scores: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metric(y_true, scores)
