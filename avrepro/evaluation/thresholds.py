"""Class-specific thresholds tuned for the micro-average F1 (Li et al. 2017, section 3.3), and what they gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avrepro.evaluation.metrics import TaggingScores, checked_pair, cumulative_counts, f1_of_counts, tagging_scores


@dataclass(frozen=True)
class _Cuts:
    """The thresholds of one class that can be best, highest first, and what each decides."""

    thresholds: np.ndarray  # float64 [cuts]; the first is +inf, which predicts nothing
    hits: np.ndarray  # int [cuts], true positives
    predicted: np.ndarray  # int [cuts], clips predicted


def tune_thresholds(y_true: np.ndarray, scores: np.ndarray, seed: int = 0) -> np.ndarray:
    """Tune one threshold a class on held-out clips; predict ``scores >= thresholds``.

    Step 1 takes the threshold with the best F1 of each class by itself. Step 2 draws a random class and
    re-tunes its threshold for the micro-average F1 with the others held, until no single class can raise it.
    The micro F1 never falls, and the end is an optimum along each class. It need not be the best of all
    combinations, and may depend on the seed.

    Both steps are exact, not a grid: every distinct score of a class is a candidate, and so is predicting
    nothing. Of equally good thresholds the highest wins (the fewest predictions), and step 2 moves a
    threshold only for a gain. What is returned lies halfway between the lowest accepted score and the next
    lower one, in the scores' own precision; it is the accepted score itself if no number lies between or no
    score is lower. So the decisions on the tuning clips are the tuned ones, and on other clips neither side
    is favoured. It is +inf where predicting nothing is best, as for a class without a positive clip.

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


def threshold_sweep(y_true: np.ndarray, scores: np.ndarray, thresholds: Sequence[float]) -> list[TaggingScores]:
    """What ``score >= threshold`` gives with each of the thresholds used for all classes alike.

    y_true bool [clips, classes]; scores finite [clips, classes]. ValueError for bad input.
    """
    y_true, scores = checked_pair(y_true, scores)
    return [tagging_scores(y_true, scores >= threshold) for threshold in thresholds]


def cross_validated_decisions(y_true: np.ndarray, scores: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Decide each clip by thresholds tuned without it: what tuning gives where there are no other held-out clips.

    The clips are dealt at random to ``folds`` parts of equal size, give or take one; those of each part are decided
    by the thresholds that tune_thresholds finds on the others.

    Args: y_true bool [clips, classes]; scores finite [clips, classes]; folds 2 to clips; seed of the dealing and of
        the tuning.
    Returns: bool [clips, classes]. Raises ValueError for bad input.
    """
    y_true, scores = checked_pair(y_true, scores)
    if not 2 <= folds <= len(y_true):
        raise ValueError(f"folds: expected 2 to {len(y_true)} (the number of clips), found {folds}")
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
    distinct, hits, predicted = cumulative_counts(labels, scores)
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
