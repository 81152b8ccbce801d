"""The chapter's numbers on the demo world, from made-up scores, against loops over clips and the planted truth."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from avrepro import corpora
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import Interval
from avrepro.experiments.parekh2018 import Inputs, Systems
from avrepro.experiments.parekh2018_evaluation import evaluate, guesses
from avrepro.experiments.parekh2018_training import Trained
from avrepro.models.parekh2018 import Bags, MILConfig, MILNetwork
from avrepro.parameters import UnsynchronizedMIL
from avrepro.results import Results
from avrepro.sampling import BalancedBatches

HEIGHT, WIDTH, FPS = 144, 192, 12  # of the demo world
HEARS = ("two_stream", "one_stream", "audio_only")
SEES = ("two_stream", "one_stream", "video_only", "wsddn")
SYSTEMS = ("two_stream", "one_stream", "audio_only", "video_only", "wsddn", "synchronous")
GAPS = ("0 to 1 s", "1 to 3 s", "3 s and more", "heard, not seen")
PER_FRAME = 4  # regions


@dataclass(frozen=True)
class Told:
    """Made-up systems, what was said of them, and the planted truth as it lies in the world's files."""

    inputs: Inputs
    systems: Systems
    more: dict[str, np.ndarray]
    results: Results
    events: list[dict[str, str]]
    sights: pd.DataFrame

    @property
    def test(self) -> list[tuple[int, Clip]]:
        return [(row, clip) for row, clip in enumerate(self.inputs.corpus.clips) if clip.split == "test"]

    def number(self, system: str, metric: str, label: str = "", split: str = "test") -> Interval:
        return self.results.number(system, metric, split, label)


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Of two boxes: left, top, right, bottom."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    common = max(wide, 0) * max(high, 0)
    return common / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common)


def shown(sights: pd.DataFrame, clip: str) -> Iterator[tuple[int, str, tuple[float, float, float, float]]]:
    """Frame, label and box (left, top, right, bottom, px) of what is well in view in a clip."""
    for sight in sights[sights["clip"] == clip].itertuples():
        if sight.visible >= 0.3:
            yield sight.frame, sight.label, (sight.x, sight.y, sight.x + sight.w, sight.y + sight.h)


def literal_regions(told: Told, row: int, clip: Clip, rule: str) -> tuple[np.ndarray, set[str]]:
    """Which regions of a clip are on a source of which class, [regions, classes]; and which are in view at all.

    Frame k of the boxes is on show at k + 0.5 s, which is picture 12 k + 6.
    """
    classes, right, in_view = told.inputs.corpus.classes, [], set()
    boxes = told.inputs.boxes[row]
    for second, of_frame in enumerate(() if boxes is None else boxes):
        there = [(label, box) for frame, label, box in shown(told.sights, clip.id) if frame == 12 * second + 6]
        in_view |= {label for label, _ in there if label in classes}
        for box in of_frame:
            if math.isnan(box[4]):
                continue
            region = (box[0] * WIDTH, box[1] * HEIGHT, box[2] * WIDTH, box[3] * HEIGHT)
            x, y = (region[0] + region[2]) / 2, (region[1] + region[3]) / 2
            on = np.zeros(len(classes), dtype=bool)
            for label, true in there:
                inside = true[0] <= x <= true[2] and true[1] <= y <= true[3]
                if label in classes and (iou(region, true) >= 0.5 if rule == "overlap" else inside):
                    on[classes.index(label)] = True
            right.append(on)
    return np.array(right).reshape(-1, len(classes)), in_view


def literal_segments(told: Told, row: int, clip: Clip) -> np.ndarray:
    """Which segments of a clip are half in an event of which class, or hold half of a short one."""
    classes = told.inputs.corpus.classes
    right = np.zeros((told.inputs.segments.sizes[row], len(classes)), dtype=bool)
    for event in told.events:
        onset, offset = float(event["onset"]), float(event["offset"])
        for number in range(len(right) if event["clip"] == clip.id else 0):
            common = min(offset, 0.48 * number + 0.96) - max(onset, 0.48 * number)
            if common > 0 and common >= min(0.96, offset - onset) / 2 - 1e-9:
                right[number, classes.index(event["label"])] = True
    return right


