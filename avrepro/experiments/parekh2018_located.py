"""Where the systems of Parekh et al. (2018) find what they report, against what was planted in the demo world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.truth import read_events, read_sights
from avrepro.evaluation import Interval, metric_interval
from avrepro.evaluation.localisation import (
    base_rate,
    padded,
    pointing,
    pointing_chance,
    region_truth,
    segment_average_precision,
    segment_times,
    segment_truth,
)
from avrepro.experiments.parekh2018 import Inputs, Systems
from avrepro.results import Run

IN_VIEW = 0.3  # a source counts as in view in a frame where at least this share of it is not hidden
RESAMPLES = 200  # of clips for the average precision of segments, which is slow to compute


def add_localisation(run: Run, inputs: Inputs, systems: Systems) -> None:
    """Note how well each system points at sounds and at sights in the test clips, beside chance.

    Asked of each class that sounds in a clip: is the segment with the highest score inside the event; is the region
    with the highest score on the source, where a source is in view in one of the frames. Chance is a proposal drawn
    at random. ``_gain``: more than chance; ``_lead``: what the two-stream system is ahead by. All paired over clips.
    """
    sounds = _sounds(inputs, systems)
    _add(run, "sound_pointing", *sounds, by_class=True)
    _add_average_precision(run, *sounds)
    for metric, rule in (("sight_overlap", "overlap"), ("sight_pointing", "centre")):
        truth, scores, asked = _sights(inputs, systems, rule)
        _add(run, metric, truth, scores, asked)
        if rule == "overlap":
            run.add("proposals", "test", "sight_reachable", float(np.asarray(truth.any(axis=1))[asked].mean()))


def _sounds(inputs: Inputs, systems: Systems) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Which segments of the test clips lie in an event, each system's scores of them, and which classes sound."""
    rows = inputs.rows("test")
    test = inputs.corpus.split("test")
    sizes = inputs.segments.sizes[rows]
    events = read_events(test)
    inside = segment_truth(events, [clip.id for clip in test.clips], test.classes, segment_times(max(sizes)))
    truth = padded([of_clip[:size] for of_clip, size in zip(inside, sizes, strict=True)], False)  # as long as its bag
    return truth, _scores(systems, "segments", rows), _asked(events, inputs)


def _sights(inputs: Inputs, systems: Systems, rule: str) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Which regions of the test clips are on a source, each system's scores of them, and where that is asked.

    Of classes that sound, where their source is in view in a frame that boxes were looked for in.
    """
    form = load_world_description().clip
    rows = inputs.rows("test")
    test = inputs.corpus.split("test")
    sights = read_sights(test)
    by_clip = dict(tuple(sights[sights["visible"] >= IN_VIEW].groupby("clip")))
    height, width = form.size
    truths, in_view = [], np.zeros((len(rows), len(test.classes)), dtype=bool)
    for at, (row, clip) in enumerate(zip(rows, test.clips, strict=True)):
        found = inputs.proposals(row)
        left, top, right, bottom = found.boxes.T * np.array([width, height, width, height])[:, None]
        frames = np.round(found.times * form.frames_per_second).astype(int)
        shown = by_clip.get(clip.id, sights.iloc[:0])
        boxes = np.stack([left, top, right - left, bottom - top], axis=1)
        truths.append(region_truth(boxes, frames, shown, test.classes, rule))  # type: ignore[arg-type]
        in_view[at] = np.isin(test.classes, shown["label"][shown["frame"].isin(frames)])
    return padded(truths, False), _scores(systems, "regions", rows), _asked(read_events(test), inputs) & in_view


def _asked(events: pd.DataFrame, inputs: Inputs) -> np.ndarray:
    """Which classes sound in which test clip, bool [clips, classes]; not what the weak labels say."""
    test = inputs.corpus.split("test")
    sounding = set(zip(events["clip"], events["label"], strict=True))
    return np.array([[(clip.id, label) in sounding for label in test.classes] for clip in test.clips])


def _scores(systems: Systems, modality: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Scores of one modality's proposals by system, padded, [clips, proposals, classes]."""
    located = {name: found[modality] for name, found in systems.located.items() if modality in found}
    return {name: padded([found[row] for row in rows], np.nan) for name, found in located.items()}


def _add(
    run: Run, metric: str, truth: np.ndarray, scores: dict[str, np.ndarray], asked: np.ndarray, by_class: bool = False
) -> None:
    """Note a pointing rule of all systems and of chance."""
    hits = {name: pointing(truth, found, asked) for name, found in scores.items()}
    hits["chance"] = pointing_chance(truth, next(iter(scores.values())), asked)
    for name, values in hits.items():
        run.add(name, "test", metric, _mean(values))
        if by_class:
            for k, label in enumerate(run.corpus.classes):
                run.add(name, "test", metric, _mean(values[:, [k]]), label=label)
        if name != "chance":
            run.add(name, "test", f"{metric}_gain", _mean(values, hits["chance"]))
        if name not in ("chance", "two_stream"):
            run.add(name, "test", f"{metric}_lead", _mean(hits["two_stream"], values))


def _add_average_precision(run: Run, truth: np.ndarray, scores: dict[str, np.ndarray], asked: np.ndarray) -> None:
    """Segment-level average precision of each class over all test clips, and its mean over classes."""
    chance = base_rate(truth, next(iter(scores.values())))
    for name, found in scores.items():
        for label, value in zip(run.corpus.classes, segment_average_precision(truth, found), strict=True):
            run.add(name, "test", "sound_ap", float(value), label=label)
        run.add(name, "test", "sound_ap", _repeated(_mean_precision, truth, found))
        run.add(name, "test", "sound_ap_gain", _repeated(_above_base_rate, truth, found))
        if name != "two_stream":
            run.add(name, "test", "sound_ap_lead", _repeated(_mean_precision, truth, scores["two_stream"], found))
    for label, value in zip(run.corpus.classes, chance, strict=True):
        run.add("chance", "test", "sound_ap", float(value), label=label)
    run.add("chance", "test", "sound_ap", float(np.nanmean(np.where(truth.any(axis=(0, 1)), chance, np.nan))))


def _mean_precision(truth: np.ndarray, scores: np.ndarray) -> float:
    return float(np.nanmean(segment_average_precision(truth, scores)))


def _above_base_rate(truth: np.ndarray, scores: np.ndarray) -> float:
    return float(np.nanmean(segment_average_precision(truth, scores) - base_rate(truth, scores)))


def _repeated(metric: Callable, truth: np.ndarray, scores: np.ndarray, against: np.ndarray | None = None) -> Interval:
    return metric_interval(metric, truth, scores, against, resamples=RESAMPLES)


def _mean(values: np.ndarray, against: np.ndarray | None = None) -> Interval:
    """Mean over the clips and classes that were asked, [clips, classes] with NaN elsewhere, or its difference."""

    def mean(_: np.ndarray, values: np.ndarray) -> float:
        return float(np.nanmean(values)) if np.isfinite(values).any() else np.nan

    return metric_interval(mean, values, values, against)
