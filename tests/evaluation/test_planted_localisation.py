"""Localisation against the demo world's planted truth, of made-up scores, by loops over clips and the world's files."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

from avrepro import protocol, systems
from avrepro.conditions import Condition
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import examples, tagging_scores, tune_thresholds
from avrepro.evaluation import planted_localisation as planted
from avrepro.evaluation.localisation import inside_events
from avrepro.features.segments import segment_times
from avrepro.features.store import Feature
from avrepro.recipes import Recipe
from avrepro.results import Run
from avrepro.systems import Checkpoint, Data, System

HEIGHT, WIDTH, FPS = 144, 192, 12  # of the demo world
TWO, ONE, SOUND, SYNC = (f"parekh2018/{row}" for row in ("two_stream", "one_stream", "audio_only", "synchronous"))
PARTS = {  # what the systems localise
    TWO: ("regions", "segments"), ONE: ("regions", "segments"), SOUND: ("segments",),
    "parekh2018/video_only": ("regions",), "parekh2018/wsddn": ("regions",), SYNC: (),
}  # fmt: skip
SEEDS, PER_FRAME = (0, 1), 4  # regions


@dataclass
class World:
    """The demo world of CI, its truth as it lies in its files, and made-up boxes and bags of its clips."""

    corpus: Corpus
    events: list[dict[str, str]]
    sights: pd.DataFrame
    boxes: dict[str, np.ndarray]  # clip -> [frames, PER_FRAME, 5]
    segments: dict[str, int]  # clip -> how many

    @property
    def test(self) -> list[Clip]:
        return [clip for clip in self.corpus.clips if clip.split == "test"]

    def shown(self, clip: str) -> Iterator[tuple[int, str, tuple[float, ...]]]:
        """Frame, label and box (left, top, right, bottom, px) of what is in view in a clip."""
        for sight in self.sights[self.sights["clip"] == clip].itertuples():
            if sight.visible >= 0.3:
                yield sight.frame, sight.label, (sight.x, sight.y, sight.x + sight.w, sight.y + sight.h)

    def regions(self, clip: str) -> tuple[np.ndarray, set[str]]:
        """Which regions are on a source of which class, [regions, classes], and what is in view in their frames.

        The boxes of second k are of k + 0.5 s, which is picture 12 k + 6.
        """
        classes, right, in_view = self.corpus.classes, [], set()
        for second, of_frame in enumerate(self.boxes[clip]):
            there = [(label, box) for frame, label, box in self.shown(clip) if frame == 12 * second + 6]
            in_view |= {label for label, _ in there}
            for box in of_frame[~np.isnan(of_frame[:, 4])]:
                region = tuple(box[:4] * [WIDTH, HEIGHT, WIDTH, HEIGHT])
                on = {label for label, true in there if overlap(region, true) >= 0.5}
                right.append([label in on for label in classes])
        return np.array(right, dtype=bool).reshape(-1, len(classes)), in_view

    def sounds(self, clip: str) -> np.ndarray:
        """Which segments are half in an event of which class, or hold half of a short one, [segments, classes]."""
        right = np.zeros((self.segments[clip], len(self.corpus.classes)), dtype=bool)
        for event in (one for one in self.events if one["clip"] == clip):
            onset, offset = float(event["onset"]), float(event["offset"])
            for number in range(len(right)):
                common = min(offset, 0.48 * number + 0.96) - max(onset, 0.48 * number)
                if common > 0 and common >= min(0.96, offset - onset) / 2 - 1e-9:
                    right[number, self.corpus.classes.index(event["label"])] = True
        return right

    def sounding(self, clip: str) -> set[str]:
        return {event["label"] for event in self.events if event["clip"] == clip}


def overlap(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Intersection over union of two boxes: left, top, right, bottom."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return common / (sum(areas) - common)


class Made(System):
    """Scores and localisations that are made up: two streams know the truth, one stream has no opinion."""

    profiles: ClassVar = {"ci": Checkpoint()}
    probabilities = False

    def __init__(self, name: str, world: World) -> None:
        super().__init__(name, name, "test")
        self.world = world

    def features(self, condition: Condition) -> dict[str, Feature]:
        boxes = self.world.boxes
        recipe = Recipe("made-boxes", 1)
        return {"proposals": Feature(recipe, "video", lambda clip: boxes[clip.id], lambda rows: rows, lambda: None)}  # type: ignore[arg-type,return-value]

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        return Checkpoint(numbers={"seed": seed})

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        gap = data.condition.gap or 0
        rng = np.random.default_rng([checkpoint.numbers["seed"], len(self.name), 7 * int(gap) * (self.name == SYNC)])
        return data.targets * 0.6 + rng.normal(0, 0.3, data.targets.shape)

    def localisation(self, checkpoint: Checkpoint, data: Data) -> dict[str, list[np.ndarray]]:
        return {
            part: [self.located(part, clip.id, checkpoint) for clip in data.corpus.clips] for part in PARTS[self.name]
        }

    def located(self, part: str, clip: str, checkpoint: Checkpoint) -> np.ndarray:
        truth = self.world.sounds(clip) if part == "segments" else self.world.regions(clip)[0]
        if self.name == ONE:
            return np.full(truth.shape, 0.25)
        noise = np.random.default_rng([checkpoint.numbers["seed"], len(self.name), *clip.encode()]).random(truth.shape)
        return truth + 0.1 * noise if self.name == TWO else noise


@pytest.fixture(scope="module")
def world() -> World:
    """Of the test clips the first has no regions, the second no segments and the third six.

    A frame's regions are the true boxes of some objects, moved about or made smaller, and boxes anywhere.
    """
    corpus = protocol.load(Condition(profile="ci")).corpus
    assert corpus.strong is not None
    with (corpus.strong / "sound.csv").open(newline="") as file:
        events = list(csv.DictReader(file))
    world = World(corpus, events, pd.read_parquet(corpus.strong / "sight.parquet"), {}, {})
    rng = np.random.default_rng(0)
    first, second, third = (clip.id for clip in world.test[:3])
    for clip in corpus.clips:
        rows = np.full((10, PER_FRAME, 5), np.nan, np.float32)
        well = list(world.shown(clip.id)) if clip.split == "test" else []
        for k in range(10):
            there = [box for frame, _, box in well if frame == 12 * k + 6]
            for number in range(int(rng.integers(1, PER_FRAME + 1))):
                left, top = rng.uniform(0, WIDTH - 40), rng.uniform(0, HEIGHT - 40)
                box = np.array([left, top, left + rng.uniform(20, 40), top + rng.uniform(20, 40)])
                if there and rng.random() < 0.6:
                    true = np.array(there[int(rng.integers(len(there)))])
                    box = true + rng.uniform(-0.3, 0.3, 4) * np.tile(true[2:] - true[:2], 2)
                rows[k, number] = [*(box / [WIDTH, HEIGHT, WIDTH, HEIGHT]), rng.random()]
        world.boxes[clip.id] = rows[:0] if clip.id == first else rows
        world.segments[clip.id] = {second: 0, third: 6}.get(clip.id, 20)
    return world


@pytest.fixture(scope="module")
def made(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """All numbers of the made-up systems, of two seeds; gap worlds are the same clips under other names."""
    conditions = [Condition(profile="ci", seed=seed) for seed in SEEDS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(tmp_path_factory.mktemp("home")))
        for name in PARTS:
            patch.setitem(systems.SYSTEMS, name, Made(name, world))
        patch.setattr(planted, "RESAMPLES", 200)
        patch.setattr(protocol, "_load_corpus", lambda *_: world.corpus)
        protocol.load.cache_clear()
        run = Run("unsynchronized_mil", "test", conditions[0], SEEDS, [world.corpus] * 2)
        for add in (planted.add_localisation, planted.add_recall_by_gap):
            add(run, [Condition("paired")])  # which has no planted truth
        assert not run.rows
        planted.add_localisation(run, conditions)
        planted.add_recall_by_gap(run, conditions)
        planted.add_times_apart(run, conditions)
        planted.add_gap(run, [replace(condition, gap=3.0) for condition in conditions])
        yield run
        protocol.load.cache_clear()
        planted._weights.cache_clear()


@pytest.mark.parametrize(
    ("onset", "offset", "inside"),
    [
        (0.48, 1.44, [0, 1, 2]),  # exactly segment 1; half of 0 and of 2
        (0.49, 1.43, [1, 0, 2]),  # 0.94 s: shorter than a segment, so half of it, 0.47 s, is enough
        (0.0, 10.0, range(20)),
        (5.0, 5.1, [9, 10]),  # short: 4.32 .. 5.28 and 4.80 .. 5.76 hold it whole
        (2.0, 4.0, [4, 5, 6, 7]),  # 1.92 .. 4.32; 1.44 .. 2.40 has 0.40 s of it, 3.84 .. 4.80 has 0.16 s
        (10.5, 11.0, []),
    ],
)
def test_which_segments_lie_in_an_event(onset: float, offset: float, inside: list[int]) -> None:
    found = inside_events(segment_times(20), np.array([[onset, offset]]))
    assert np.flatnonzero(found[:, 0]).tolist() == sorted(inside)


def test_an_event_of_no_class_is_refused(world: World, tmp_path: Path) -> None:
    clip = world.test[0].id
    (tmp_path / "sound.csv").write_text(f"clip,label,onset,offset,snr_db\n{clip},Cow,1.0,2.0,10.0\n")
    with pytest.raises(ValueError, match=f"clip {clip}: event 'Cow' is none of the 17 classes"):
        planted.planted_segments(replace(world.corpus, strong=tmp_path), [20] * len(world.corpus.clips))


def number(run: Run, system: str, metric: str, **wanted: str) -> Any:
    wanted = {"against": "", "label": "", "split": "test"} | wanted
    found = [row for row in run.rows if (row["system"], row["metric"]) == (system, metric)
             and all(row[name] == value for name, value in wanted.items())]  # fmt: skip
    assert len(found) == 1, (system, metric, wanted)
    return pd.Series(found[0])


def hit(right: np.ndarray, scores: np.ndarray) -> float:
    """Whether the best proposal is right, [proposals] each; shared where several are best."""
    best = [at for at, score in enumerate(scores) if score == max(scores)]
    return sum(bool(right[at]) for at in best) / len(best) if best else 0.0


@pytest.mark.parametrize(("question", "part"), [("segment_pointing", "segments"), ("region_overlap", "regions")])
def test_answers_and_their_references(world: World, made: Run, question: str, part: str) -> None:
    classes = world.corpus.classes
    values: dict[str, list[float]] = {}  # by system and reference
    by_class: dict[str, list[float]] = {label: [] for label in classes}
    reachable = []
    for clip in world.test:
        on_source, seen = world.regions(clip.id)
        right = world.sounds(clip.id) if part == "segments" else on_source
        sounding = world.sounding(clip.id)
        others = [k for k, label in enumerate(classes) if label not in sounding | seen | {*clip.labels}]
        for k, label in enumerate(classes):
            if label not in sounding or (part == "regions" and label not in seen):
                continue
            reachable.append(float(right[:, k].any()))
            values.setdefault("chance", []).append(float(right[:, k].mean()) if len(right) else 0.0)
            for name in (name for name, parts in PARTS.items() if part in parts):
                for seed in SEEDS:
                    located = Made(name, world).located(part, clip.id, Checkpoint(numbers={"seed": seed}))
                    values.setdefault(name, []).append(hit(right[:, k], located[:, k]))
                    borrowed = [hit(right[:, k], located[:, j]) for j in others]
                    values.setdefault(f"{name} others", []).append(float(np.mean(borrowed)))
                    if name == TWO:
                        by_class[label].append(values[name][-1])
    assert len(reachable) > 5
    means = {name: float(np.mean(found)) for name, found in values.items()}
    assert number(made, "chance", question)["value"] == pytest.approx(means["chance"])
    names = [name for name in means if name != "chance" and not name.endswith("others")]
    assert {row["system"] for row in made.rows if row["metric"] == question} - {"chance", "proposals"} == set(names)
    for name in names:
        own, control = number(made, name, question), number(made, name, question, label="other classes")
        assert own["value"] == pytest.approx(means[name]) and own["low"] <= own["value"] <= own["high"]
        assert control["value"] == pytest.approx(means[f"{name} others"])
        for reference, mean in (("chance", means["chance"]), ("other classes", means[f"{name} others"])):
            gain = number(made, name, question, against=reference)
            assert gain["value"] == pytest.approx(means[name] - mean)
    lead = number(made, TWO, question, against=ONE)
    assert lead["value"] == pytest.approx(means[TWO] - means[ONE]) and "paired" in lead["interval"]
    constant = number(made, ONE, question, against="other classes")  # the same for all classes, in every resample
    assert (constant["value"], constant["low"], constant["high"]) == pytest.approx((0, 0, 0), abs=1e-12)
    assert means[TWO] == pytest.approx(np.mean(reachable))  # it knows the truth
    assert number(made, TWO, question, against="other classes")["low"] > 0
    if part == "regions":
        assert number(made, "proposals", question)["value"] == pytest.approx(np.mean(reachable))
    for label, found in by_class.items() if part == "segments" else ():
        if found:
            assert number(made, TWO, question, label=label)["value"] == pytest.approx(np.mean(found))


def test_recall_by_gap(world: World, made: Run) -> None:
    """By the world's own files: when a sound begins, and when a source of it is first in view."""
    classes, bands = world.corpus.classes, (*planted.BANDS, planted.NEVER)
    pairs: dict[str, set[tuple[int, int]]] = {band: set() for band in bands}
    rows = {clip.id: row for row, clip in enumerate(world.corpus.clips)}
    for clip in world.test:
        for event in (one for one in world.events if one["clip"] == clip.id):
            frames = [frame for frame, label, _ in world.shown(clip.id) if label == event["label"]]
            gap = abs(min(frames) / FPS - float(event["onset"])) if frames else None
            band = bands[3] if gap is None else bands[0] if gap < 1 else bands[1] if gap < 3 else bands[2]
            pairs[band].add((rows[clip.id], classes.index(event["label"])))
    for band, asked in pairs.items():
        if not asked:
            continue
        recall = {}
        for name in (TWO, SYNC, SOUND):
            recall[name] = np.mean([decided(name, world, seed)[pair] for seed in SEEDS for pair in asked])
            assert number(made, name, "recall", label=band)["value"] == pytest.approx(recall[name])
        for name in (SYNC, SOUND):
            gain = number(made, TWO, "recall", label=band, against=name)
            assert gain["value"] == pytest.approx(recall[TWO] - recall[name])
    assert sum(len(asked) for asked in pairs.values()) > 10


