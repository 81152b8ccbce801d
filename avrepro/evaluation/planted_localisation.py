"""Where and when the systems of Parekh et al. (2018) find events, against what was planted in the demo world.

Two questions are put to each system, for each test clip and class that sounds in it:

    segment_pointing  is the segment with the highest score in the sound?
    region_overlap    does the region with the highest score overlap the source, by at least half of their union?

The one about regions is put where a source is in view. Three references stand beside each answer: *chance*, a proposal
at random; *other classes*, the answer with the system's scores of classes that the clip does not have, in the mean over
them (what is striking in a clip for every class is not found by its own class); and the one-stream system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from avrepro import protocol
from avrepro.conditions import Condition
from avrepro.corpora.base import Corpus
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.truth import planted_gaps, read_events, read_sights
from avrepro.evaluation import localisation
from avrepro.evaluation.resampling import clip_weights
from avrepro.evaluation.seeds import summarise
from avrepro.evaluation.summary import RULES, Summary, seed_scores
from avrepro.features.regions import regions_of
from avrepro.features.segments import segment_times
from avrepro.results import Run
from avrepro.systems import SYSTEMS

PROPOSED, ONE_STREAM = "parekh2018/two_stream", "parekh2018/one_stream"
SYNCHRONOUS, AUDIO_ONLY = "parekh2018/synchronous", "parekh2018/audio_only"
COMPARED = (PROPOSED, SYNCHRONOUS, AUDIO_ONLY)
LOCATING = (PROPOSED, ONE_STREAM, AUDIO_ONLY, "parekh2018/video_only", "parekh2018/wsddn")
CHANCE, OTHER_CLASSES = "chance", "other classes"
QUESTIONS = {"segments": "segment_pointing", "regions": "region_overlap"}  # by modality
# A source counts as in view in a frame where at least this share of it is not hidden: a box that shall cover half of a
# source cannot be asked for where most of it is hidden.
IN_VIEW = 0.3
# s from the begin of a sound to the first sight of its source; the last band is open
BANDS = {"0 to 1 s": (0.0, 1.0), "1 to 3 s": (1.0, 3.0), "3 s and more": (3.0, np.inf)}
NEVER = "never in view"
APART = 1.0  # s between the highest region and the highest segment
RESAMPLES = 2000

Answers = Sequence[np.ndarray]  # of each seed, float64 [clips, classes], NaN where nothing is asked


def add_localisation(run: Run, conditions: Sequence[Condition]) -> None:
    """Note the answers of each system with its gains over the references; of the demo world alone.

    Rows: the answer, the same with scores of other classes (``label=OTHER_CLASSES``), chance (system ``CHANCE``), and
    differences (``against`` a reference, or the one-stream system), all over the test clips; pointing at segments by
    class, too, and of system "proposals" the share of questions to which any region is an answer.
    """
    if not conditions[0].drawn:
        return
    found = [planted_answers(condition) for condition in conditions]
    answers = {key: [one[key] for one in found] for key in found[0]}  # (question, system) -> answers
    for question in QUESTIONS.values():
        chance = answers[question, CHANCE]
        _note(run, CHANCE, question, chance)
        for system in (name for name in LOCATING if (question, name) in answers):
            own, control = answers[question, system], answers[question, f"{system} {OTHER_CLASSES}"]
            _note(run, system, question, own)
            _note(run, system, question, control, label=OTHER_CLASSES)
            _note(run, system, question, own, chance, against=CHANCE)
            _note(run, system, question, own, control, against=OTHER_CLASSES)
            if system == PROPOSED:
                _note(run, system, question, own, answers[question, ONE_STREAM], against=ONE_STREAM)
    for name in (PROPOSED, CHANCE):
        values = answers["segment_pointing", name]
        for k, label in enumerate(run.corpora[0].classes):
            if np.isfinite(values[0][:, k]).any():
                _note(run, name, "segment_pointing", [one[:, [k]] for one in values], label=label)
    _note(run, "proposals", "region_overlap", answers["region_overlap", "reachable"])


def planted_answers(condition: Condition) -> dict[tuple[str, str], np.ndarray]:
    """(question, system) -> answer for each test clip and class, 0..1, float64 [clips, classes], NaN where not asked.

    Beside the systems: chance; of each system "SYSTEM other classes"; and of ``region_overlap`` "reachable", whether
    any region is right.
    """
    data = protocol.load(condition)
    test, rows = data.corpus.split("test"), data.rows("test")
    boxes = data.arrays(SYSTEMS[PROPOSED].features(condition)["proposals"])
    sounding = _sounding(test)
    on_source, in_view = planted_regions(test, [boxes[int(row)] for row in rows])
    absent = ~(test.targets() | sounding | in_view)
    found: dict[tuple[str, str], np.ndarray] = {}
    for name in LOCATING:
        located = protocol.localisation(protocol.fit(name, condition), data)
        for modality, of_all in located.items():
            of_clips = [of_all[row] for row in rows]
            scores, question = localisation.padded(of_clips, np.nan), QUESTIONS[modality]
            if modality == "segments":
                truth, asked = planted_segments(test, [len(one) for one in of_clips]), sounding
            else:
                truth, asked = on_source, sounding & in_view
            found[question, name] = localisation.pointing(truth, scores, asked)
            found[question, f"{name} {OTHER_CLASSES}"] = localisation.pointing_by_others(truth, scores, asked, absent)
            found.setdefault((question, CHANCE), localisation.pointing_chance(truth, scores, asked))
    found["region_overlap", "reachable"] = np.where(sounding & in_view, on_source.any(axis=1), np.nan)
    return found


def planted_segments(test: Corpus, counts: Sequence[int]) -> np.ndarray:
    """Which segments of each clip lie in a sound of each class, bool [clips, segments, classes]; False for padding."""
    events, spans = read_events(test), segment_times(max(counts))
    inside = localisation.inside_events(spans, events[["onset", "offset"]].to_numpy(np.float64))
    truth = np.zeros((len(test.clips), len(spans), len(test.classes)), dtype=bool)
    for row, column, of_event in zip(*_places(test, events), inside.T, strict=True):
        truth[row, :, column] |= of_event
    return truth & (np.arange(len(spans)) < np.array(counts)[:, None])[:, :, None]


def planted_regions(test: Corpus, boxes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Which regions of each clip are on a source of each class, and where one is in view.

    :param boxes: proposals of each clip, [frames, boxes, 5].
    :returns: bool [clips, regions, classes], False for padding, and bool [clips, classes]: whether a source is in view
        in one of the frames that boxes were searched in.
    """
    form = load_world_description().clip
    height, width = form.size
    sights = read_sights(test)
    by_clip = dict(tuple(sights[sights["visible"] >= IN_VIEW].groupby("clip")))
    truths, in_view = [], np.zeros((len(test.clips), len(test.classes)), dtype=bool)
    for at, (rows, clip) in enumerate(zip(boxes, test.clips, strict=True)):
        found = regions_of(rows)
        frames = np.round(found.times * form.frames_per_second).astype(int)
        shown = by_clip.get(clip.id, sights.iloc[:0])
        truths.append(
            localisation.region_truth(found.boxes * np.array([width, height] * 2), frames, shown, test.classes)
        )
        in_view[at] = np.isin(test.classes, shown["label"][shown["frame"].isin(frames)])
    return localisation.padded(truths, False), in_view