def heard(told: Told, clip: Clip) -> set[str]:
    return {event["label"] for event in told.events if event["clip"] == clip.id}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Told:
    """Systems on the demo world of CI: one that is told the truth, one without an opinion, others at random.

    Of the test clips the first has no pictures, the second no sound and the third six segments. A frame's regions
    are the true boxes of some objects, moved about or made smaller, and boxes anywhere.
    """
    corpus = corpora.load("demo", profile="ci")
    assert corpus.strong is not None
    with (corpus.strong / "sound.csv").open(newline="") as file:
        events = list(csv.DictReader(file))
    sights = pd.read_parquet(corpus.strong / "sight.parquet")
    rng = np.random.default_rng(0)
    first, second, third = [row for row, clip in enumerate(corpus.clips) if clip.split == "test"][:3]
    boxes: list[np.ndarray | None] = []
    for row, clip in enumerate(corpus.clips):
        frames = np.full((10, PER_FRAME, 5), np.nan, np.float32)
        well = list(shown(sights, clip.id)) if clip.split == "test" else []
        for k in range(10):
            there = [box for frame, _, box in well if frame == 12 * k + 6]
            for number in range(int(rng.integers(1, PER_FRAME + 1))):
                left, top = rng.uniform(0, WIDTH - 40), rng.uniform(0, HEIGHT - 40)
                box = np.array([left, top, left + rng.uniform(20, 40), top + rng.uniform(20, 40)])
                if there and rng.random() < 0.6:
                    true = np.array(there[int(rng.integers(len(there)))])
                    box = true + rng.uniform(-0.3, 0.3, 4) * np.tile(true[2:] - true[:2], 2)
                frames[k, number] = [*(box / [WIDTH, HEIGHT, WIDTH, HEIGHT]), rng.random()]
        boxes.append(None if row == first else frames)
    regions = [0 if rows is None else int((~np.isnan(rows[..., 4])).sum()) for rows in boxes]
    segments = [{second: 0, third: 6}.get(row, 20) for row in range(len(corpus.clips))]
    bags = [Bags.of([np.zeros((size, 1), np.float32) for size in sizes]) for sizes in (regions, segments)]
    given = UnsynchronizedMIL(profile="ci")
    inputs = Inputs(given, corpus, tuple(boxes), bags[0], bags[1], "made up", "made up", "made up", 0.25)
    bare = Told(inputs, Systems((), {}, {}, {}), {}, Results(pd.DataFrame()), events, sights)

    classes = corpus.classes
    made: dict[str, tuple[list[np.ndarray], list[np.ndarray]]] = {}
    for name in SYSTEMS[:5]:
        sizes = zip(regions, segments, strict=True)
        drawn = [[rng.normal(size=(count, len(classes))) for count in both] for both in sizes]
        made[name] = [one for one, _ in drawn], [one for _, one in drawn]
    for row, clip in bare.test:
        made["two_stream"][0][row][:] = literal_regions(bare, row, clip, "overlap")[0]
        made["two_stream"][1][row][:] = literal_segments(bare, row, clip)
        made["one_stream"][0][row][:] = made["one_stream"][1][row][:] = 0.25
    located = {
        name: {
            **({"regions": made[name][0]} if name in SEES else {}),
            **({"segments": made[name][1]} if name in HEARS else {}),
        }
        for name in SYSTEMS[:5]
    }
    located["synchronous"] = {"seconds": []}
    targets, scores, trained = corpus.targets(), {}, {}
    for number, name in enumerate(SYSTEMS):
        scores[name] = targets * 0.6 + rng.normal(0, 0.3 + 0.1 * number, targets.shape)
        config = MILConfig(classes=len(classes), region_features=1, segment_features=1, region_units=1, segment_units=1)
        thresholds = rng.uniform(0.2, 0.5, len(classes))
        trained[name] = Trained(name, MILNetwork(config), classes, thresholds, 10.0 + number, Path(name))
    systems = Systems(classes, trained, scores, located)
    more = {"cvssp_fusion": rng.random(targets.shape) < 0.3}
    folder = tmp_path_factory.mktemp("results")
    results = evaluate(inputs, systems, folder, ("sampling.py",), more)
    assert len(list(folder.glob("unsynchronized_mil-*.parquet"))) == 1
    return replace(bare, systems=systems, more=more, results=results)


# --- tags -------------------------------------------------------------------------------------------------