def decided(name: str, world: World, seed: int, gap: float | None = None) -> np.ndarray:
    """Tags of all clips, with thresholds of the validation clips."""
    data = Data(world.corpus, Condition(profile="ci", seed=seed, gap=gap), None)  # type: ignore[arg-type]
    scores = Made(name, world).scores(Checkpoint(numbers={"seed": seed}), data, {}).astype(np.float32)
    held = data.rows("validation")
    return scores >= tune_thresholds(data.targets[held], scores[held], seed)


def test_the_growth_with_the_gap_is_a_difference_of_differences(world: World, made: Run) -> None:
    test = [row for row, clip in enumerate(world.corpus.clips) if clip.split == "test"]
    truth = world.corpus.targets()[test]

    def gain(other: str, gap: float, seed: int) -> float:
        f1 = [tagging_scores(truth, decided(name, world, seed, gap)[test]).f1 for name in (TWO, other)]
        return f1[0] - f1[1]

    expected = np.mean([gain(SYNC, 3.0, seed) - gain(SYNC, 0.0, seed) for seed in SEEDS])
    found = number(made, TWO, "micro_f1_growth", against=SYNC)
    assert found["value"] == pytest.approx(expected) and found["low"] < found["high"]
    same = number(made, TWO, "micro_f1_growth", against=SOUND)  # whose scores are the same in both worlds
    assert (same["value"], same["low"], same["high"]) == pytest.approx((0, 0, 0), abs=1e-12)


