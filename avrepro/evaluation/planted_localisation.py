"""Where and when the systems of Parekh et al. (2018) find events, against what was planted in the demo world.

Four questions are put to each system, for each test clip and class that sounds in it:

    segment_pointing  is the segment with the highest score in the sound?
    segment_ap        average precision of the clip's segments
    region_overlap    does the region with the highest score overlap the source, by at least half of their union?
    region_centre     does its centre lie in the box of the source?

Those about regions are put where a source is in view. Three references stand beside each answer: *chance*, a proposal
at random; *other classes*, the answer with the system's scores of classes that the clip does not have, in the mean over
them (what is striking in a clip for every class is not found by its own class); and the one-stream system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from avrepro import protocol
from avrepro.conditions import Condition
from avrepro.corpora.base import Corpus
from avrepro.corpora.demo.description import load_world_description
from avrepro.corpora.demo.truth import planted_gaps, read_events, read_sights
from avrepro.evaluation.localisation import (
    average_precision_in_clips,
    average_precision_in_clips_chance,
    padded,
    pointing,
    pointing_chance,
    region_truth,
    segment_truth,
)
from avrepro.evaluation.resampling import clip_weights
from avrepro.evaluation.seeds import summarise
from avrepro.evaluation.summary import RULES, SeedScores, Summary, rows_of, thresholds_of
from avrepro.features.regions import regions_of
from avrepro.features.segments import segment_times
from avrepro.results import Run
from avrepro.systems import SYSTEMS

PROPOSED, ONE_STREAM = "parekh2018/two_stream", "parekh2018/one_stream"
SYNCHRONOUS, AUDIO_ONLY = "parekh2018/synchronous", "parekh2018/audio_only"
LOCATING = (PROPOSED, ONE_STREAM, AUDIO_ONLY, "parekh2018/video_only", "parekh2018/wsddn")
CHANCE, OTHER_CLASSES = "chance", "other classes"
QUESTIONS = ("segment_pointing", "segment_ap", "region_overlap", "region_centre")
# A source counts as in view in a frame where at least this share of it is not hidden: a box that shall cover half of a
# source cannot be asked for where most of it is hidden. When a source is first in view hardly depends on the threshold
# (from 0.1 to 0.3 by a frame at most in the demo world of CI), so the gaps between sound and sight use it as well.
IN_VIEW = 0.3
# s from the begin of a sound to the first sight of its source; the last band is open
BANDS = {"0 to 1 s": (0.0, 1.0), "1 to 3 s": (1.0, 3.0), "3 s and more": (3.0, np.inf)}
NEVER = "never in view"
APART = 1.0  # s between the highest region and the highest segment
RESAMPLES = 2000


def add_localisation(run: Run, conditions: Sequence[Condition]) -> None:
    """Note the four answers of each system with its gains over the references; of the demo world alone.

    Rows: the answer (``label=""``), the same with scores of other classes (``label=OTHER_CLASSES``), chance (system
    ``CHANCE``), and differences (``against`` a reference, or the one-stream system), all over the test clips; pointing
    at segments by class, too, and of system "proposals" the share of questions to which any region is an answer.
    """
    if not conditions[0].drawn:
        return
    answers: dict[tuple[str, str], list[np.ndarray]] = {}  # (question, system) -> [clips, classes] a seed
    for condition in conditions:
        for key, found in planted_answers(condition).items():
            answers.setdefault(key, []).append(found)
    for question in QUESTIONS:
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
    truths = {rule: planted_regions(test, [boxes[int(row)] for row in rows], rule) for rule in ("overlap", "centre")}
    in_view = truths["overlap"][1]
    absent = ~(test.targets() | sounding | in_view)
    found: dict[tuple[str, str], np.ndarray] = {}
    for name in LOCATING:
        located = protocol.localisation(protocol.fit(name, condition), data)
        for modality, of_all in located.items():
            of_clips = [of_all[row] for row in rows]
            scores = padded(of_clips, np.nan)
            if modality == "segments":
                truth = planted_segments(test, [len(one) for one in of_clips])
                questions = {"segment_pointing": (truth, sounding), "segment_ap": (truth, sounding)}
            else:
                questions = {f"region_{rule}": (one, sounding & in_view) for rule, (one, _) in truths.items()}
            for question, (truth, asked) in questions.items():
                found[question, name] = _answer(question, truth, scores, asked)
                found[question, f"{name} {OTHER_CLASSES}"] = _with_other_classes(question, truth, scores, asked, absent)
                found.setdefault((question, CHANCE), _chance(question, truth, scores, asked))
    overlap = truths["overlap"][0].any(axis=1)
    found["region_overlap", "reachable"] = np.where(sounding & in_view, overlap, np.nan)
    return found


def planted_segments(test: Corpus, counts: Sequence[int]) -> np.ndarray:
    """Which segments of each clip lie in a sound of each class, bool [clips, segments, classes]; False for padding."""
    spans = segment_times(max(counts))
    inside = segment_truth(read_events(test), [clip.id for clip in test.clips], test.classes, spans)
    return padded([of_clip[:count] for of_clip, count in zip(inside, counts, strict=True)], False)


def planted_regions(test: Corpus, boxes: Sequence[np.ndarray], rule: str) -> tuple[np.ndarray, np.ndarray]:
    """Which regions of each clip are on a source of each class, and where one is in view.

    :param boxes: proposals of each clip, [frames, boxes, 5]. :param rule: as of :func:`region_truth`.
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
        left, top, right, bottom = found.boxes.T * np.array([width, height, width, height])[:, None]
        frames = np.round(found.times * form.frames_per_second).astype(int)
        shown = by_clip.get(clip.id, sights.iloc[:0])
        corners = np.stack([left, top, right - left, bottom - top], axis=1)
        truths.append(region_truth(corners, frames, shown, test.classes, rule))  # type: ignore[arg-type]
        in_view[at] = np.isin(test.classes, shown["label"][shown["frame"].isin(frames)])
    return padded(truths, False), in_view


