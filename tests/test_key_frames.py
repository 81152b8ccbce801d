"""DS3 against stored optima, a literal linear program and planted clusters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from avrepro.features import key_frames
from avrepro.features.key_frames import dissimilarities, lambda_max, select_key_frames, solve_ds3


def objective(d: np.ndarray, regularization: float, z: np.ndarray) -> float:
    """lambda * sum_i max_j z[i, j] + sum_ij z[i, j] d[i, j], of a feasible z."""
    assert z.min() >= 0 and z.max() <= 1 + 1e-9
    np.testing.assert_allclose(z.sum(axis=0), 1, atol=1e-9)
    return float(regularization * z.max(axis=1).sum() + (z * d).sum())


def literal_optimum(d: np.ndarray, regularization: float) -> float:
    """The program written out densely: variables z[0,0], z[0,1], ..., then t[0], ..., t[n-1]."""
    n = len(d)
    cost = np.concatenate([d.ravel(), np.full(n, regularization)])
    below = np.zeros((n * n, n * n + n))
    columns = np.zeros((n, n * n + n))
    for i in range(n):
        for j in range(n):
            below[i * n + j, i * n + j] = 1.0
            below[i * n + j, n * n + i] = -1.0
            columns[j, i * n + j] = 1.0
    bounds = [(0, 1)] * (n * n) + [(0, None)] * n
    solved = linprog(cost, below, np.zeros(n * n), columns, np.ones(n), bounds, method="highs-ipm")
    assert solved.status == 0
    return float(solved.fun)


def clustered(rng: np.random.Generator, sizes: list[int], dimensions: int = 32) -> tuple[np.ndarray, np.ndarray]:
    centres = rng.normal(size=(len(sizes), dimensions)) * 3
    cluster = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return centres[cluster] + rng.normal(size=(len(cluster), dimensions)), cluster


@pytest.mark.parametrize("n", [40, 120])
@pytest.mark.parametrize("share", ["0.05", "0.1", "0.3"])
def test_stored_optima(mirror: Path, n: int, share: str) -> None:
    case = np.load(mirror / "ds3" / f"lp_{n}_{share}.npz")
    d, regularization = case["D"], float(case["lam"])
    z = solve_ds3(d, regularization)
    assert objective(d, regularization, z) == pytest.approx(float(case["obj"]), rel=1e-7)
    np.testing.assert_allclose(z.sum(axis=1), case["rowsum"], atol=1e-6)
    # The stored lambdas are the shares in the file names of Elhamifar et al.'s lambda_max.
    assert lambda_max(d) * float(share) == pytest.approx(regularization, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_literal_program(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 15))
    if seed % 2:
        d = rng.random((n, n)) * 10.0 ** rng.integers(-3, 4)  # neither symmetric nor zero on the diagonal
    else:
        d = dissimilarities(rng.normal(size=(n, 2)))
    for share in (0.01, 0.1, 0.4, 1.5):
        regularization = share * lambda_max(d)
        z = solve_ds3(d, regularization)
        assert objective(d, regularization, z) == pytest.approx(literal_optimum(d, regularization), rel=1e-6)


@pytest.mark.parametrize("share", [0.02, 0.15])
def test_many_frames_are_solved_from_few_candidates_to_the_same_optimum(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    for features in (clustered(rng, [50, 30, 20])[0], rng.normal(size=(100, 2)), rng.normal(size=(100, 9)).cumsum(0)):
        d = dissimilarities(features)
        regularization = share * lambda_max(d)
        found = []
        for small, candidates in ((10**6, 24), (0, 24), (0, 3)):
            monkeypatch.setattr(key_frames, "_SMALL", small)
            monkeypatch.setattr(key_frames, "_WORKING_SET", candidates)
            found.append(objective(d, regularization, solve_ds3(d, regularization)))
        np.testing.assert_allclose(found[1:], found[0], rtol=1e-6)


def test_scale_and_extreme_regularization() -> None:
    rng = np.random.default_rng(7)
    d = dissimilarities(rng.normal(size=(30, 4)))
    regularization = 0.1 * lambda_max(d)
    value = objective(d, regularization, solve_ds3(d, regularization))
    for scale in (1e-9, 1e9):
        z = solve_ds3(d * scale, regularization * scale)
        assert objective(d, regularization, z) == pytest.approx(value, rel=1e-7)
    np.testing.assert_allclose(solve_ds3(d, 1e-9), np.eye(30), atol=1e-9)  # everyone represents itself
    alone = solve_ds3(d, 1e9)  # the medoid represents all
    assert alone[d.sum(axis=1).argmin()].sum() == 30
    at_most = solve_ds3(d, lambda_max(d))
    assert (at_most.sum(axis=1) > 1e-9).sum() == 1


@pytest.mark.parametrize("seed", range(4))
def test_one_key_frame_from_each_planted_cluster(seed: int) -> None:
    features, cluster = clustered(np.random.default_rng(seed), [20, 10, 6, 4])
    chosen = select_key_frames(dissimilarities(features), 4)
    assert chosen.dtype == np.int64
    assert list(cluster[chosen]) == [0, 1, 2, 3]  # the largest row sum stands for the largest cluster


def test_ties_go_to_the_farthest_then_the_earliest() -> None:
    # A still picture: no frame represents better than another.
    np.testing.assert_array_equal(select_key_frames(np.zeros((6, 6)), 3), [0, 1, 2])
    # One dense group on a line and two outliers; lambda makes the group's medoid represent all it can.
    x = np.array([0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.4, 1.0])[:, None]
    chosen = select_key_frames(cdist(x, x), 3).tolist()
    assert chosen[0] < 7 and set(chosen[1:]) == {7, 8}
    np.testing.assert_array_equal(sorted(select_key_frames(cdist(x, x), 9)), np.arange(9))
    # Three pictures, each shown for several frames: every picture before any picture again.
    shown = np.repeat([0, 1, 2], [20, 12, 8])
    chosen = select_key_frames(dissimilarities(np.eye(3)[shown]), 5).tolist()
    assert len(set(chosen)) == 5 and sorted(shown[chosen[:3]]) == [0, 1, 2]


def test_dissimilarities() -> None:
    features = np.random.default_rng(2).normal(size=(20, 7)).astype(np.float32)
    literal = np.array([[np.sqrt(sum((a - b) ** 2)) for b in features] for a in features])
    np.testing.assert_allclose(dissimilarities(features), literal / literal.max(), atol=1e-6)
    for frames in (1, 4):
        np.testing.assert_array_equal(dissimilarities(np.ones((frames, 3))), np.zeros((frames, frames)))


@pytest.mark.parametrize(
    ("d", "regularization", "message"),
    [
        (np.zeros((2, 3)), 1.0, r"square.*\(2, 3\)"),
        (np.zeros((0, 0)), 1.0, "square"),
        (np.array([[0.0, np.inf], [1.0, 0.0]]), 1.0, "inf at row 0, column 1"),
        (np.array([[0.0, 1.0], [-1.0, 0.0]]), 1.0, "-1.0 at row 1, column 0"),
        (np.zeros((2, 2)), 0.0, "regularization"),
    ],
)
def test_invalid_input(d: np.ndarray, regularization: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_ds3(d, regularization)
    for k in (0, 5):
        with pytest.raises(ValueError, match=f"k = {k}.*n = 3"):
            select_key_frames(np.zeros((3, 3)), k)