def test_scores_of_tags_are_counts(told: Told) -> None:
    corpus = told.inputs.corpus
    decided = {name: told.systems.scores[name] >= told.systems.trained[name].thresholds for name in SYSTEMS}
    decided |= told.more | {"class frequency": guesses(told.inputs)}
    for split in ("validation", "test"):
        f1 = {}
        for name, found in decided.items():
            counts = dict.fromkeys([*corpus.classes, ""], (0, 0, 0))
            for row, clip in enumerate(corpus.clips):
                for k, label in enumerate(corpus.classes):
                    if clip.split == split:
                        true, said = label in clip.labels, bool(found[row, k])
                        for key in (label, ""):
                            hits, wrong, missed = counts[key]
                            counts[key] = (
                                hits + (true and said),
                                wrong + (said and not true),
                                missed + (true and not said),
                            )
            scored = {label: (2 * h / (2 * h + w + m) if h + w + m else 0.0) for label, (h, w, m) in counts.items()}
            hits, wrong, missed = counts[""]
            f1[name] = scored.pop("")
            assert told.number(name, "micro_f1", split=split).value == pytest.approx(f1[name])
            precision = hits / (hits + wrong) if hits + wrong else 0.0
            assert told.number(name, "micro_precision", split=split).value == pytest.approx(precision)
            assert told.number(name, "micro_recall", split=split).value == pytest.approx(hits / (hits + missed))
            for label, value in scored.items():
                assert told.number(name, "class_f1", label, split).value == pytest.approx(value)
        for name, value in f1.items():
            if name != "two_stream":
                lead = told.number(name, "micro_f1_lead", split=split)
                assert lead.value == pytest.approx(f1["two_stream"] - value) and lead.low <= lead.value <= lead.high
                assert lead.method.startswith("paired")
    rules = told.results.select(metric=["micro_f1", "micro_f1_lead", "class_f1", "recall"])["threshold_rule"]
    assert set(rules) == {"tuned on validation, class by class (section 4)"}
    assert told.results.select(system="two_stream", metric="micro_f1_lead").empty


def test_guessing_says_the_same_of_every_clip(told: Told) -> None:
    """The best F1 on validation of all sets of classes that are the commonest in training."""
    said = guesses(told.inputs)
    assert (said == said[0]).all()
    corpus, targets = told.inputs.corpus, told.inputs.corpus.targets()
    frequency = targets[[clip.split == "train" for clip in corpus.clips]].mean(axis=0)
    held = targets[[clip.split == "validation" for clip in corpus.clips]]

    def f1(chosen: np.ndarray) -> float:
        return 2 * held[:, chosen].sum() / (len(held) * chosen.sum() + held.sum())

    assert f1(said[0]) >= max(f1(frequency >= least) for least in np.unique(frequency)) - 1e-12


def test_what_a_run_cost_and_drew(told: Told) -> None:
    corpus, rows = told.inputs.corpus, told.inputs.rows("train")
    targets = corpus.targets()[rows]
    batch = told.inputs.profile.batch
    drawn = np.zeros(len(corpus.classes))
    batches = BalancedBatches(targets, batch, 0)
    count = len(rows) // batch
    for number in range(count):
        for clip in batches[number]:
            drawn += targets[clip]
    for k, label in enumerate(corpus.classes):
        assert told.number("corpus", "positive_clips", label, "train").value == targets[:, k].sum()
        expected = drawn[k] * len(rows) / (count * batch)
        assert told.number("sampler", "positive_clips", label, "train").value == pytest.approx(expected)
    for number, name in enumerate(SYSTEMS):
        assert told.number(name, "training_seconds", split="").value == 10 + number
    assert told.number("corpus", "clips", split="").value == 60
    mean = np.mean([0 if rows is None else (~np.isnan(rows[..., 0])).sum() for rows in told.inputs.boxes])
    assert told.number("corpus", "regions_per_clip", split="").value == pytest.approx(mean)
    assert told.number("corpus", "segments_per_clip", split="").value == pytest.approx((58 * 20 + 6) / 60)
    assert told.number("features", "seconds_per_clip", split="").value == 0.25
    assert told.number("corpus", "peak_memory_mb", split="").value > 50
    passport = told.results.passport()
    assert (passport["chapter"], passport["corpus"], passport["profile"]) == ("unsynchronized_mil", "demo", "ci")
    assert json.loads(passport["parts"]) == ["sampling.py"] and json.loads(passport["parameters"])["edges"] == "made up"


