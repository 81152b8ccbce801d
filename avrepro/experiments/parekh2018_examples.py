"""Clips for figures 3 and 4 of Parekh et al. (2018): chosen by rule, with what a system finds in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from avrepro.corpora.base import Clip, Corpus
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.truth import read_events, read_sights
from avrepro.evaluation.localisation import segment_times
from avrepro.experiments.data import IN_VIEW, spans_in_view
from avrepro.experiments.li2017 import DURATION
from avrepro.experiments.parekh2018 import Inputs, Systems
from avrepro.features.regions import Regions
from avrepro.media import probe
from avrepro.models.parekh2018 import scaled

FIGURE_3 = ("Train", "Bicycle", "Car", "Truck", "Motorcycle")  # classes that the paper shows
OWN = 8  # clips at most, of few own ones
LATER = 1.0  # s; a source that comes into view so long after its sound began is out of step

Spans = tuple[tuple[float, float], ...]  # start and end of each, s, by start


@dataclass(frozen=True)
class Example:
    """A clip and one class: what a system says of the clip, of its regions and of its segments."""

    clip: Clip
    label: str  # the class
    system: str
    score: float  # phi of the clip
    threshold: float  # of the class; the clip has it from this score on
    duration: float  # s that the system looks at and listens to
    regions: Regions  # those that the system scores; none where it does not look at pictures
    region_scores: np.ndarray  # float [regions], brought to 0..1 in this clip for this class
    spans: np.ndarray  # float [segments, 2], start and end of those that the system scores, s
    segment_scores: np.ndarray  # float [segments], likewise 0..1
    heard: Spans  # when the class was planted to sound; empty where nobody knows
    seen: Spans  # when its source was planted to be in view; likewise


def examples(inputs: Inputs, systems: Systems) -> list[Example]:
    """Clips for figure 3, by rule.

    Of each class that the paper shows, among test clips with pictures that bear its label and are decided rightly
    by ``inputs.parameters.system``, the one with the highest score; a class without such a clip is left out. A
    corpus that lacks one of those classes shows its own first five that have one. Of few own clips, which a
    checkpoint scores, each (the first ``OWN``), with the class that is highest above its threshold.
    """
    scores, thresholds = _decided(inputs, systems)
    if not inputs.trains:
        best = (scores - thresholds).argmax(axis=1)
        return [_example(inputs, systems, row, int(k)) for row, k in enumerate(best[:OWN])]
    right = _right(inputs, systems)
    classes = FIGURE_3 if set(FIGURE_3) <= set(systems.classes) else systems.classes
    columns = [k for k in map(systems.classes.index, classes) if right[:, k].any()]
    rows = [int(np.where(right[:, k], scores[:, k], -np.inf).argmax()) for k in columns]
    return [_example(inputs, systems, row, k) for row, k in zip(rows, columns, strict=True)][: len(FIGURE_3)]


def unsynchronised(inputs: Inputs, systems: Systems) -> dict[str, Example]:
    """Clips for figure 4, by rule: of the demo world, where it is known what sounds and what is in view.

    Among the right decisions on test clips with pictures, for each kind in ``OUT_OF_STEP`` the one with the highest
    score. A kind without one is left out, and so are both of other corpora.
    """
    if not inputs.corpus.name.startswith("demo"):
        return {}
    scores, _ = _decided(inputs, systems)
    right = np.argwhere(_right(inputs, systems))
    ranked = right[np.argsort(-scores[tuple(right.T)], kind="stable")]
    planted = _Planted(inputs.corpus)
    found: dict[str, Example] = {}
    for row, k in ranked:
        heard, seen = planted.spans(inputs.corpus.clips[row].id, systems.classes[k])
        for kind, holds in OUT_OF_STEP.items():
            if kind not in found and heard and holds(heard, seen):
                found[kind] = _example(inputs, systems, row, k)
    return {kind: found[kind] for kind in OUT_OF_STEP if kind in found}


def seen_after_heard(heard: Spans, seen: Spans) -> bool:
    """Whether a source first comes into view at least ``LATER`` s after its sound began."""
    return bool(seen) and seen[0][0] >= heard[0][0] + LATER


OUT_OF_STEP: dict[str, Callable[[Spans, Spans], bool]] = {
    "seen after heard": seen_after_heard,
    "heard, not seen": lambda heard, seen: not seen,
}


class _Planted:
    """The planted truth of a demo world's clips."""

    def __init__(self, corpus: Corpus) -> None:
        self.events = read_events(corpus)
        sights = read_sights(corpus)
        self.sights = sights[sights["visible"] >= IN_VIEW]
        self.frames_per_second = load_world_description().clip.frames_per_second

    def spans(self, clip: str, label: str) -> tuple[Spans, Spans]:
        """When a class sounds in a clip, and when a source of it is in view."""
        events, sights = (_of(table, clip, label) for table in (self.events, self.sights))
        heard = sorted(zip(events["onset"].tolist(), events["offset"].tolist(), strict=True))
        found = spans_in_view(sights, self.frames_per_second)
        return tuple(heard), tuple((float(span.start), float(span.end)) for span in found)


def _of(table: pd.DataFrame, clip: str, label: str) -> pd.DataFrame:
    return table[(table["clip"] == clip) & (table["label"] == label)]


def _decided(inputs: Inputs, systems: Systems) -> tuple[np.ndarray, np.ndarray]:
    """Scores [clips, classes] and thresholds [classes] of the chosen system."""
    name = inputs.parameters.system
    return systems.scores[name], systems.trained[name].thresholds


def _right(inputs: Inputs, systems: Systems) -> np.ndarray:
    """Whether a clip is of the test split, has pictures and the label, and is given it; bool [clips, classes]."""
    scores, thresholds = _decided(inputs, systems)
    labelled = np.array([[name in clip.labels for name in systems.classes] for clip in inputs.corpus.clips])
    shown = np.array([clip.split == "test" for clip in inputs.corpus.clips]) & (inputs.regions.sizes > 0)
    return labelled & (scores >= thresholds) & shown[:, None]


def _example(inputs: Inputs, systems: Systems, row: int, k: int) -> Example:
    clip, system = inputs.corpus.clips[row], inputs.parameters.system
    scores, thresholds = _decided(inputs, systems)
    located = systems.located[system]
    found = {
        name: scaled(located[name][row][:, [k]])[:, 0] if name in located else np.empty(0)
        for name in ("regions", "segments")
    }
    planted = inputs.corpus.name.startswith("demo")
    heard, seen = _Planted(inputs.corpus).spans(clip.id, systems.classes[k]) if planted else ((), ())
    none = Regions(np.empty(0), np.empty((0, 4), np.float32), np.empty(0, np.float32))
    return Example(
        clip=clip,
        label=systems.classes[k],
        system=system,
        score=float(scores[row, k]),
        threshold=float(thresholds[k]),
        duration=min(probe(clip.path).duration, DURATION),
        regions=inputs.proposals(row) if len(found["regions"]) else none,
        region_scores=found["regions"],
        spans=segment_times(len(found["segments"])),
        segment_scores=found["segments"],
        heard=heard,
        seen=seen,
    )
