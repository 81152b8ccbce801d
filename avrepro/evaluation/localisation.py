"""Where a system finds events: proposals against planted or annotated times and boxes.

Scores are float [clips, proposals, classes], NaN where a clip has no such proposal (padding); truths are bool of the
same shape: is the proposal a right one for the class? Measures give one number a clip and class, NaN where nothing is
asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from avrepro.evaluation.ranking import average_precision


def inside_events(spans: np.ndarray, events: np.ndarray) -> np.ndarray:
    """Which spans lie in an event: half of the shorter of the two, span or event, is common to both.

    So a long event takes the spans that are at least half in it, and one shorter than a span those that it mostly
    falls into; an event within the spans is always in one of them.

    :param spans: start and end, s, float [spans, 2]; ``events``: onset and offset, s, float [events, 2].
    :returns: bool [spans].
    """
    start, end = spans[:, None, 0], spans[:, None, 1]
    onset, offset = events[None, :, 0], events[None, :, 1]
    common = np.minimum(end, offset) - np.maximum(start, onset)  # (spans, events)
    shorter = np.minimum(end - start, offset - onset)
    return ((common > 0) & (common >= 0.5 * shorter - 1e-9)).any(axis=1)  # 1e-9: onsets are decimal numbers


def segment_truth(events: pd.DataFrame, clips: Sequence[str], classes: Sequence[str], spans: np.ndarray) -> np.ndarray:
    """Which segments lie in an event of each class, bool [clips, segments, classes].

    :param events: one row an event: clip, label, onset, offset (s). Rows of other clips are not looked at.
    :param spans: as of :func:`segment_times`, the same for all clips.
    :raises ValueError: an event of these clips has a label that is not among the classes.
    """
    truth = np.zeros((len(clips), len(spans), len(classes)), dtype=bool)
    row, column = ({name: at for at, name in enumerate(names)} for names in (clips, classes))
    for (clip, label), times in events[events["clip"].isin(row)].groupby(["clip", "label"]):
        if label not in column:
            raise ValueError(f"clip {clip}: event {label!r} is none of the {len(column)} classes")
        truth[row[clip], :, column[label]] = inside_events(spans, times[["onset", "offset"]].to_numpy(np.float64))
    return truth


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair, float64 [boxes, others].

    :param boxes: x, y, width, height, px, float [boxes, 4]; ``others`` likewise. 0 for a pair without area.
    """
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum((boxes[:, :2] + boxes[:, 2:])[:, None], (others[:, :2] + others[:, 2:])[None])
    common = np.clip(high - low, 0, None).prod(axis=2)  # (boxes, others)
    union = boxes[:, 2:].prod(axis=1)[:, None] + others[:, 2:].prod(axis=1)[None] - common
    return np.divide(common, union, out=np.zeros(common.shape), where=union > 0)