def add_recall_by_gap(run: Run, conditions: Sequence[Condition]) -> None:
    """Note the share of the test clips' sounding events that are tagged, by how far apart sound and sight are.

    Of the systems ``COMPARED``, and how far two streams are ahead of the others; of the demo world alone.
    """
    if not conditions[0].drawn:
        return
    test = protocol.load(conditions[0]).corpus.split("test")
    events = planted_gaps(test, IN_VIEW)
    clips, classes = _places(test, events)
    bands = {name: events["gap"].between(*ends, inclusive="left") for name, ends in BANDS.items()}
    bands[NEVER] = events["gap"].isna()
    summary = Summary([seed_scores(COMPARED, one) for one in conditions], "test")
    decided = {name: [one.scores >= one.thresholds for one in summary.resampled(name)] for name in COMPARED}
    for band, chosen in bands.items():
        run.add("corpus", "events", int(chosen.sum()), split="test", label=band)
        asked = np.zeros((len(test.clips), len(test.classes)), dtype=bool)
        asked[clips[chosen], classes[chosen]] = True
        recall = {name: [np.where(asked, one, np.nan) for one in found] for name, found in decided.items()}
        for name, values in recall.items():
            _note(run, name, "recall", values, label=band, rule=RULES["class"])
            if name != PROPOSED:
                _note(run, PROPOSED, "recall", recall[PROPOSED], values, against=name, label=band, rule=RULES["class"])


