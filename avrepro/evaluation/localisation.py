"""Where a system finds events: proposals against planted times and boxes.

Scores are float [clips, proposals, classes], NaN where a clip has no such proposal (padding); truths are bool of the
same shape: is the proposal a right one for the class? Pointing gives one number a clip and class, NaN where nothing is
asked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torchvision.ops import box_iou

LEAST_OVERLAP = 0.5  # of a region that shows an object: intersection over union of the two


def inside_events(spans: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Which spans lie in which events: half of the shorter of the two is common to both.

    So a long event takes the spans that are at least half in it, and one shorter than a span those that it mostly
    falls into; an event within the spans is always in one of them.

    :param spans: start and end, s, float [spans, 2]; ``events``: onset and offset, s, float [events, 2].
    :returns: bool [spans, events].
    """
    start, end = spans[:, None, 0], spans[:, None, 1]
    onset, offset = events[None, :, 0], events[None, :, 1]
    common = np.minimum(end, offset) - np.maximum(start, onset)  # (spans, events)
    shorter = np.minimum(end - start, offset - onset)
    return (common > 0) & (common >= 0.5 * shorter - 1e-9)  # 1e-9: onsets are decimal numbers


def region_truth(boxes: np.ndarray, frames: np.ndarray, sights: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Which regions of one clip show an object of each class, bool [regions, classes].

    :param boxes: regions: left, top, right, bottom, px, float64 [regions, 4]; ``frames``: the frame of each.
    :param sights: the true boxes of the clip, a row a frame and object: frame, label, x, y, w, h (px). Those whose
        label is not among the classes show something else; leave out those too hidden to count.
    """
    truth = np.zeros((len(boxes), len(classes)), dtype=bool)
    for k, name in enumerate(classes):
        shown = sights[sights["label"] == name]
        x, y, w, h = shown[["x", "y", "w", "h"]].to_numpy(np.float64).T
        true_boxes = torch.from_numpy(np.stack([x, y, x + w, y + h], axis=1))
        overlap = box_iou(torch.from_numpy(boxes), true_boxes).numpy()  # (regions, true boxes)
        same_frame = frames[:, None] == shown["frame"].to_numpy()
        truth[:, k] = ((overlap >= LEAST_OVERLAP) & same_frame).any(axis=1)
    return truth


def padded(arrays: Sequence[np.ndarray], fill: float | bool) -> np.ndarray:
    """[proposals, classes] of each clip, filled up to the longest: [clips, proposals, classes]; truths with False."""
    full = np.full((len(arrays), max(map(len, arrays)), arrays[0].shape[1]), fill, dtype=arrays[0].dtype)
    for target, array in zip(full, arrays, strict=True):
        target[: len(array)] = array
    return full


def pointing(truth: np.ndarray, scores: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Pointing rule: is the highest-scoring proposal a right one? float64 [clips, classes], 1 or 0.

    Where several share the highest score, the share of right ones among them, so that a system without an opinion
    is right as often as chance.

    :param scores: or [clips, proposals, 1], the same for all classes.
    :param asked: bool [clips, classes], where the question is put (the class sounds, the object is in view); there a
        clip without any proposal, or without a right one, is wrong. Elsewhere it is NaN.
    """
    best = np.where(np.isnan(scores), -np.inf, scores).max(axis=1, keepdims=True, initial=-np.inf)
    return _share(truth, scores == best, asked)  # padding, NaN, equals nothing


def pointing_chance(truth: np.ndarray, scores: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """What :func:`pointing` gives in the mean for a proposal at random: the share of right ones in the clip."""
    return _share(truth, ~np.isnan(scores), asked)


def pointing_by_others(truth: np.ndarray, scores: np.ndarray, asked: np.ndarray, others: np.ndarray) -> np.ndarray:
    """:func:`pointing` by a clip's scores of other classes, in the mean over these.

    :param others: bool [clips, classes], the other classes.
    """
    total, count = np.zeros(asked.shape), others.sum(axis=1, keepdims=True)
    for k in range(scores.shape[2]):
        total += np.where(others[:, [k]], pointing(truth, scores[:, :, [k]], asked), 0.0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _share(truth: np.ndarray, chosen: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Share of right ones among the chosen."""
    shares = (truth & chosen).sum(axis=1) / np.maximum(chosen.sum(axis=1), 1)
    return np.where(asked, shares, np.nan)
