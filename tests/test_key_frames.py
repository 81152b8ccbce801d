"""DS3 against stored optima, a literal linear program, exhaustive search and planted clusters."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.sparse import coo_array
from scipy.spatial.distance import cdist

from avrepro.features.key_frames import (
    dissimilarities,
    evenly_spaced,
    lambda_max,
    objective,
    select_key_frames,
    solve_ds3,
)


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


def best_binary(d: np.ndarray, regularization: float) -> float:
    """Least binary objective over every non-empty set of representatives."""
    n = len(d)
    sets = (list(s) for size in range(1, n + 1) for s in itertools.combinations(range(n), size))
    return min(regularization * len(s) + d[s].min(axis=0).sum() for s in sets)


def assert_feasible(z: np.ndarray) -> None:
    assert z.min() >= 0 and z.max() <= 1 + 1e-9
    np.testing.assert_allclose(z.sum(axis=0), 1, atol=1e-9)


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
    assert_feasible(z)
    assert objective(d, regularization, z) == pytest.approx(float(case["obj"]), rel=1e-7)
    np.testing.assert_allclose(z.sum(axis=1), case["rowsum"], atol=1e-6)
    # The stored lambdas are the shares in the file names of Elhamifar et al.'s lambda_max.
    assert lambda_max(d) * float(share) == pytest.approx(regularization, rel=1e-9)


@pytest.mark.parametrize("seed", range(12))
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
        assert_feasible(z)
        assert objective(d, regularization, z) == pytest.approx(literal_optimum(d, regularization), rel=1e-6)


def test_fractional_optimum() -> None:
    # Three frames, each cheap for two of three others: t = 1/2 each beats every binary choice.
    d = np.full((6, 6), 9.0)
    for i, pair in enumerate([(3, 4), (4, 5), (3, 5)]):
        d[i, i] = 0.0
        d[i, list(pair)] = 0.0
    d[:3, :3] = 0.0
    z = solve_ds3(d, 2.0)
    assert objective(d, 2.0, z) == pytest.approx(3.0)
    assert best_binary(d, 2.0) == pytest.approx(4.0)


def test_exhaustive_binary_search() -> None:
    rng = np.random.default_rng(3)
    integral = 0
    for _ in range(30):
        d = dissimilarities(rng.normal(size=(9, 3)))
        regularization = float(rng.uniform(0.05, 0.6)) * lambda_max(d)
        z = solve_ds3(d, regularization)
        value, binary = objective(d, regularization, z), best_binary(d, regularization)
        assert value <= binary + 1e-9
        if np.abs(z - z.round()).max() < 1e-9:
            integral += 1
            assert value == pytest.approx(binary, rel=1e-9)
    assert integral >= 20  # the search has had something to check


@pytest.mark.parametrize("kind", ["clusters", "plane", "drift"])
@pytest.mark.parametrize("share", [0.02, 0.15])
def test_optimum_of_many_frames_is_proved_by_the_dual(kind: str, share: float) -> None:
    """Weak duality, independent of any solver: a feasible v with the same value proves the optimum."""
    rng = np.random.default_rng(5)
    n = 150
    if kind == "clusters":
        features = clustered(rng, [60, 40, 30, 20])[0]
    elif kind == "plane":
        features = rng.normal(size=(n, 2))
    else:
        features = np.cumsum(rng.normal(size=(n, 20)), axis=0)
    d = dissimilarities(features)
    regularization = share * lambda_max(d)
    z = solve_ds3(d, regularization)
    assert_feasible(z)
    # maximise sum v with w[i, j] >= v[j] - d[i, j], sum_j w[i, j] <= lambda: only pairs in reach matter
    i, j = np.nonzero(d <= d.min(axis=0) + regularization)
    pairs = np.arange(len(i))
    ones = np.ones(len(i))
    rows = coo_array(
        (
            np.concatenate([ones, -ones, ones]),
            (np.concatenate([pairs, pairs, len(i) + i]), np.concatenate([j, n + pairs, n + pairs])),
        ),
        shape=(len(i) + n, n + len(i)),
    )
    bounds = [(None, None)] * n + [(0, None)] * len(i)
    cost = np.concatenate([-np.ones(n), np.zeros(len(i))])
    limits = np.concatenate([d[i, j], np.full(n, regularization)])
    v = linprog(cost, rows, limits, bounds=bounds, method="highs-ds").x[:n]
    # Whatever the solver returned, v is checked over all pairs and made feasible before it proves anything.
    excess = (np.maximum(v - d, 0).sum(axis=1) - regularization).max()
    v = v - max(excess, 0.0)
    assert (np.maximum(v - d, 0).sum(axis=1) <= regularization + 1e-12).all()
    assert objective(d, regularization, z) == pytest.approx(v.sum(), rel=1e-6)


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


def test_permutation_does_not_change_the_objective() -> None:
    rng = np.random.default_rng(11)
    for n in (25, 90):
        d = dissimilarities(clustered(rng, [n // 2, n - n // 2])[0])
        regularization = 0.1 * lambda_max(d)
        order = rng.permutation(n)
        shuffled = d[np.ix_(order, order)]
        value = objective(d, regularization, solve_ds3(d, regularization))
        assert objective(shuffled, regularization, solve_ds3(shuffled, regularization)) == pytest.approx(value)


@pytest.mark.parametrize("seed", range(8))
def test_one_key_frame_from_each_planted_cluster(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, cluster = clustered(rng, [20, 10, 6, 4])
    chosen = select_key_frames(dissimilarities(features), 4)
    assert chosen.dtype == np.int64
    assert sorted(cluster[chosen]) == [0, 1, 2, 3]
    assert list(cluster[chosen]) == [0, 1, 2, 3]  # the largest row sum stands for the largest cluster


def test_repeated_frames() -> None:
    pictures = np.random.default_rng(0).normal(size=(3, 16)) * 5
    features = pictures[np.repeat([0, 1, 2], [20, 12, 8])]
    d = dissimilarities(features)
    shown = np.repeat([0, 1, 2], [20, 12, 8])
    chosen = select_key_frames(d, 5)
    assert len(set(chosen.tolist())) == 5
    assert sorted(shown[chosen[:3]]) == [0, 1, 2]  # every picture before any picture again
    assert (select_key_frames(d, 5) == chosen).all()


def test_ties_go_to_the_farthest_then_the_earliest() -> None:
    # A still picture: no frame represents better than another.
    np.testing.assert_array_equal(select_key_frames(np.zeros((6, 6)), 3), [0, 1, 2])
    # One dense group on a line and two outliers; lambda makes the group's medoid represent all it can.
    x = np.array([0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.4, 1.0])[:, None]
    chosen = select_key_frames(cdist(x, x), 3).tolist()
    assert chosen[0] < 7 and set(chosen[1:]) == {7, 8}
    np.testing.assert_array_equal(sorted(select_key_frames(cdist(x, x), 9)), np.arange(9))


def test_dissimilarities() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(20, 7)).astype(np.float32)
    d = dissimilarities(features)
    literal = np.array([[np.sqrt(sum((a - b) ** 2)) for b in features] for a in features])
    np.testing.assert_allclose(d, literal / literal.max(), atol=1e-6)
    assert d.max() == 1 and (d == d.T).all() and (np.diag(d) == 0).all()
    np.testing.assert_array_equal(dissimilarities(np.ones((4, 3))), np.zeros((4, 4)))
    np.testing.assert_array_equal(dissimilarities(np.ones((1, 3))), [[0.0]])
    features[7, 3] = np.nan
    with pytest.raises(ValueError, match="frame 7"):
        dissimilarities(features)
    with pytest.raises(ValueError, match=r"\(20,\)"):
        dissimilarities(np.zeros(20))


def test_evenly_spaced() -> None:
    np.testing.assert_array_equal(evenly_spaced(240, 4), [30, 90, 150, 210])
    np.testing.assert_array_equal(evenly_spaced(5, 5), np.arange(5))
    for n in range(1, 30):
        for k in range(1, n + 1):
            frames = evenly_spaced(n, k)
            assert len(set(frames.tolist())) == k and frames.min() >= 0 and frames.max() < n
    with pytest.raises(ValueError, match=r"k = 4.*n = 3"):
        evenly_spaced(3, 4)


@pytest.mark.parametrize(
    ("d", "regularization", "message"),
    [
        (np.zeros((2, 3)), 1.0, r"square.*\(2, 3\)"),
        (np.zeros((0, 0)), 1.0, "square"),
        (np.array([[0.0, np.inf], [1.0, 0.0]]), 1.0, "inf at row 0, column 1"),
        (np.array([[0.0, 1.0], [-1.0, 0.0]]), 1.0, "-1.0 at row 1, column 0"),
        (np.zeros((2, 2)), 0.0, "regularization"),
        (np.zeros((2, 2)), float("nan"), "regularization"),
    ],
)
def test_invalid_input(d: np.ndarray, regularization: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_ds3(d, regularization)


def test_more_key_frames_than_frames() -> None:
    with pytest.raises(ValueError, match=r"k = 5.*n = 3"):
        select_key_frames(np.zeros((3, 3)), 5)
    with pytest.raises(ValueError, match="k = 0"):
        select_key_frames(np.zeros((3, 3)), 0)
    np.testing.assert_array_equal(sorted(select_key_frames(1 - np.eye(3), 3)), [0, 1, 2])