def add_recall_by_gap(run: Run, conditions: Sequence[Condition]) -> None:
    """Note the share of the test clips' sounding events that are tagged, by how far apart sound and sight are.

    Of two streams, the synchronous system and sound alone, and how far two streams are ahead of the others; of the demo
    world alone. An event is a class that sounds in a clip.
    """
    if not conditions[0].drawn:
        return
    test = protocol.load(conditions[0]).corpus.split("test")
    events = planted_gaps(test, IN_VIEW)
    row = {clip.id: at for at, clip in enumerate(test.clips)}
    column = {label: at for at, label in enumerate(test.classes)}
    clips, classes = events["clip"].map(row).to_numpy(), events["label"].map(column).to_numpy()
    bands = {name: events["gap"].between(*ends, inclusive="left") for name, ends in BANDS.items()}
    bands[NEVER] = events["gap"].isna()
    decided = {name: [_decisions(name, one) for one in conditions] for name in (PROPOSED, SYNCHRONOUS, AUDIO_ONLY)}
    for band, chosen in bands.items():
        run.add("corpus", "events", int(chosen.sum()), split="test", label=band)
        asked = np.zeros((len(test.clips), len(test.classes)), dtype=bool)
        asked[clips[chosen], classes[chosen]] = True
        recall = {name: [np.where(asked, one, np.nan) for one in found] for name, found in decided.items()}
        for name, values in recall.items():
            _note(run, name, "recall", values, label=band, rule=RULES["class"])
            if name != PROPOSED:
                _note(run, PROPOSED, "recall", recall[PROPOSED], values, against=name, label=band, rule=RULES["class"])


