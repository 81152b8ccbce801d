"""Clips for figures 3 and 4 of Parekh et al. (2018), chosen by rule, with the scores of their regions and segments."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from avrepro import protocol
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.truth import read_events, read_sights
from avrepro.evaluation.planted_localisation import IN_VIEW
from avrepro.evaluation.summary import thresholds_of
from avrepro.features.regions import regions_of
from avrepro.features.segments import segment_times
from avrepro.media import probe
from avrepro.models.parekh2018 import scaled
from avrepro.protocol import Fitted
from avrepro.systems import CLIP_SECONDS, Data

FIGURE_3 = ("Train", "Bicycle", "Car", "Truck", "Motorcycle")  # classes that the paper shows
OWN = 8  # clips at most, of few own ones
LATER = 1.0  # s; a source that comes into view so long after its sound began is out of step

Spans = tuple[tuple[float, float], ...]  # start and end of each, s, by start
Example = dict[str, Any]  # the fields of report.Localisation


def examples(fitted: Fitted, data: Data) -> list[Example]:
    """Clips for figure 3.

    Of each class that the paper shows, among test clips with pictures that bear its label and are tagged with it, the
    one with the highest score; a class without such a clip is left out. A corpus that lacks one of those classes shows
    its own first five that have one. Of clips too few to train on, each (the first ``OWN``) with its highest class.
    """
    classes = tuple(fitted.checkpoint.classes)
    scores = protocol.scores(fitted, data)
    if not protocol.trains(data.condition):
        return [example(fitted, data, row, int(k)) for row, k in enumerate(scores.argmax(axis=1)[:OWN])]
    right = _right(fitted, data)
    wanted = FIGURE_3 if set(FIGURE_3) <= set(classes) else classes
    columns = [k for k in map(classes.index, wanted) if right[:, k].any()]
    rows = [int(np.where(right[:, k], scores[:, k], -np.inf).argmax()) for k in columns]
    return [example(fitted, data, row, k) for row, k in zip(rows, columns, strict=True)][: len(FIGURE_3)]


def unsynchronised(fitted: Fitted, data: Data) -> dict[str, Example]:
    """Clips for figure 4: of the demo world, where it is known what sounds and what is in view.

    Among the right tags of test clips with pictures, for each kind in ``OUT_OF_STEP`` the one with the highest score. A
    kind without one is left out, and so are both of other corpora.
    """
    if not (data.condition.drawn and protocol.trains(data.condition)):
        return {}
    scores, right = protocol.scores(fitted, data), np.argwhere(_right(fitted, data))
    found: dict[str, Example] = {}
    for row, k in right[np.argsort(-scores[tuple(right.T)], kind="stable")]:
        sounding, seen = _planted(data, int(row), fitted.checkpoint.classes[k])
        for kind, holds in OUT_OF_STEP.items():
            if kind not in found and sounding and holds(sounding, seen):
                found[kind] = example(fitted, data, int(row), int(k))
    return {kind: found[kind] for kind in OUT_OF_STEP if kind in found}


OUT_OF_STEP: dict[str, Callable[[Spans, Spans], bool]] = {
    "the source comes into view after the sound": (
        lambda sounding, seen: bool(seen) and seen[0][0] >= sounding[0][0] + LATER
    ),
    "the source is never in view": lambda sounding, seen: not seen,
}


def example(fitted: Fitted, data: Data, row: int, k: int) -> Example:
    """A system's scores of one clip and class, and what was planted; the fields of ``report.Localisation``."""
    clip, label = data.corpus.clips[row], fitted.checkpoint.classes[k]
    alone = protocol.as_trained(fitted, data.select(np.array([row])))
    part = {name: scaled(found[0][:, [k]])[:, 0] for name, found in protocol.localisation(fitted, alone).items()}
    boxes, times = np.empty((0, 4), np.float32), np.empty(0)
    if "regions" in part:
        regions = regions_of(alone.arrays(fitted.system.features(alone.condition)["proposals"])[0])
        boxes, times = regions.boxes, regions.times
    sounding, seen = _planted(data, row, label) if data.condition.drawn else ((), ())
    segments = part.get("segments", np.empty(0))
    return {
        "clip": clip,
        "label": label,
        "system": fitted.system.name,
        "score": float(protocol.scores(fitted, data)[row, k]),
        "threshold": float(_thresholds(fitted, data)[k]),
        "duration": min(probe(clip.path).duration, CLIP_SECONDS),
        "times": times,
        "boxes": boxes,
        "region_scores": part.get("regions", np.empty(0)),
        "segments": segment_times(len(segments)),
        "segment_scores": segments,
        "sounding": sounding,
        "seen": seen,
    }


def _thresholds(fitted: Fitted, data: Data) -> np.ndarray:
    """Tuned on the validation clips, [classes]; NaN for clips too few to be trained on."""
    if not protocol.trains(data.condition):
        return np.full(len(fitted.checkpoint.classes), np.nan)
    return thresholds_of(fitted.system, data, protocol.scores(fitted, data))


def _right(fitted: Fitted, data: Data) -> np.ndarray:
    """Whether a clip is of the test split, has pictures and the label, and is tagged with it; bool [clips, classes]."""
    right = data.targets & (protocol.scores(fitted, data) >= _thresholds(fitted, data))
    test = set(data.rows("test"))
    for row, clip in enumerate(data.corpus.clips):
        if right[row].any():
            right[row] &= row in test and bool(probe(clip.path).width)
    return right


def _planted(data: Data, row: int, label: str) -> tuple[Spans, Spans]:
    """When a class sounds in a clip of the demo world, and when a source of it is in view."""
    clip = data.corpus.clips[row].id
    events, sights = (table[(table["clip"] == clip) & (table["label"] == label)] for table in _truth(data))
    step = 1 / load_world_description().clip.frames_per_second
    frames = np.unique(sights["frame"][sights["visible"] >= IN_VIEW])
    runs = np.split(frames, np.flatnonzero(np.diff(frames) > 1) + 1) if len(frames) else []
    seen = tuple((float(run[0] * step), float((run[-1] + 1) * step)) for run in runs)
    return tuple(sorted(zip(events["onset"].tolist(), events["offset"].tolist(), strict=True))), seen


@cache
def _truth(data: Data) -> tuple[pd.DataFrame, pd.DataFrame]:
    return read_events(data.corpus), read_sights(data.corpus)