def centres_inside(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether the centre of each box lies in the other one, edges included, bool [boxes, others]; boxes as above."""
    centre = (boxes[:, :2] + boxes[:, 2:] / 2)[:, None]
    return ((others[None, :, :2] <= centre) & (centre <= (others[:, :2] + others[:, 2:])[None])).all(axis=2)


def region_truth(
    boxes: np.ndarray,
    frames: np.ndarray,
    sights: pd.DataFrame,
    classes: Sequence[str],
    rule: Literal["overlap", "centre"],
    least: float = 0.5,
) -> np.ndarray:
    """Which regions of one clip show an object of each class, bool [regions, classes].

    :param boxes: regions: x, y, width, height, px, float [regions, 4]; ``frames``: the frame of each, int [regions].
    :param sights: the true boxes of the clip, a row a frame and object: frame, label, x, y, w, h (px). Those whose
        label is not among the classes show something else; leave out those too hidden to count.
    :param rule: ``overlap``, intersection over union of at least ``least`` with a true box of the same frame, or
        ``centre``, the region's centre inside one.
    """
    truth = np.zeros((len(boxes), len(classes)), dtype=bool)
    for k, name in enumerate(classes):
        shown = sights[sights["label"] == name]
        true_boxes = shown[["x", "y", "w", "h"]].to_numpy(np.float64)
        same_frame = frames[:, None] == shown["frame"].to_numpy()[None]  # (regions, true boxes)
        fits = overlaps(boxes, true_boxes) >= least if rule == "overlap" else centres_inside(boxes, true_boxes)
        truth[:, k] = (fits & same_frame).any(axis=1)
    return truth


def padded(arrays: Sequence[np.ndarray], fill: float | bool) -> np.ndarray:
    """[proposals, classes] of each clip, filled up to the longest: [clips, proposals, classes]; truths with False."""
    full = np.full((len(arrays), max(map(len, arrays)), arrays[0].shape[1]), fill, dtype=arrays[0].dtype)
    for target, array in zip(full, arrays, strict=True):
        target[: len(array)] = array
    return full


def average_precision_in_clips(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Average precision over the proposals of each clip by itself, float64 [clips, classes].

    It asks where alone, not whether: weights that sum to 1 in each clip need not compare between clips. NaN where no
    proposal is right, or all are.
    """
    there = _proposals(truth, scores)
    result = np.full((len(truth), truth.shape[2]), np.nan)
    for clip, k in np.argwhere(truth.any(axis=1)):
        rows = there[clip, :, k]
        right = truth[clip, rows, k]
        if right.any() and not right.all():
            result[clip, k] = average_precision(right[:, None], scores[clip, rows, k][:, None])[0]
    return result


def average_precision_in_clips_chance(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The mean of :func:`average_precision_in_clips` over all orders of a clip's proposals, float64 [clips, classes].

    With m of n proposals right, the one in place i is right with probability m / n, and then (m - 1) / (n - 1) of
    those before it are in the mean. In bags this small that is far above m / n: 0.18, not 0.05, for 1 of 20.
    """
    there = _proposals(truth, scores)
    result = np.full((len(truth), truth.shape[2]), np.nan)
    for clip, k in np.argwhere(truth.any(axis=1)):
        n, m = there[clip, :, k].sum(), truth[clip, :, k].sum()
        if m < n:
            place = np.arange(1, n + 1)
            result[clip, k] = np.mean((1 + (place - 1) * (m - 1) / (n - 1)) / place)
    return result


def pointing(truth: np.ndarray, scores: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
    """Pointing rule: is the highest-scoring proposal a right one? float64 [clips, classes], 1 or 0.

    Where several share the highest score, the share of right ones among them, so that a system without an opinion
    is right as often as chance.

    :param asked: bool [clips, classes], where the question is put (the class sounds, the object is in view); there a
        clip without any proposal, or without a right one, is wrong. By default where a right proposal exists.
    :returns: NaN where it is not asked.
    """
    there = _proposals(truth, scores)
    best = np.where(there, scores, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)
    return _share(truth, scores == best, asked)  # padding, NaN, equals nothing


def pointing_chance(truth: np.ndarray, scores: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
    """What :func:`pointing` gives in the mean for a proposal at random: the share of right ones in the clip."""
    return _share(truth, _proposals(truth, scores), asked)


def _share(truth: np.ndarray, chosen: np.ndarray, asked: np.ndarray | None) -> np.ndarray:
    right, all_of_them = (truth & chosen).sum(axis=1), chosen.sum(axis=1)
    shares = right / np.maximum(all_of_them, 1)
    shares[~(truth.any(axis=1) if asked is None else asked)] = np.nan
    return shares


def _proposals(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Where there are proposals, bool [clips, proposals, classes]; ValueError if truth and scores do not fit."""
    if truth.ndim != 3 or truth.dtype != bool or scores.shape != truth.shape:
        raise ValueError(
            "expected truth bool [clips, proposals, classes] and scores of its shape, "
            f"found {truth.dtype} {truth.shape} and {scores.shape}"
        )
    there = ~np.isnan(scores)
    if (there.any(axis=2) != there.all(axis=2)).any():
        raise ValueError("scores: a proposal has scores for some classes and NaN for others")
    if (truth & ~there).any():
        clip, proposal, k = np.argwhere(truth & ~there)[0]
        raise ValueError(f"truth: clip {clip}, proposal {proposal}, class {k} is right, but the proposal has no score")
    return there
