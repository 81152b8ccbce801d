"""The chapter on Parekh et al. (2018): what is kept of clips, what a second holds, what a training draws and keeps."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from avrepro.corpora.base import Clip, Corpus, CorpusError
from avrepro.encode import write_clip
from avrepro.evaluation import tagging_scores, tune_thresholds
from avrepro.experiments import parekh2018_training
from avrepro.experiments.parekh2018 import SYSTEMS, Inputs, Seconds, describe, load_inputs, proposals_of, run_systems
from avrepro.experiments.parekh2018_profiles import PROFILES, Profile
from avrepro.experiments.parekh2018_training import CheckpointError, Trained, load_trained, train
from avrepro.features.regions import Search, pool_regions
from avrepro.fetch import FetchError, fetch
from avrepro.home import home as home_of
from avrepro.media import read_frames
from avrepro.models.efficientnet import EfficientNetLite0
from avrepro.models.parekh2018 import BagFiles, Bags, MILConfig, root_mean_square
from avrepro.parameters import UnsynchronizedMIL
from avrepro.sampling import BalancedBatches

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
RATE = 16_000
CLASSES = ("horn", "rattle", "bark")
FEATURES: dict[str, object] = {"image": ["made up", [112, 144], 3], "audio": "made up"}
SHORT = replace(PROFILES["ci"], region_units=16, segment_units=16, batch=6, steps=4)


# --- bags -------------------------------------------------------------------------------------------------


def test_bags_of_some_clips_are_those_of_the_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(size, 4)).astype(np.float16) for size in (3, 0, 5, 1, 2)]
    paths = []
    for number, array in enumerate(arrays):
        paths.append(tmp_path / f"{number}.npy" if len(array) else None)
        if len(array):
            np.save(tmp_path / f"{number}.npy", array)
    chosen = Bags.of(BagFiles(tuple(paths), 4)).select(np.array([4, 1, 2]))
    again = chosen.select(np.array([2, 0]))
    for bags, rows in ((chosen, [4, 1, 2]), (again, [2, 4])):
        assert len(bags) == len(rows) and bags.features == 4
        for at, row in enumerate(rows):
            np.testing.assert_array_equal(bags.arrays[at], arrays[row])
            np.testing.assert_array_equal(bags[:][at][bags.mask[:][at]], arrays[row])


def test_root_mean_square_is_that_of_all_numbers() -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(3, 40, (size, 6)).astype(np.float16) for size in (4, 0, 1, 9)]
    everything = np.concatenate(arrays).astype(np.float64).ravel()
    assert root_mean_square(Bags.of(arrays)) == pytest.approx(np.sqrt(np.mean(everything**2)), rel=1e-12)
    assert root_mean_square(Bags.of([np.zeros((0, 6), np.float16)] * 3)) == 1.0
    many = Bags.of([np.full((2, 3), number, np.float32) for number in range(1001)])  # 200 of them stand for all
    assert root_mean_square(many) == pytest.approx(np.sqrt(np.mean(np.arange(1001.0) ** 2)), rel=0.01)


# --- seconds of the synchronous system --------------------------------------------------------------------


def literal_seconds(
    regions: list[list[np.ndarray]], segments: np.ndarray, scales: tuple[float, float], width: int
) -> list[np.ndarray]:
    """By the clock, in hundredths of a second: segment n is heard from 48 n to 48 n + 96.

    :param regions: of each frame, the features of its regions.
    """
    if len(segments):  # their sound ended after the last but one did, at the latest with the last: halfway, then
        latest = 48 * (len(segments) - 1) + 96
        count = math.ceil((latest - 24) / 100)
    else:
        count = len(regions)
    seconds = []
    for second in range(count):
        seen, heard = np.zeros(width), np.zeros(segments.shape[1])
        if regions:
            on_show = regions[second] if second < len(regions) else regions[-1]
            for feature in range(width):
                seen[feature] = max(region[feature] for region in on_show) / scales[0]
        overlapping = []
        for number, segment in enumerate(segments):
            ticks = range(48 * number, 48 * number + 96)
            if any(100 * second <= tick < 100 * (second + 1) for tick in ticks):
                overlapping.append(segment)
        for feature in range(segments.shape[1]):
            if overlapping:
                heard[feature] = sum(segment[feature] for segment in overlapping) / len(overlapping) / scales[1]
        seconds.append(np.concatenate([seen, heard]))
    return seconds


def test_seconds_hold_what_is_seen_and_heard_then() -> None:
    rng = np.random.default_rng(2)
    clips: dict[str, tuple[list[int], int]] = {  # regions of each frame, segments
        "whole": ([3, 1, 2, 3, 3, 1, 1, 2, 3, 3], 20),
        "still": ([2], 20),
        "pictures end first": ([1, 3, 2], 12),
        "sound ends first": ([2] * 10, 5),
        "one segment": ([1, 2], 1),
        "no pictures": ([], 9),
        "no sound": ([3, 1, 3, 2], 0),
    }
    width, scales, frames, boxes, regions, segments = 5, (2.5, 0.03125), [], [], [], []
    for counts, heard in clips.values():
        own = [rng.normal(0, 3, (count, width)).astype(np.float16) for count in counts]
        rows = np.full((len(counts), 3, 5), np.nan, np.float32)
        for frame, count in enumerate(counts):
            rows[frame, :count] = rng.random((count, 5))
        frames.append([[row.astype(float) for row in frame] for frame in own])
        boxes.append(rows if counts else None)
        regions.append(np.concatenate(own) if own else np.zeros((0, width), np.float16))
        segments.append(rng.normal(0, 0.05, (heard, 4)).astype(np.float16))
    seconds = Seconds(Bags.of(regions), Bags.of(segments), boxes, scales)
    assert seconds.features == 9 and len(seconds) == len(clips)
    assert seconds.sizes.tolist() == [10, 10, 6, 3, 1, 5, 4]
    for row, name in enumerate(clips):
        expected = literal_seconds(frames[row], segments[row].astype(float), scales, width)
        assert seconds[row].dtype == np.float32 and len(expected) == seconds.sizes[row], name
        np.testing.assert_allclose(seconds[row], np.array(expected), rtol=2e-3, atol=1e-6, err_msg=name)
    nothing = Seconds(Bags.of([np.zeros((0, 5))]), Bags.of([np.zeros((0, 4))]), [None], scales)
    assert nothing.sizes.tolist() == [0] and nothing[0].shape == (0, 9)


@pytest.mark.parametrize("segments", range(1, 21))
def test_seconds_of_the_sound(segments: int) -> None:
    bags = Bags.of([np.ones((segments, 1), np.float32)])
    size = int(Seconds(bags, bags, [None], (1.0, 1.0)).sizes[0])
    assert size == math.ceil((48 * (segments - 1) + 96 - 24) / 100)
    shortest, longest = 0.96 + 0.48 * (segments - 2), 0.96 + 0.48 * (segments - 1)  # s, of sounds with so many
    assert math.ceil(shortest) <= size <= math.ceil(longest)


def test_the_synchronous_system_scales_by_training_clips(toy: Toy) -> None:
    corpus, (regions, segments), inputs = toy.corpus, toy.bags, toy.inputs()
    none, seconds = proposals_of(inputs, "synchronous")
    assert none is None and seconds is not None and seconds.features == regions.features + segments.features
    there = [row for row, clip in enumerate(corpus.clips) if clip.split == "train"]
    scales = [
        np.sqrt(np.mean(np.concatenate([bags.arrays[row] for row in there]).astype(float) ** 2))
        for bags in (regions, segments)
    ]
    expected = Seconds(regions, segments, inputs.boxes, (scales[0], scales[1]))
    for row in range(len(corpus.clips)):
        np.testing.assert_allclose(seconds.arrays[row], expected[row], rtol=1e-5)
    for name, wanted in {
        "two_stream": (regions, segments),
        "one_stream": (regions, segments),
        "audio_only": (None, segments),
        "video_only": (regions, None),
        "wsddn": (regions, None),
    }.items():
        found = [one if one is None else one.arrays for one in proposals_of(inputs, name)]
        assert all(a is (None if b is None else b.arrays) for a, b in zip(found, wanted, strict=True)), name


# --- what is kept of clips --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home without features that knows the downloads of the usual one; or a skip that says what is missing."""
    try:
        fetch("yamnet")
    except FetchError as error:
        pytest.skip(f"the weights of YAMNet cannot be had: {error}")
    folder = tmp_path_factory.mktemp("home")
    if (home_of() / "downloads").is_dir():
        (folder / "downloads").symlink_to(home_of() / "downloads")
    return folder


