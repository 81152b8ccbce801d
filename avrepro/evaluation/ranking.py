"""How well scores rank clips, as they are or each drawn several times: average precision, ROC AUC and d'."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.sparse import csr_array
from scipy.special import ndtri

from avrepro.evaluation.metrics import checked_pair


def average_precision(y_true: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision of each class: the sum over distinct scores of (gain in recall) x precision.

    y_true is bool [clips, classes], scores are finite and of the same shape, higher meaning likelier.
    Clips that tie are taken together, without interpolation, as scikit-learn does.

    Returns float64 [classes], 0..1; NaN where a class has no positive clip. ValueError for bad input.
    """
    return ranking_areas(*checked_pair(y_true, scores), [np.ones((1, len(y_true)))])[0][0]


def roc_auc(y_true: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class: P(positive clip scores higher), ties counted as one half.

    Input as in average_precision. Returns float64 [classes], 0..1; NaN where a class has no positive clip
    or no negative clip. ValueError for bad input.
    """
    return ranking_areas(*checked_pair(y_true, scores), [np.ones((1, len(y_true)))])[1][0]


def d_prime(auc: float | np.ndarray) -> float | np.ndarray:
    """sqrt(2) x inverse normal CDF of auc: how far apart two unit normals with that ROC area are.

    auc is a number or an array, 0..1 (0 gives -inf, 1 gives inf, NaN stays NaN); else a ValueError.
    """
    area = np.asarray(auc, dtype=np.float64)
    if np.any((area < 0) | (area > 1)):
        raise ValueError(f"auc: expected fractions 0..1, found {area[(area < 0) | (area > 1)].flat[0]:g}")
    distance = np.sqrt(2) * ndtri(area)
    return distance if area.ndim else float(distance)


def ranking_areas(
    y_true: np.ndarray, scores: np.ndarray, blocks: Iterable[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC of each class where each clip counts as often as it was drawn: all draws of a class at once.

    :param y_true: bool [clips, classes]. :param scores: finite, the same shape.
    :param blocks: how often each clip was drawn, whole numbers [some draws, clips] each.
    :returns: float64 [draws of all blocks, classes] each; NaN as in :func:`average_precision` and :func:`roc_auc`.
    """
    classes = [_ranked(y_true[:, k], scores[:, k]) for k in range(y_true.shape[1])]
    found = []
    for block in blocks:
        weights = np.ascontiguousarray(block.T, dtype=np.float32)  # (clips, draws); no sum of so many is rounded
        found.append(np.stack([_areas(*one, weights) for one in classes], axis=-1))  # (2, draws, classes)
    precision, auc = np.concatenate(found, axis=1)
    return precision, auc


def _ranked(labels: np.ndarray, scores: np.ndarray) -> tuple[csr_array, csr_array]:
    """The clips of one class in bands of falling score, with the positives' scores as their limits; both [clips].

    AP and AUC need only know how many clips rank above each positive, so clips between two positives are one band.

    :returns: which clips are in which band, float32 [2 x levels + 1, clips]: those above a level, those at it, and last
        those below all; and which positive clips are at which level, a distinct score of theirs, [levels, clips].
    """
    levels = np.unique(scores[labels])[::-1]  # falling
    above = len(levels) - np.searchsorted(levels[::-1], scores, side="right")  # levels higher than each clip
    tied = np.isin(scores, levels)
    clips, where = np.arange(len(scores)), np.flatnonzero(labels)
    ones = np.ones(len(scores), np.float32)
    bands = csr_array((ones, (2 * above + tied, clips)), shape=(2 * len(levels) + 1, len(scores)))
    positives = csr_array((ones[where], (above[where], where)), shape=(len(levels), len(scores)))
    return bands, positives


def _areas(bands: csr_array, positives: csr_array, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AP and AUC of one class, float64 [draws] each; ``weights`` is [clips, draws]."""
    sizes, gained = (np.asarray(one @ weights, np.float64) for one in (bands, positives))
    taken = np.cumsum(sizes, axis=0)[1::2]  # clips with at least this score, (levels, draws)
    hits = np.cumsum(gained, axis=0)  # positives among them
    all_positives = gained.sum(axis=0)
    negatives = sizes.sum(axis=0) - all_positives
    tied = sizes[1::2] - gained  # negatives
    outranked = negatives - (taken - hits) + tied / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        ap = (gained * np.where(taken > 0, hits / taken, 0)).sum(axis=0) / all_positives
        return ap, (gained * outranked).sum(axis=0) / (all_positives * negatives)