def test_few_clips_have_no_scores(told: Told, tmp_path: Path) -> None:
    corpus = replace(told.inputs.corpus, name="folder", clips=told.inputs.corpus.clips[:3])
    bags = [bags.select(np.arange(3)) for bags in (told.inputs.regions, told.inputs.segments)]
    few = replace(told.inputs, corpus=corpus, boxes=told.inputs.boxes[:3], regions=bags[0], segments=bags[1])
    assert not few.trains
    table = evaluate(few, told.systems, tmp_path).table
    assert sorted(table["metric"]) == [
        "clips", "peak_memory_mb", "regions_per_clip", "seconds_per_clip", "segments_per_clip"]  # fmt: skip


def test_recall_by_gap(told: Told) -> None:
    """By the world's own files: when a sound begins, and when a source of it is first seen to a tenth at least."""
    classes, events = told.inputs.corpus.classes, dict.fromkeys(GAPS, 0)
    pairs: dict[str, set[tuple[int, int]]] = {name: set() for name in GAPS}
    for row, clip in told.test:
        for event in told.events:
            if event["clip"] != clip.id:
                continue
            own = told.sights[(told.sights["clip"] == clip.id) & (told.sights["label"] == event["label"])]
            frames = [sight.frame for sight in own.itertuples() if sight.visible >= 0.1]
            gap = abs(min(frames) / FPS - float(event["onset"])) if frames else None
            band = GAPS[3] if gap is None else GAPS[0] if gap < 1 else GAPS[1] if gap < 3 else GAPS[2]
            events[band] += 1
            pairs[band].add((row, classes.index(event["label"])))
    assert min(events.values()) > 0 and sum(events.values()) > 10
    for band in GAPS:
        assert told.number("corpus", "events", band).value == events[band]
        for name in ("two_stream", "synchronous", "audio_only"):
            scores, thresholds = told.systems.scores[name], told.systems.trained[name].thresholds
            found = [scores[row, k] >= thresholds[k] for row, k in pairs[band]]
            assert told.number(name, "recall", band).value == pytest.approx(np.mean(found))


# --- places -----------------------------------------------------------------------------------------------


def literal_pointing(right: list[np.ndarray], scores: list[np.ndarray], asked: list[tuple[int, int]]) -> list[float]:
    """Of each clip and class that is asked: whether the best proposal is right, shared where several are best."""
    hits = []
    for at, k in asked:
        best = [number for number, score in enumerate(scores[at][:, k]) if score == max(scores[at][:, k])]
        hits.append(sum(bool(right[at][number, k]) for number in best) / len(best) if best else 0.0)
    return hits


def check_pointing(told: Told, metric: str, modality: str, right: list[np.ndarray], asked: list[tuple[int, int]],
                   by_class: bool) -> None:  # fmt: skip
    values = {}
    for name in HEARS if modality == "segments" else SEES:
        scores = [told.systems.located[name][modality][row] for row, _ in told.test]
        values[name] = literal_pointing(right, scores, asked)
    values["chance"] = literal_pointing(right, [np.zeros(one.shape) for one in right], asked)
    for name, hits in values.items():
        number = told.number(name, metric)
        assert number.value == pytest.approx(np.mean(hits)) and number.low <= number.value <= number.high
        for k, label in enumerate(told.inputs.corpus.classes if by_class else ()):
            own = [hit for hit, (_, column) in zip(hits, asked, strict=True) if column == k]
            assert told.number(name, metric, label).value == pytest.approx(np.mean(own) if own else np.nan, nan_ok=True)
        if name != "chance":
            gain = told.number(name, f"{metric}_gain")
            assert gain.value == pytest.approx(np.mean(hits) - np.mean(values["chance"]))
        if name not in ("chance", "two_stream"):
            lead = told.number(name, f"{metric}_lead")
            assert lead.value == pytest.approx(np.mean(values["two_stream"]) - np.mean(hits))
            assert lead.method.startswith("paired")
    constant = told.number("one_stream", metric), told.number("one_stream", f"{metric}_gain")
    assert constant[0].value == pytest.approx(told.number("chance", metric).value)
    assert (constant[1].low, constant[1].high) == pytest.approx((0, 0), abs=1e-12)  # in every resample
    for missing in (f"{metric}_lead", f"{metric}_gain"):
        assert told.results.select(system="chance", metric=missing).empty
    assert told.results.select(system="two_stream", metric=f"{metric}_lead").empty