def only(source: Path, kind: str, path: Path) -> None:
    """Copy one track of a clip."""
    with av.open(str(source)) as origin, av.open(str(path), "w") as made:
        stream: Any = getattr(origin.streams, kind)[0]
        target = made.add_stream_from_template(stream)
        for packet in origin.demux(stream):
            if packet.dts is not None:
                packet.stream = target
                made.mux(packet)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blocks of colour that jump once a second, over a tone that jumps with them; and what may be wrong with clips."""
    folder, rng = tmp_path_factory.mktemp("clips"), np.random.default_rng(3)
    for name, seconds in (("ten", 10), ("short", 3), ("long", 12), ("still", 4)):
        frames = np.full((4 * seconds if name != "still" else 1, 112, 144, 3), 90, np.uint8)
        for second in range(len(frames) // 4 + 1):
            x, y = rng.integers(10, 60, 2)
            frames[4 * second :, y : y + 40, x : x + 50] = rng.integers(0, 256, 3)
        time = np.arange(seconds * RATE) / RATE
        sound = 0.3 * np.sin(2 * np.pi * (300 + 200 * np.floor(time)) * time)
        write_clip(folder / f"{name}.mp4", frames, 4, sound.astype(np.float32), RATE)
    only(folder / "short.mp4", "audio", folder / "sound.mp4")
    only(folder / "ten.mp4", "video", folder / "pictures.mp4")
    (folder / "empty.mp4").touch()
    return folder


def corpus_of(clips: Path, names: list[str]) -> Corpus:
    """Clips of these files, in this order; their ids are longer than their files' names."""
    splits = ["train", "test", "train", "validation", "test", "test", "train"]
    listed = tuple(Clip(f"{name} clip", clips / f"{name}.mp4", splits[at], ()) for at, name in enumerate(names))
    return Corpus("toy", (), listed, (), "d")


