"""Key frames by dissimilarity-based sparse subset selection (DS3).

Li et al. (2017), section 2.2.1, after Elhamifar, Sapiro and Sastry, "Dissimilarity-based sparse subset
selection", IEEE TPAMI 38(11), 2016. ``z[i, j]`` says how far frame i represents frame j; few frames shall
represent all at a small total dissimilarity. The l1/l-infinity relaxation is the linear program

    minimise  lambda * sum_i max_j z[i, j] + sum_ij z[i, j] d[i, j]
    such that sum_i z[i, j] = 1 for every j,  0 <= z[i, j] <= 1.

It is also the relaxation of facility location with opening cost lambda, whose dual gives the proof of
optimality used here:  maximise sum_j v[j]  such that  sum_j max(0, v[j] - d[i, j]) <= lambda for every i.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array
from scipy.spatial.distance import pdist, squareform

REGULARIZATION_SHARE = 0.15
"""lambda of :func:`select_key_frames` as a share of :func:`lambda_max`.

The paper gives no lambda. A share of lambda_max does not depend on the scale of the features nor, roughly, on
the number of frames. On planted clusters, scenes and slow drifts of 40 frames, shares from 0.1 to 0.2 yield
about as many representatives as the 4 key frames wanted: below 0.05 nearly every frame of a noisy clip
represents itself, so that row sums say nothing; above 0.3 small scenes are swallowed by large ones.
"""

_SMALL = 4000  # variables; a program up to this size is solved at once, within about 10 ms
_WORKING_SET = 24  # candidate representatives that a larger program starts from
_TOLERANCE = 1e-6  # of the dual constraints and of equal row sums; the solver's own is 1e-7


def dissimilarities(features: np.ndarray) -> np.ndarray:
    """Euclidean distances between frames, scaled to a maximum of 1 (section 2.2.1).

    features: float [frames, dimensions]. Returns float64 [frames, frames], symmetric, zero diagonal; all zeros where
    all frames are alike.
    """
    distances = squareform(pdist(features.astype(np.float64)))
    largest = distances.max()
    return distances / largest if largest > 0 else distances


def lambda_max(dissimilarity: np.ndarray) -> float:
    """Scale of lambda: half the largest l1 distance between the medoid's row of d and another row.

    Elhamifar et al. (2016) give it, for the l-infinity norm, as the lambda from which one frame is enough.
    """
    d = dissimilarity
    return float(np.abs(d - d[d.sum(axis=1).argmin()]).sum(axis=1).max() / 2)


def solve_ds3(dissimilarity: np.ndarray, regularization: float) -> np.ndarray:
    """Optimum of the l1/l-infinity relaxation (module docstring).

    dissimilarity: float [n, n], finite, >= 0, ``d[i, j]`` the cost of frame i representing frame j; it need
    not be symmetric. regularization: lambda > 0, in the unit of d.
    Returns Z float64 [n, n], each column summing to 1, all values in 0..1. The optimum need not be unique: Z
    is one vertex of the optimal set, the same at every call. Raises ValueError on invalid input.

    The program is solved by HiGHS' dual simplex method. A large one is first solved with few candidates for
    representatives; frames whose dual constraint the result violates join them until none does, which proves
    the optimum of the whole program.
    """
    d = _checked(dissimilarity)
    if not (np.isfinite(regularization) and regularization > 0):
        raise ValueError(f"regularization must be a finite number > 0, found {regularization!r}")
    n = len(d)
    medoid = int(d.sum(axis=1).argmin())
    if regularization >= (d.max(axis=0) - d[medoid]).sum():
        # v[j] = max_i d[i, j] + slack / n is feasible in the dual and as large as the medoid alone costs.
        z = np.zeros((n, n))
        z[medoid] = 1.0
        return z
    # Each column has to pay its least cost anyway, and sums in units of lambda suit the solver at any scale.
    cost = (d - d.min(axis=0)) / regularization
    if np.count_nonzero(cost <= 1.0) <= _SMALL:
        z, _ = _solve(cost)
        return z
    candidates = _greedy(cost, _WORKING_SET)
    while True:
        part, v = _solve(cost[candidates])
        excess = np.maximum(v - cost, 0).sum(axis=1) - 1.0
        excess[candidates] = 0.0
        violating = np.flatnonzero(excess > _TOLERANCE)
        if not len(violating):
            break
        worst = violating[np.argsort(-excess[violating], kind="stable")]
        candidates = np.union1d(candidates, worst[: len(candidates)])  # at most twice as many: few rounds
    z = np.zeros((n, n))
    z[candidates] = part
    return z


def select_key_frames(dissimilarity: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` frames that represent most of the others, largest row sums of Z first (section 2.2.1).

    dissimilarity: float [n, n] as for :func:`solve_ds3`. Returns int64 [k] distinct frame indices. lambda is
    ``REGULARIZATION_SHARE * lambda_max``. Where row sums are equal, which includes the rows of zeros needed
    if fewer than k frames represent any, the frame farthest from those already chosen comes next (for the
    first: the one with the least total dissimilarity); then the earlier frame. ValueError unless 1 <= k <= n.
    """
    d = _checked(dissimilarity)
    n = len(d)
    if not 1 <= k <= n:
        raise ValueError(f"cannot select k = {k} key frames from n = {n} frames; k must be from 1 to n")
    regularization = REGULARIZATION_SHARE * lambda_max(d)
    # With all rows of d alike no frame represents better than another.
    sums = solve_ds3(d, regularization).sum(axis=1) if regularization > 0 else np.zeros(n)
    steps = np.round(sums / _TOLERANCE)
    left = np.ones(n, dtype=bool)
    spread = -d.sum(axis=1)
    chosen: list[int] = []
    while len(chosen) < k:
        tied = np.flatnonzero(left & (steps == steps[left].max()))
        nearest = int(tied[spread[tied].argmax()])
        spread = np.minimum(spread, d[nearest]) if chosen else d[nearest].copy()
        left[nearest] = False
        chosen.append(nearest)
    return np.array(chosen, dtype=np.int64)


