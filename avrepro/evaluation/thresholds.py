"""Class-specific thresholds tuned for the micro-average F1 (Li et al. 2017, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avrepro.evaluation.metrics import checked_pair, f1_of_counts


@dataclass(frozen=True)
class _Cuts:
    """The thresholds of one class that can be best, highest first, and what each decides."""

    thresholds: np.ndarray  # float64 [cuts]; the first is +inf, which predicts nothing
    hits: np.ndarray  # int [cuts], true positives
    predicted: np.ndarray  # int [cuts], clips predicted


def tune_thresholds(y_true: np.ndarray, scores: np.ndarray, seed: int = 0) -> np.ndarray:
    """Tune one threshold a class on held-out clips; predict ``scores >= thresholds``.

    Step 1 takes the threshold with the best F1 of each class by itself. Step 2 draws a random class and re-tunes its
    threshold for the micro-average F1 with the others held, until no single class can raise it: an optimum along each
    class, which need not be the best of all combinations.

    Every distinct score of a class is a candidate, and so is predicting nothing. Of equally good thresholds the highest
    wins, and step 2 moves a threshold only for a gain. What is returned lies halfway between the lowest accepted score
    and the next lower one, in the scores' own precision. It is +inf where predicting nothing is best.

    Args: y_true bool [clips, classes]; scores finite [clips, classes]; seed of the draws in step 2.
    Returns: float64 [classes]. Raises ValueError for bad input.
    """
    y_true, scores = checked_pair(y_true, scores)
    cuts = [_cuts(y_true[:, k], scores[:, k]) for k in range(y_true.shape[1])]
    positive = y_true.sum(axis=0)
    if not positive.any():
        return np.full(len(cuts), np.inf)

    # Step 1: each class by itself.
    chosen = [int(np.argmax(f1_of_counts(c.hits, c.predicted, positive[k]))) for k, c in enumerate(cuts)]
    # Step 2: the micro-average.
    chosen = _raise_micro_f1(cuts, chosen, int(positive.sum()), np.random.default_rng(seed))
    return np.array([c.thresholds[at] for c, at in zip(cuts, chosen, strict=True)])


def cross_validated_decisions(y_true: np.ndarray, scores: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Decide each clip by thresholds tuned without it: on the other ``folds`` - 1 parts of clips dealt at random.

    Args: y_true bool [clips, classes]; scores finite [clips, classes]; seed of the dealing and of the tuning.
    Returns: bool [clips, classes]. Raises ValueError for bad input.
    """
    y_true, scores = checked_pair(y_true, scores)
    decisions = np.zeros(y_true.shape, dtype=bool)
    for held_out in np.array_split(np.random.default_rng(seed).permutation(len(y_true)), folds):
        others = np.delete(np.arange(len(y_true)), held_out)
        decisions[held_out] = scores[held_out] >= tune_thresholds(y_true[others], scores[others], seed=seed)
    return decisions


def _raise_micro_f1(cuts: list[_Cuts], chosen: list[int], positive: int, rng: np.random.Generator) -> list[int]:
    """Step 2: coordinate ascent over classes in random order from the cuts `chosen` in step 1."""
    chosen = list(chosen)
    hits = sum(int(c.hits[at]) for c, at in zip(cuts, chosen, strict=True))
    predicted = sum(int(c.predicted[at]) for c, at in zip(cuts, chosen, strict=True))
    # A class already tried since the last change cannot gain, so the draw is among the others. When they run
    # out, every class has been shown unable to improve on this very state.
    untried = list(range(len(cuts)))
    while untried:
        k = untried.pop(rng.integers(len(untried)))
        c, at = cuts[k], chosen[k]
        # Micro F1 at each cut, 2 TP / (predicted + positive). Quotients of whole numbers below 2**26 that
        # differ stay different in float64, and equal ones stay equal: the comparisons are exact.
        f1 = 2 * (hits - c.hits[at] + c.hits) / (predicted - c.predicted[at] + c.predicted + positive)
        best = int(np.argmax(f1))
        if f1[best] > f1[at]:
            chosen[k] = best
            hits += int(c.hits[best] - c.hits[at])
            predicted += int(c.predicted[best] - c.predicted[at])
            untried = [other for other in range(len(cuts)) if other != k]  # k itself is at its best
    return chosen


def _cuts(labels: np.ndarray, scores: np.ndarray) -> _Cuts:
    """Of one class; labels bool [clips], scores float [clips]."""
    order = np.argsort(-scores)
    ordered = scores[order]
    last = np.flatnonzero(np.append(ordered[:-1] != ordered[1:], True))  # the last clip of each run of ties
    distinct, hits, predicted = ordered[last], np.cumsum(labels[order])[last], last + 1
    lower = np.append(distinct[1:], distinct[-1])
    halfway = distinct / 2 + lower / 2  # halves first: the sum of two large scores might overflow
    thresholds = np.where((lower < halfway) & (halfway <= distinct), halfway, distinct)
    # A cut that adds predictions but no true positive never has a higher F1 than the one above it, neither of
    # the class nor of the micro-average: leaving it out changes nothing but the time.
    gains = np.diff(hits, prepend=0) > 0
    return _Cuts(
        thresholds=np.append(np.inf, thresholds[gains].astype(np.float64)),
        hits=np.append(0, hits[gains]),
        predicted=np.append(0, predicted[gains]),
    )