def add_gap(run: Run, conditions: Sequence[Condition]) -> None:
    """Note how much further two streams are ahead in a demo world with a gap than in one without.

    Both worlds have the same sounds in the same test clips, so the difference of differences is paired over clips and
    seeds.
    """
    if conditions[0].gap == 0:
        return
    far = Summary([seed_scores(COMPARED, one) for one in conditions], "test")
    near = Summary([seed_scores(COMPARED, replace(one, gap=0.0)) for one in conditions], "test")
    for other in (SYNCHRONOUS, AUDIO_ONLY):
        gains = [world.rows(PROPOSED, "micro_f1", other) for world in (far, near)]  # [1 + resamples] a seed
        growth = [a - b for a, b in zip(*gains, strict=True)]
        found = summarise(growth, resplit=None, paired=True, bounds=(-2.0, 2.0))
        run.add(PROPOSED, "micro_f1_growth", found, against=other, split="test")


def add_times_apart(run: Run, conditions: Sequence[Condition]) -> None:
    """Note how often two streams point at other times in the two modalities, of any corpus.

    Asked of each label of a test clip with sound and pictures: are the middle of its highest segment and the frame of
    its highest region at least ``APART`` s apart? Chance: a segment and a region at random.
    """
    apart: list[np.ndarray] = []
    chance: list[np.ndarray] = []
    for condition in conditions:
        data = protocol.load(condition)
        located = protocol.localisation(protocol.fit(PROPOSED, condition), data)
        boxes = data.arrays(SYSTEMS[PROPOSED].features(condition)["proposals"])
        rows = data.rows("test")
        for values in (apart, chance):
            values.append(np.full((len(rows), len(data.classes)), np.nan))
        for at, row in enumerate(rows):
            regions, segments = located["regions"][row], located["segments"][row]
            if len(regions) and len(segments):
                times, middles = regions_of(boxes[int(row)]).times, segment_times(len(segments)).mean(axis=1)
                best = np.abs(times[regions.argmax(axis=0)] - middles[segments.argmax(axis=0)])  # (classes,)
                every = np.abs(times[:, None] - middles)  # (regions, segments)
                apart[-1][at] = np.where(data.targets[row], best >= APART, np.nan)
                chance[-1][at] = np.where(data.targets[row], np.mean(every >= APART), np.nan)
    _note(run, PROPOSED, "times_apart", apart)
    _note(run, CHANCE, "times_apart", chance)


def resampled_mean(values: np.ndarray) -> np.ndarray:
    """Mean of [clips, classes] without NaN, of the clips as they are and of resamples of them, [1 + RESAMPLES]."""
    known = np.isfinite(values)
    sums = np.stack([np.where(known, values, 0.0).sum(axis=1), known.sum(axis=1)], axis=1)  # (clips, 2)
    totals = _weights(len(values)) @ sums
    return np.divide(totals[:, 0], totals[:, 1], out=np.full(len(totals), np.nan), where=totals[:, 1] > 0)


@cache
def _weights(clips: int) -> np.ndarray:
    """How often each clip is in the clips as they are (1) and in each resample, [1 + RESAMPLES, clips]."""
    return np.concatenate([np.ones((1, clips)), *clip_weights(clips, RESAMPLES, 0)])


def _note(run: Run, system: str, metric: str, values: Answers, reference: Answers | None = None, **more: Any) -> None:
    """Note the mean of [clips, classes] of each seed, or how far it is above that of a reference."""
    rows = [resampled_mean(one) for one in values]
    if reference is not None:
        rows = [one - resampled_mean(other) for one, other in zip(rows, reference, strict=True)]
    run.add(system, metric, summarise(rows, resplit=None, paired=reference is not None), split="test", **more)


def _sounding(test: Corpus) -> np.ndarray:
    """Which classes sound in which clip, bool [clips, classes]; not the weak labels."""
    sounding = np.zeros((len(test.clips), len(test.classes)), dtype=bool)
    sounding[_places(test, read_events(test))] = True
    return sounding


def _places(test: Corpus, events: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Row of the clip and column of the class of each event, int [events] each.

    :raises ValueError: an event has a label that is none of the classes.
    """
    clips, classes = pd.Index([clip.id for clip in test.clips]), pd.Index(test.classes)
    rows, columns = clips.get_indexer(events["clip"]), classes.get_indexer(events["label"])
    if (columns < 0).any():
        clip, label = events.loc[columns < 0, ["clip", "label"]].iloc[0]
        raise ValueError(f"clip {clip}: event {label!r} is none of the {len(classes)} classes")
    return rows, columns