def add_gap(run: Run, conditions: Sequence[Condition], smallest: float = 0.0) -> None:
    """Note the planted gap of a world, and how much further two streams are ahead there than where it is the smallest.

    Both worlds have the same sounds in the same test clips, so the difference of differences is paired over clips and
    seeds.

    :param conditions: of one demo world with a gap, a seed each. :param smallest: the other world's gap, s.
    """
    gaps = planted_gaps(run.corpora[0].split("test"), IN_VIEW)["gap"]
    run.add("corpus", "planted_gap_seconds", float(gaps.mean()), split="test")
    if conditions[0].gap == smallest:
        return
    far, near = (_summary(one) for one in (conditions, [replace(c, gap=smallest) for c in conditions]))
    for other in (SYNCHRONOUS, AUDIO_ONLY):
        growth = [a - b for a, b in zip(_gains(far, other), _gains(near, other), strict=True)]
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


def _note(
    run: Run,
    system: str,
    metric: str,
    values: Sequence[np.ndarray],  # [clips, classes] a seed
    reference: Sequence[np.ndarray] | None = None,
    *,
    against: str = "",
    label: str = "",
    rule: str = "",
) -> None:
    rows = [resampled_mean(one) for one in values]
    if reference is not None:
        rows = [one - resampled_mean(other) for one, other in zip(rows, reference, strict=True)]
    found = summarise(rows, resplit=None, paired=reference is not None)
    run.add(system, metric, found, against=against, split="test", label=label, rule=rule)


def _answer(question: str, truth: np.ndarray, scores: np.ndarray, asked: np.ndarray) -> np.ndarray:
    return average_precision_in_clips(truth, scores) if question == "segment_ap" else pointing(truth, scores, asked)


def _chance(question: str, truth: np.ndarray, scores: np.ndarray, asked: np.ndarray) -> np.ndarray:
    if question == "segment_ap":
        return average_precision_in_clips_chance(truth, scores)
    return pointing_chance(truth, scores, asked)


def _with_other_classes(
    question: str, truth: np.ndarray, scores: np.ndarray, asked: np.ndarray, absent: np.ndarray
) -> np.ndarray:
    """The answer by scores of a class that the clip does not have, in the mean over such classes, [clips, classes]."""
    total, count = np.zeros(asked.shape), absent.sum(axis=1, keepdims=True)
    for k in range(scores.shape[2]):
        borrowed = np.repeat(scores[:, :, [k]], scores.shape[2], axis=2)
        total += np.where(absent[:, [k]], _answer(question, truth, borrowed, asked), 0.0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _sounding(test: Corpus) -> np.ndarray:
    """Which classes sound in which clip, bool [clips, classes]; not the weak labels."""
    events = read_events(test)
    pairs = set(zip(events["clip"], events["label"], strict=True))
    return np.array([[(clip.id, label) in pairs for label in test.classes] for clip in test.clips])


def _decisions(name: str, condition: Condition) -> np.ndarray:
    """Tags of the test clips, bool [clips, classes]."""
    data = protocol.load(condition)
    scores = protocol.scores(protocol.fit(name, condition), data)
    held = data.rows("validation")
    thresholds = thresholds_of(SYSTEMS[name], data.targets[held], scores[held], condition.seed)
    return scores[rows_of(data.corpus, "test")] >= thresholds


def _summary(conditions: Sequence[Condition]) -> Summary:
    seeds = []
    for condition in conditions:
        data = protocol.load(condition)
        names = (PROPOSED, SYNCHRONOUS, AUDIO_ONLY)
        scores = {name: protocol.scores(protocol.fit(name, condition), data) for name in names}
        seeds.append(SeedScores(data.corpus, condition.seed, scores, {}))
    return Summary(seeds, "test")


def _gains(world: Summary, other: str) -> list[np.ndarray]:
    """Micro F1 of two streams minus that of another system, [1 + resamples] a seed."""
    rows = (world.rows(name, "micro_f1") for name in (PROPOSED, other))
    return [one - reference for one, reference in zip(*rows, strict=True)]