def test_pointing_at_sounds(told: Told) -> None:
    right = [literal_segments(told, row, clip) for row, clip in told.test]
    classes = told.inputs.corpus.classes
    asked = [
        (at, k)
        for at, (_, clip) in enumerate(told.test)
        for k, label in enumerate(classes)
        if label in heard(told, clip)
    ]
    check_pointing(told, "sound_pointing", "segments", right, asked, by_class=True)
    reached = np.mean([right[at][:, k].any() for at, k in asked])
    assert 0.5 < reached < 1  # the clip without sound, and events after the end of the short one
    assert told.number("two_stream", "sound_pointing").value == pytest.approx(reached)


@pytest.mark.parametrize(("metric", "rule"), [("sight_overlap", "overlap"), ("sight_pointing", "centre")])
def test_pointing_at_sights(told: Told, metric: str, rule: str) -> None:
    found = [literal_regions(told, row, clip, rule) for row, clip in told.test]
    right, in_view = [one for one, _ in found], [labels for _, labels in found]
    asked = [
        (at, k)
        for at, (_, clip) in enumerate(told.test)
        for k, label in enumerate(told.inputs.corpus.classes)
        if label in heard(told, clip) and label in in_view[at]
    ]
    assert len(asked) > 5
    check_pointing(told, metric, "regions", right, asked, by_class=False)
    reached = np.mean([right[at][:, k].any() for at, k in asked])
    if rule == "overlap":
        assert told.number("proposals", "sight_reachable").value == pytest.approx(reached)
        assert told.number("two_stream", metric).value == pytest.approx(reached)  # it is told the truth
        assert told.number("chance", metric).value < reached


def test_average_precision_of_segments(told: Told) -> None:
    right = np.concatenate([literal_segments(told, row, clip) for row, clip in told.test])
    classes = told.inputs.corpus.classes
    there = np.flatnonzero(right.any(axis=0))
    assert 5 < len(there) < len(classes)
    means = {"chance": right[:, there].mean()}
    for name in HEARS:
        scores = np.concatenate([told.systems.located[name]["segments"][row] for row, _ in told.test])
        values = [average_precision_score(right[:, k], scores[:, k]) for k in there]
        means[name] = float(np.mean(values))
        for k, value in zip(there, values, strict=True):
            assert told.number(name, "sound_ap", classes[k]).value == pytest.approx(value)
        assert told.number(name, "sound_ap").value == pytest.approx(means[name])
        assert told.number(name, "sound_ap_gain").value == pytest.approx(means[name] - means["chance"])
        if name != "two_stream":
            lead = told.number(name, "sound_ap_lead")
            assert lead.value == pytest.approx(means["two_stream"] - means[name]) and lead.low > 0
    for column, label in enumerate(classes):
        assert told.number("chance", "sound_ap", label).value == pytest.approx(right[:, column].mean())
        assert math.isnan(told.number("two_stream", "sound_ap", label).value) == (column not in there)
    assert told.number("chance", "sound_ap").value == pytest.approx(means["chance"])
    assert means["two_stream"] == 1 and means["one_stream"] == pytest.approx(means["chance"])


def test_only_systems_that_look_or_listen_are_told_of(told: Told) -> None:
    for metric, systems in {
        "sound_ap": HEARS,
        "sound_pointing": HEARS,
        "sight_overlap": SEES,
        "sight_pointing": SEES,
    }.items():
        assert set(told.results.select(metric=metric)["system"]) == {*systems, "chance"}
    assert set(told.results.select(metric=["sound_ap", "sight_overlap", "recall"])["split"]) == {"test"}


def test_other_corpora_are_not_asked_for_places(told: Told, tmp_path: Path) -> None:
    corpus: Corpus = replace(told.inputs.corpus, name="folder", strong=None)
    found = evaluate(replace(told.inputs, corpus=corpus), told.systems, tmp_path)
    assert set(found.table["metric"]) == {
        "clips", "regions_per_clip", "segments_per_clip", "seconds_per_clip", "micro_f1", "micro_precision", "class_f1",
        "micro_recall", "micro_f1_lead", "training_seconds", "positive_clips", "peak_memory_mb"}  # fmt: skip
