"""Whether probabilities are right: what the calibration error is made of, and Platt scaling of scores that are none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from avrepro.evaluation.metrics import checked_pair

BINS = 10


def bin_excesses(y_true: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Sum of probability - label of each clip's decisions in each bin, float64 [clips, bins].

    The bins are filled equally, at quantiles of the probabilities. Guo et al. (2017) cut 0..1 into equal widths; of
    tagging that would put nearly all decisions, whose probabilities are near 0, into one bin, in which errors up and
    down cancel. Equal probabilities stay in one bin, so bins can differ in size or be empty.

    :param y_true: bool [clips, classes]. :param probability: the same shape, 0..1.
    :raises ValueError: the probabilities are none.
    """
    if probability.min() < 0 or probability.max() > 1 + 1e-6:  # sums of probabilities pass 1 by rounding
        raise ValueError(
            f"probability: expected fractions 0..1, found {probability.min():g} to {probability.max():g}; "
            "turn scores into probabilities with platt()"
        )
    probability = np.minimum(probability, 1)
    limits = np.quantile(probability, np.arange(1, BINS) / BINS)
    bin_of = np.searchsorted(limits, probability, side="right")  # (clips, classes), 0..BINS - 1
    excess = probability.astype(np.float64) - y_true
    return np.stack([np.where(bin_of == b, excess, 0).sum(axis=1) for b in range(BINS)], axis=1)


def platt(y_true: np.ndarray, scores: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Platt scaling (Platt 1999): scores of any range -> probabilities, by one slope and intercept for all classes.

    A logistic regression on the score, all decisions together, with Platt's targets (N+ + 1) / (N+ + 2) and
    1 / (N- + 2) in place of 1 and 0: so it stays finite where a score parts the labels without error. To be fitted on
    validation clips, not on those scored.

    :param y_true: bool [clips, classes]. :param scores: finite, the same shape.
    :returns: a function of scores of any shape, float64 in 0..1.
    :raises ValueError: for bad input.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    y_true, scores = checked_pair(y_true, scores)
    labels, x = y_true.ravel(), scores.astype(np.float64).ravel()
    positives = labels.sum()
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (len(labels) - positives + 2))
    # A target t between 0 and 1 is a decision that counts t times as true and 1 - t times as false.
    both = np.repeat([True, False], len(x))
    fitted = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000)
    fitted.fit(np.tile(x, 2)[:, None], both, sample_weight=np.concatenate([target, 1 - target]))
    slope, intercept = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return lambda new: expit(slope * np.asarray(new, np.float64) + intercept)