def nearest_to_centres(features: np.ndarray, k: int, seed: int = 0) -> np.ndarray:
    """Baseline: the frames nearest to the k centres that k-means finds, int64 [at most k], rising.

    features: float [frames, d].
    """
    from sklearn.cluster import KMeans

    distances = KMeans(k, n_init=4, random_state=seed).fit_transform(features)  # (frames, k)
    return np.unique(distances.argmin(axis=0))


def _checked(dissimilarity: np.ndarray) -> np.ndarray:
    d = np.asarray(dissimilarity, dtype=np.float64)
    if d.ndim != 2 or d.shape[0] != d.shape[1] or len(d) == 0:
        raise ValueError(f"dissimilarity must be a square matrix [frames, frames], found shape {d.shape}")
    wrong = ~(np.isfinite(d) & (d >= 0))
    if wrong.any():
        i, j = np.argwhere(wrong)[0]
        raise ValueError(f"dissimilarity must be finite and >= 0, found {d[i, j]} at row {i}, column {j}")
    return d


def _greedy(cost: np.ndarray, count: int) -> np.ndarray:
    """Indices of ``count`` rows, each lowering the columns' cheapest cost most, in ascending order."""
    cheapest = cost.max(axis=0)
    chosen: list[int] = []
    for _ in range(min(count, len(cost))):
        gain = np.maximum(cheapest - cost, 0).sum(axis=1)
        gain[chosen] = -1.0
        chosen.append(int(gain.argmax()))
        cheapest = np.minimum(cheapest, cost[chosen[-1]])
    return np.sort(np.array(chosen))


def _solve(cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Z [m, n] and dual v [n] of the program with m candidates for n frames, cost [m, n], lambda 1.

    The variables are z and t, with t[i] >= z[i, j] in place of the maximum. Since v[j] - cost[i, j] <= 1 in
    every dual solution, a pair that costs over 1 more than its column's cheapest is never used: leave it out.
    """
    m, n = cost.shape
    i, j = np.nonzero(cost <= cost.min(axis=0) + 1.0)
    pairs = len(i)
    pair = np.arange(pairs)
    ones = np.ones(pairs)
    below_t = csr_array(
        (np.concatenate([ones, -ones]), (np.concatenate([pair, pair]), np.concatenate([pair, pairs + i]))),
        shape=(pairs, pairs + m),
    )
    columns = csr_array((ones, (j, pair)), shape=(n, pairs + m))
    result = linprog(
        np.concatenate([cost[i, j], np.ones(m)]),
        A_ub=below_t,
        b_ub=np.zeros(pairs),
        A_eq=columns,
        b_eq=np.ones(n),
        bounds=(0, None),
        method="highs-ds",
    )
    if result.status != 0:
        raise RuntimeError(f"HiGHS did not solve the key-frame program of {m} x {n} frames: {result.message}")
    z = np.zeros((m, n))
    z[i, j] = np.clip(result.x[:pairs], 0.0, 1.0)
    return z / z.sum(axis=0), result.eqlin.marginals