def test_times_apart(world: World, made: Run) -> None:
    """Of each label of a clip that has both: highest region and middle of the highest segment, by the clock."""
    apart, chance = [], []
    for clip in (one for one in world.test if world.segments[one.id] and len(world.boxes[one.id])):
        times = [k + 0.5 for k, rows in enumerate(world.boxes[clip.id]) for row in rows if not math.isnan(row[4])]
        middles = [0.48 * n + 0.48 for n in range(world.segments[clip.id])]
        for label, seed in itertools.product(clip.labels, SEEDS):
            best = []
            for part, when in (("regions", times), ("segments", middles)):
                located = Made(TWO, world).located(part, clip.id, Checkpoint(numbers={"seed": seed}))
                best.append(when[int(located[:, world.corpus.classes.index(label)].argmax())])
            apart.append(abs(best[0] - best[1]) >= 1)
            chance.append(np.mean([abs(a - b) >= 1 for a in times for b in middles]))
    assert number(made, TWO, "times_apart")["value"] == pytest.approx(np.mean(apart))
    assert number(made, "chance", "times_apart")["value"] == pytest.approx(np.mean(chance))


def test_examples_are_chosen_by_rule(world: World, made: Run) -> None:
    """Right tags with the highest scores, of the paper's classes; and, by the planted truth, sights that come late."""
    data, fitted = protocol.load(Condition(profile="ci")), protocol.fit(TWO, Condition(profile="ci"))
    scores, classes = protocol.scores(fitted, data), world.corpus.classes
    right = decided(TWO, world, 0) & world.corpus.targets()
    right[[clip.split != "test" for clip in world.corpus.clips]] = False
    found = examples.examples(fitted, data)
    wanted = [k for k in map(classes.index, examples.FIGURE_3) if right[:, k].any()]
    assert [one["label"] for one in found] == [classes[k] for k in wanted] and found
    for one, k in zip(found, wanted, strict=True):
        assert one["score"] == max(scores[right[:, k], k])
        assert len(one["times"]) == len(one["boxes"]) == len(one["region_scores"])
        assert len(one["segments"]) == len(one["segment_scores"]) == world.segments[one["clip"].id]
    for kind, one in examples.unsynchronised(fitted, data).items():
        frames = [frame for frame, label, _ in world.shown(one["clip"].id) if label == one["label"]]
        own = [event for event in world.events if (event["clip"], event["label"]) == (one["clip"].id, one["label"])]
        onset = min(float(event["onset"]) for event in own)
        assert one["sounding"][0][0] == pytest.approx(onset)
        assert "never" in kind if not frames else min(frames) / FPS >= onset + 1 and "after" in kind
        assert [span[0] for span in one["seen"]][:1] == ([pytest.approx(min(frames) / FPS)] if frames else [])