def test_clips_keep_what_they_have(clips: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(weights))
    names = ["still", "long", "empty", "short", "sound", "gone", "ten"]
    inputs = describe(UnsynchronizedMIL(profile="ci"), corpus_of(clips, names))

    kept = [clip.id.removesuffix(" clip") for clip in inputs.corpus.clips]
    assert kept == ["still", "long", "short", "sound", "ten"]
    reasons = {clip.id: clip.reason for clip in inputs.corpus.missing}
    assert set(reasons) == {"empty clip", "gone clip"}
    assert "0 bytes" in reasons["empty clip"] and "no such file" in reasons["gone clip"]
    assert all(why.endswith("; its pictures cannot be used either") for why in reasons.values())
    # 10 s have 20 segments, and of longer sounds no more are heard; of 3 s the sixth, from 2.40 s, ends in silence
    assert inputs.segments.sizes.tolist() == [8, 20, 6, 6, 20]
    assert [0 if rows is None else len(rows) for rows in inputs.boxes] == [
        1,
        10,
        4,
        0,
        10,
    ]  # at 3.5 s the last picture of 3 s is on show, the one before it was at 2.5 s
    assert inputs.regions.sizes[3] == 0 and inputs.regions.sizes[[0, 1, 2, 4]].min() >= 1
    assert inputs.rows("train").tolist() == [0, 4] and inputs.rows("test").tolist() == [1, 3]
    assert inputs.rows("evaluation").tolist() == []
    assert inputs.seconds_per_clip > 0 and inputs.image_network == "efficientnet-lite0" and not inputs.trains
    assert inputs.segments.features == {"yamnet": 1024, "vggish": 128}[inputs.audio_network]
    np.testing.assert_array_equal(inputs.segments.arrays[2], inputs.segments.arrays[3])  # the same sound

    profile, network = PROFILES["ci"], EfficientNetLite0.pretrained(size=None)
    for row, clip in enumerate(inputs.corpus.clips):
        found, bag = inputs.proposals(row), inputs.regions.arrays[row]
        assert len(found.times) == len(found.boxes) == len(found.scores) == len(bag) == inputs.regions.sizes[row]
        if not len(bag):
            continue
        assert (found.boxes[:, 2:] > found.boxes[:, :2]).all() and 0 <= found.boxes.min() <= found.boxes.max() <= 1
        for number in {0, len(bag) // 2, len(bag) - 1}:  # a region by itself, looked at when it says
            frame = read_frames(clip.path, times=[found.times[number]], size=profile.image_size)[0]
            alone = np.array([[[*found.boxes[number], 1.0]]])
            expected = pool_regions(network, frame, alone, profile.pooled)[0]
            np.testing.assert_allclose(
                bag[number].astype(float), expected, rtol=5e-3, atol=5e-3 * np.abs(expected).max()
            )


def test_pictures_without_sound_are_kept(clips: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(weights))
    inputs = describe(UnsynchronizedMIL(profile="ci"), corpus_of(clips, ["pictures", "short", "ten"]))
    assert len(inputs.corpus.clips) == 3 and not inputs.corpus.missing
    assert inputs.segments.sizes.tolist() == [0, 6, 20] and inputs.segments.arrays[0].shape[0] == 0
    np.testing.assert_array_equal(inputs.regions.arrays[0], inputs.regions.arrays[2])  # the same pictures


def test_a_corpus_of_which_nothing_can_be_used(clips: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(weights))
    listed = tuple(Clip(name, clips / f"{name}.mp4", "train", ()) for name in ("empty", "gone"))
    with pytest.raises(CorpusError, match=r"(?s)no clip of toy can be used:\n  empty: .*0 bytes.*\n  gone: no such"):
        describe(UnsynchronizedMIL(profile="ci"), Corpus("toy", (), listed, (), "d"))


def test_clips_of_a_folder_with_one_track_keep_what_they_have(
    clips: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(weights))
    table = clips / "labels.csv"
    (clips / "empty.mp4").touch()
    rows = ("still,bark,train", "sound,horn,train", "pictures,horn,test", "short,horn|bark,test", "empty,bark,test")
    table.write_text("clip,labels,split\n" + "".join(f"{row.replace(',', '.mp4,', 1)}\n" for row in rows))
    inputs = load_inputs(UnsynchronizedMIL(profile="ci", corpus="folder", clips=str(clips), labels=str(table)))
    assert [clip.id for clip in inputs.corpus.clips] == ["still.mp4", "sound.mp4", "pictures.mp4", "short.mp4"]
    assert [clip.id for clip in inputs.corpus.missing] == ["empty.mp4"]
    assert inputs.corpus.classes == ("bark", "horn")
    assert inputs.segments.sizes[[0, 2, 3]].tolist() == [8, 0, 6] and inputs.segments.sizes[1] > 0
    assert inputs.regions.sizes[1] == 0 and inputs.regions.sizes[2] > 0


# --- training ---------------------------------------------------------------------------------------------


class Noted:
    """Bags that note which of them were read."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays, self.read = arrays, list[int]()

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, row: int) -> np.ndarray:
        self.read.append(row)
        return self.arrays[row]


class Toy:
    """Clips whose classes are each in one region and in one segment, 8 standard deviations high; two of three train."""

    def __init__(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        labels = rng.random((count, len(CLASSES))) < 0.35
        self.noted, self.boxes = [], list[np.ndarray | None]()
        for width in (12, 8):
            arrays = []
            for clip in range(count):
                bag = rng.normal(0, 0.5, (int(rng.integers(4, 13)), width))
                chosen = np.flatnonzero(labels[clip])
                bag[rng.permutation(len(bag))[: len(chosen)], chosen] += 4
                arrays.append(bag.astype(np.float32))
            self.noted.append(Noted(arrays))
        for bag in self.noted[0].arrays:  # two regions a frame, one in the last where their number is odd
            rows = np.full((-(-len(bag) // 2), 2, 5), np.nan, np.float32)
            rows.reshape(-1, 5)[: len(bag)] = 0.5
            self.boxes.append(rows)
        split = ["train", "validation", "train", "test"]
        self.corpus = Corpus(
            "toy",
            CLASSES,
            tuple(
                Clip(f"{at}", Path(f"{at}.mp4"), split[at % 4], tuple(np.array(CLASSES)[row].tolist()))
                for at, row in enumerate(labels)
            ),
            (),
            f"toy {seed}",
        )

    @property
    def bags(self) -> tuple[Bags, Bags]:
        regions, segments = (Bags(n, np.array([len(a) for a in n.arrays]), n.arrays[0].shape[1]) for n in self.noted)
        return regions, segments

    def inputs(self, **parameters: Any) -> Inputs:
        given = UnsynchronizedMIL(profile="ci", **parameters)
        return Inputs(given, self.corpus, tuple(self.boxes), *self.bags, "made up", "made up", "made up", 0.0)

    def train(self, name: str = "two_stream", profile: Profile = SHORT, seed: int = 0, **changes: Any) -> Trained:
        regions, segments = self.bags
        system = "audio_only" if name == "synchronous" else name
        bags = (
            None if system == "audio_only" else regions,
            None if system in ("video_only", "wsddn") else segments,
        )
        sizes = {"region_units": profile.region_units, "segment_units": profile.segment_units, "dropout": 0.2}
        config = MILConfig(system, len(CLASSES), 12, 8, **sizes)  # type: ignore[arg-type]
        given = {"corpus": self.corpus, "features": FEATURES, **changes}
        return train(name, config, given["corpus"], bags, profile, seed, CPU, given["features"])

    def rows(self, split: str) -> np.ndarray:
        return np.array([row for row, clip in enumerate(self.corpus.clips) if clip.split == split])


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    return Toy(160, 0)


def test_the_sampler_decides_what_is_trained_on(toy: Toy) -> None:
    """Each step is a whole batch of the sampler, each batch is taken once, and the test clips are never read."""
    toy.train(profile=replace(SHORT, scaled=False, steps=5))
    rows = toy.rows("train")
    batches = BalancedBatches(toy.corpus.targets()[rows], 6, 0)
    expected = Counter(tuple(rows[batches[number]].tolist()) for number in range(5))
    taken = []
    for noted in toy.noted:
        assert noted.read[30:] == toy.rows("validation").tolist()  # for the thresholds, at the end
        taken.append([tuple(noted.read[start : start + 6]) for start in range(0, 30, 6)])
    assert Counter(taken[0]) == expected and taken[0] == taken[1]


@pytest.mark.parametrize("name", SYSTEMS)
def test_planted_classes_are_learnt(toy: Toy, name: str) -> None:
    """On other clips, with the tuned thresholds, more than half of the way from saying every class to all right."""
    trained = toy.train(name, replace(SHORT, batch=24, steps=150, learning_rate=5e-3))
    regions, segments = toy.bags
    scores = trained.scores(regions, segments, CPU)
    assert scores.shape == (160, 3) and trained.classes == CLASSES and trained.system == name and trained.seconds > 0
    held_out = toy.rows("test")
    truth = toy.corpus.targets()[held_out]
    guessed = tagging_scores(truth, np.ones_like(truth)).f1
    assert tagging_scores(truth, scores[held_out] >= trained.thresholds).f1 > (1 + guessed) / 2
    located = trained.located(regions, segments, CPU)
    looks, listens = name not in ("audio_only", "synchronous"), name not in ("video_only", "wsddn")
    names = {"regions": looks, "segments": listens and name != "synchronous", "seconds": name == "synchronous"}
    assert set(located) == {modality for modality, there in names.items() if there}
    assert all([len(one) for one in found] == (regions if modality == "regions" else segments).sizes.tolist()
               for modality, found in located.items())  # fmt: skip


def test_thresholds_are_tuned_on_validation_clips(toy: Toy) -> None:
    trained = toy.train(profile=replace(SHORT, steps=20), seed=7)
    rows, (regions, segments) = toy.rows("validation"), toy.bags
    scores = trained.scores(regions.select(rows), segments.select(rows), CPU)
    expected = tune_thresholds(toy.corpus.targets()[rows], scores, 7)
    np.testing.assert_allclose(trained.thresholds, expected, rtol=1e-6)
    assert np.isfinite(expected).any()


def test_the_same_training_is_found_again(toy: Toy) -> None:
    first = toy.train()
    written, scores = first.path.stat().st_mtime_ns, first.scores(*toy.bags, CPU)
    for noted in toy.noted:
        noted.read.clear()
    again = toy.train()
    assert (again.path, again.path.stat().st_mtime_ns, again.seconds) == (first.path, written, first.seconds)
    assert not any(noted.read for noted in toy.noted)
    np.testing.assert_array_equal(again.scores(*toy.bags, CPU), scores)
    np.testing.assert_array_equal(again.thresholds, first.thresholds)
    first.path.unlink()
    np.testing.assert_array_equal(toy.train().scores(*toy.bags, CPU), scores)  # a seed decides all

    clips = toy.corpus.clips
    relabelled = replace(toy.corpus, clips=(replace(clips[0], labels=CLASSES[: 3 - len(clips[0].labels)]), *clips[1:]))
    assert relabelled.targets().tolist() != toy.corpus.targets().tolist()
    others = [
        toy.train(seed=1),
        toy.train(corpus=relabelled),
        toy.train(profile=replace(SHORT, steps=3)),
        toy.train(profile=replace(SHORT, search=Search(boxes=5))),
        toy.train(features={**FEATURES, "audio": "other"}),
        toy.train("one_stream"),
        toy.train("wsddn"),
    ]
    assert len({first.path, *(one.path for one in others)}) == 8
    assert not np.array_equal(others[0].scores(*toy.bags, CPU), scores)


def test_the_scale_of_features_is_kept_with_the_weights(toy: Toy) -> None:
    rows = toy.rows("train")
    for scaled in (True, False):
        trained = toy.train(profile=replace(SHORT, scaled=scaled))
        kept = torch.load(trained.path, weights_only=True)["weights"]
        for name, noted in zip(("regions", "segments"), toy.noted, strict=True):
            features = np.concatenate([noted.arrays[row] for row in rows]).astype(float)
            expected = np.sqrt(np.mean(features**2)) if scaled else 1.0
            assert float(kept[f"{name}.scale"]) == pytest.approx(expected, rel=1e-6)
            assert float(getattr(trained.network, name).scale) == pytest.approx(expected, rel=1e-6)


def test_a_checkpoint_knows_its_features(toy: Toy, tmp_path: Path) -> None:
    path = toy.train().path
    assert load_trained(path, {"audio": "made up", "image": ("made up", (112, 144), 3)}).classes == CLASSES
    with pytest.raises(
        CheckpointError, match=r"trained on features .*made up.*this run's are .*other.*profile"
    ) as told:
        load_trained(path, {**FEATURES, "audio": "other"})
    assert str(told.value).startswith(str(path))

    text = tmp_path / "notes.pt"
    text.write_text("to be done")
    kept = torch.load(path, weights_only=True)
    spoilt = {
        "weights.pt": {"weights": kept["weights"]},
        "list.pt": [1, 2],
        "class less.pt": {**kept, "classes": list(CLASSES[:2])},
        "other size.pt": {**kept, "config": {**kept["config"], "region_units": 5}},
    }
    for name, content in spoilt.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "cut.pt").write_bytes(path.read_bytes()[:2000])
    for name in ("notes.pt", "cut.pt", "missing.pt", *spoilt):
        with pytest.raises(
            CheckpointError, match=r"(?s)expected a checkpoint.*`avrepro run unsynchronized_mil`"
        ) as told:
            load_trained(tmp_path / name, FEATURES)
        assert str(told.value).startswith(str(tmp_path / name))


# --- all systems ------------------------------------------------------------------------------------------


def test_systems_score_every_clip_and_few_clips_take_a_checkpoint(toy: Toy) -> None:
    whole = toy.inputs()
    assert whole.trains
    systems = run_systems(whole, ("two_stream", "video_only", "synchronous"))
    assert set(systems.trained) == set(systems.scores) == set(systems.located) == {
        "two_stream", "video_only", "synchronous"}  # fmt: skip
    assert systems.classes == CLASSES and all(scores.shape == (160, 3) for scores in systems.scores.values())
    assert {name: set(found) for name, found in systems.located.items()} == {
        "two_stream": {"regions", "segments"}, "video_only": {"regions"}, "synchronous": {"seconds"}}  # fmt: skip
    seconds = proposals_of(whole, "synchronous")[1]
    assert seconds is not None
    assert [len(one) for one in systems.located["synchronous"]["seconds"]] == seconds.sizes.tolist()
    trained = systems.trained["video_only"].network.config
    assert (trained.region_units, trained.segment_units, trained.region_features) == (128, 128, 12)
    together = systems.trained["synchronous"].network.config  # as many numbers a proposal as both streams have
    assert (together.system, together.segment_units, together.segment_features) == ("audio_only", 256, 20)

    few = Toy(5, 1)
    path = str(systems.trained["video_only"].path)
    own = few.inputs(corpus="folder", clips="here", labels="there", checkpoint=path, system="video_only")
    assert not own.trains
    own = replace(own, corpus=replace(own.corpus, classes=("other", "classes", "of", "theirs")))
    found = run_systems(own)
    assert (
        set(found.trained) == {"video_only"} and found.classes == CLASSES and found.scores["video_only"].shape == (5, 3)
    )
    expected = systems.trained["video_only"].scores(few.bags[0], None, CPU)
    np.testing.assert_array_equal(found.scores["video_only"], expected)
    with_another = replace(own, audio_network="other")
    with pytest.raises(CheckpointError, match="Use its profile"):
        run_systems(with_another)


def test_what_a_checkpoint_depends_on_is_there() -> None:
    package = Path(parekh2018_training.__file__).parents[1]
    assert all((package / part).is_file() for part in parekh2018_training.CODE)
