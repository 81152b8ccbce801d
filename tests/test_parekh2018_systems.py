"""The systems of Parekh et al. (2018) on made-up features: bags, training, fusion, impairments, settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from avrepro.conditions import Condition
from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import tagging_scores, tune_thresholds
from avrepro.features.bags import Bags, root_mean_square
from avrepro.features.segments import Seconds
from avrepro.features.store import ClipArrays, Feature
from avrepro.manifests import manifest_path
from avrepro.models.gated_crnn import GatedCRNNConfig
from avrepro.systems import SYSTEMS, Checkpoint, CheckpointError, Data
from avrepro.systems.parekh2018 import PAPER, PROFILES, ROWS, TABLE_1
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = ("horn", "rattle", "bark")
TINY = GatedCRNNConfig(channels=(4, 8), pool_time=(2, 2), pool_mel=(8, 2), features=12, hidden=6)
LEARNING: dict[str, Any] = {
    "region_units": 16,
    "segment_units": 16,
    "optimisation": Optimisation("adam", 5e-3, batch=24, epochs=1, steps=150),
    "gated_crnn": TINY,
    "gated_crnn_optimisation": Optimisation("adam", 1e-2, batch=12, epochs=1, steps=60),
}
SHORT = {**LEARNING, "optimisation": Optimisation("adam", 1e-3, batch=6, epochs=2, steps=2)}
SHORT["gated_crnn_optimisation"] = Optimisation("adam", 1e-3, batch=6, epochs=1, steps=2)
MIL_ROWS = [system.name for system in ROWS if "cvssp" not in system.name]


class Toy(Data):
    """Clips each of whose classes is in one region, one segment and a tenth of the spectrogram, 8 deviations high."""

    def __init__(self, count: int = 160, seed: int = 0, options: dict[str, Any] = LEARNING, impaired: str = "") -> None:
        rng = np.random.default_rng(seed)
        labels = rng.random((count, len(CLASSES))) < 0.35
        split = ["train", "validation", "train", "test"]
        clips = [
            Clip(f"{at}", Path(f"{at}.mp4"), split[at % 4], tuple(np.array(CLASSES)[row].tolist()))
            for at, row in enumerate(labels)
        ]
        condition = Condition("paired", "ci", device="cpu", options=tuple(options.items()))
        super().__init__(Corpus("toy", CLASSES, tuple(clips), (), "d"), condition, torch.device("cpu"), impaired)
        self.made: dict[str, list[np.ndarray]] = {name: [] for name in ("regions", "segments", "proposals", "log-mel")}
        for row in labels:
            for name, width in (("regions", 12), ("segments", 8)):
                bag = rng.normal(0, 0.5, (int(rng.integers(4, 13)), width))
                bag[rng.permutation(len(bag))[: row.sum()], np.flatnonzero(row)] += 4
                self.made[name].append(bag.astype(np.float32))
            boxes = np.full((-(-len(self.made["regions"][-1]) // 2), 2, 5), np.nan, np.float32)
            boxes.reshape(-1, 5)[: len(self.made["regions"][-1])] = 0.5  # two regions a frame; in the last one or two
            self.made["proposals"].append(boxes)
            log_mel = rng.normal(-6, 1, (40, 64))
            for k in np.flatnonzero(row):
                start = rng.integers(0, 36)
                log_mel[start : start + 4, 16 * k : 16 * k + 16] += 6
            self.made["log-mel"].append(log_mel.astype(np.float32))

    def arrays(self, feature: Feature) -> ClipArrays:
        items = self.made[feature.recipe.name.split("/")[0]]
        here = self.impaired != {"audio": "silent", "video": "black"}[feature.stream]
        return ClipArrays(tuple(item if here else item[:0] for item in items), np.full(len(items), here))

    def fit(self, name: str, seed: int = 0, given: dict[str, np.ndarray] | None = None) -> Checkpoint:
        state = Path("state.partial")
        checkpoint = SYSTEMS[name].fit(self, given or {}, seed, state)
        state.unlink(missing_ok=True)  # as the protocol does it
        return checkpoint

    def scores(self, name: str, checkpoint: Checkpoint, given: dict[str, np.ndarray] | None = None) -> np.ndarray:
        return SYSTEMS[name].scores(checkpoint, self, given or {})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("AVREPRO_MIRROR", raising=False)
    monkeypatch.chdir(tmp_path)


def test_bags_are_padded_to_the_longest_of_the_batch(tmp_path: Path) -> None:
    arrays = [np.full((size, 3), size, np.float16) for size in (2, 0, 5, 1)]
    paths = [tmp_path / f"{number}.npy" for number in range(4)]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    files = ClipArrays((paths[0], arrays[1], *paths[2:]), np.array([True, False, True, True]))
    for bags in (Bags.of(arrays), Bags.of(files)):
        assert len(bags) == len(bags.mask) == 4 and bags.sizes.tolist() == [2, 0, 5, 1] and bags.features == 3
        for chosen, rows in ((bags, np.array([3, 0])), (bags.select(np.array([0, 1, 3])), np.array([2, 0]))):
            features, mask = chosen[rows], chosen.mask[rows]
            assert features.shape == (2, 2, 3) and features.dtype == np.float16
            assert features[:, :, 0].tolist() == [[1, 0], [2, 2]] and mask.tolist() == [[True, False], [True, True]]
        assert bags[1:3].shape == (2, 5, 3) and bags.mask[1:3].sum(axis=1).tolist() == [0, 5]
        assert bags[np.array([1])].shape == (1, 1, 3) and bags.mask[np.array([1])].tolist() == [[False]]


def test_root_mean_square_is_that_of_all_numbers() -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(3, 40, (size, 6)).astype(np.float16) for size in (4, 0, 1, 9)]
    everything = np.concatenate(arrays).astype(np.float64)
    assert root_mean_square(Bags.of(arrays)) == pytest.approx(np.sqrt(np.mean(everything**2)), rel=1e-12)
    assert root_mean_square(Bags.of([np.zeros((0, 6), np.float16)] * 3)) == 1.0
    many = Bags.of([np.full((2, 3), number, np.float32) for number in range(1001)])  # 200 of them stand for all
    assert root_mean_square(many) == pytest.approx(np.sqrt(np.mean(np.arange(1001.0) ** 2)), rel=0.01)


def literal_seconds(frames: list[list[np.ndarray]], segments: np.ndarray, scales: tuple[float, float]) -> list:
    """By the clock, in hundredths of a second: segment n lasts from 48 n to 48 n + 96.

    :param frames: of each frame, in the order in which they are shown, the features of its regions.
    """
    if len(segments):  # their sound ended after the last but one did, at the latest with the last: halfway, then
        count = math.ceil((48 * (len(segments) - 1) + 96 - 24) / 100)
    else:
        count = len(frames)
    seconds = []
    for second in range(count):
        seen = np.zeros(5)
        if frames:
            seen = np.max(frames[min(second, len(frames) - 1)], axis=0) / scales[1]
        overlapping = [
            segment
            for number, segment in enumerate(segments)
            if any(100 * second <= tick < 100 * (second + 1) for tick in range(48 * number, 48 * number + 96))
        ]
        sound = np.mean(overlapping, axis=0) / scales[0] if overlapping else np.zeros(4)
        seconds.append(np.concatenate([seen, sound]))
    return seconds


@pytest.mark.parametrize("delay", [0, 3])
def test_seconds_hold_the_frame_and_the_sound_of_then(delay: int) -> None:
    rng = np.random.default_rng(2)
    clips: dict[str, tuple[list[int], int, int]] = {  # regions of each frame, segments, seconds
        "whole": ([3, 1, 2, 3, 3, 1, 1, 2, 3, 3], 20, 10),
        "still": ([2], 20, 10),
        "pictures end first": ([1, 3, 2], 12, 6),
        "sound ends first": ([2] * 10, 5, 3),
        "one segment": ([1, 2], 1, 1),
        "no pictures": ([], 9, 5),
        "no sound": ([3, 1, 3, 2], 0, 4),
        "nothing": ([], 0, 0),
    }
    scales, frames, boxes, regions, segments = (0.03125, 2.5), [], [], [], []
    for counts, sound, _ in clips.values():
        own = [rng.normal(0, 3, (count, 5)).astype(np.float16) for count in counts]
        rows = np.full((len(counts), 3, 5), np.nan, np.float32)
        for frame, count in enumerate(counts):
            rows[frame, :count] = rng.random((count, 5))
        frames.append([own[(frame - delay) % len(own)].astype(float) for frame in range(len(own))])
        boxes.append(rows)
        regions.append(np.concatenate(own) if own else np.zeros((0, 5), np.float16))
        segments.append(rng.normal(0, 0.05, (sound, 4)).astype(np.float16))
    bags = Bags.of(segments)
    seconds = Seconds(bags, Bags.of(regions), Bags.of(boxes), scales, delay)
    alone = Seconds(bags, None, None, scales[:1], delay)
    assert seconds.features == 9 and alone.features == 4 and len(seconds) == len(alone) == len(clips)
    assert seconds.sizes.tolist() == [size for *_, size in clips.values()]
    for row, name in enumerate(clips):
        expected = np.array(literal_seconds(frames[row], segments[row].astype(float), scales)).reshape(-1, 9)
        np.testing.assert_allclose(seconds[row], expected, rtol=2e-3, atol=1e-6, err_msg=name)
        if len(segments[row]):
            np.testing.assert_array_equal(alone[row], seconds[row][:, 5:])
    assert alone.sizes.tolist() == [10, 10, 6, 3, 1, 5, 0, 0]


# --- training ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [system.name for system in ROWS])
def test_planted_classes_are_learnt(name: str) -> None:
    """On other clips, with thresholds of validation clips: more than half of the way from tagging all to all right."""
    toy = Toy()
    first = "parekh2018/cvssp_gated_crnn"
    given = {first: toy.scores(first, toy.fit(first))} if name == "parekh2018/cvssp_fusion" else {}
    checkpoint = toy.fit(name, 0, given)
    checkpoint.save(Path("trained.pt"))
    scores = toy.scores(name, checkpoint, given)
    assert scores.shape == (160, 3) and scores.dtype == np.float32
    np.testing.assert_array_equal(toy.scores(name, Checkpoint.load(Path("trained.pt")), given), scores)
    held, test = toy.rows("validation"), toy.rows("test")
    thresholds = tune_thresholds(toy.targets[held], scores[held], 0)
    guessed = tagging_scores(toy.targets[test], np.ones_like(toy.targets[test])).f1
    assert tagging_scores(toy.targets[test], scores[test] >= thresholds).f1 > (1 + guessed) / 2
    if SYSTEMS[name].probabilities:
        assert scores.min() >= 0 and scores.max() <= 1
    assert checkpoint.parameters == sum(v.numel() for k, v in checkpoint.state.items() if is_trained(k))
    assert checkpoint.seconds > 0 and len(checkpoint.history) == 1


def is_trained(name: str) -> bool:
    """Whether an entry of a state is trained by gradient: no scale of inputs, no running mean."""
    return name.rpartition(".")[2] not in {
        "scale", "mean", "deviation", "running_mean", "running_var", "num_batches_tracked"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["parekh2018/two_stream", "parekh2018/synchronous", "parekh2018/cvssp_gated_crnn"])
def test_a_seed_and_the_training_clips_decide_all(name: str) -> None:
    def state(change: Callable[[Toy], None] = lambda toy: None, seed: int = 0) -> dict[str, torch.Tensor]:
        toy = Toy(options=SHORT)
        change(toy)
        return toy.fit(name, seed).state

    def other_features(split: str) -> Callable[[Toy], None]:
        def change(toy: Toy) -> None:
            for row, made in itertools.product(toy.rows(split), toy.made.values()):
                made[row] = made[row] + 1
            toy.targets[toy.rows(split)] ^= True

        return change

    first = state()
    for same in (state(), state(other_features("test")), state(other_features("validation"))):
        assert all(torch.equal(first[key], same[key]) for key in first)
    for other in (state(seed=1), state(other_features("train"))):
        assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", MIL_ROWS)
def test_features_are_scaled_by_those_of_the_training_clips(name: str) -> None:
    for scaled in (True, False):
        toy = Toy(options={**SHORT, "scaled": scaled})
        checkpoint = toy.fit(name)
        rows = toy.rows("train")
        squares = {
            part: np.sqrt(np.mean(np.concatenate([toy.made[part][row] for row in rows]).astype(float) ** 2))
            for part in ("regions", "segments")
        }
        if "synchronous" in name:
            assert checkpoint.numbers["scales"] == pytest.approx(
                [squares["segments"], *([squares["regions"]] if name == "parekh2018/synchronous" else [])], rel=1e-6
            )
            continue
        for part, expected in squares.items():
            if f"{part}.scale" in checkpoint.state:
                assert float(checkpoint.state[f"{part}.scale"]) == pytest.approx(expected if scaled else 1.0, rel=1e-6)


def test_the_fusion_is_the_mean_of_networks_of_other_seeds() -> None:
    toy, first, fusion = Toy(options=SHORT), "parekh2018/cvssp_gated_crnn", "parekh2018/cvssp_fusion"
    members = [toy.scores(first, toy.fit(first, seed)) for seed in (4, 1004, 2004)]
    assert not np.array_equal(members[0], members[1]) and not np.array_equal(members[1], members[2])
    given = {first: members[0]}
    found = toy.scores(fusion, toy.fit(fusion, 4, given), given)
    np.testing.assert_allclose(found, sum(members) / 3, rtol=1e-6)


# --- scoring ----------------------------------------------------------------------------------------------


def test_impaired_clips() -> None:
    """Without a modality two streams are the other stream; late pictures matter to the synchronous system alone."""
    toy, worse = Toy(options=SHORT), {how: Toy(options=SHORT, impaired=how) for how in ("silent", "black", "delay 3 s")}
    trained = {name: toy.fit(name) for name in MIL_ROWS}
    whole = {name: toy.scores(name, one) for name, one in trained.items()}
    found = {(name, how): one.scores(name, trained[name]) for how, one in worse.items() for name in MIL_ROWS}
    for how in ("silent", "black"):  # scores of one modality alone are of length 1
        norms = np.linalg.norm(found["parekh2018/two_stream", how], axis=1)
        np.testing.assert_allclose(norms, 1, rtol=1e-5)
    both = found["parekh2018/two_stream", "silent"] + found["parekh2018/two_stream", "black"]
    np.testing.assert_allclose(both, whole["parekh2018/two_stream"], atol=1e-6)
    assert (found["parekh2018/audio_only", "silent"] == 0).all()
    for name in MIL_ROWS:
        np.testing.assert_array_equal(
            np.array_equal(found[name, "delay 3 s"], whole[name]), name != "parekh2018/synchronous", err_msg=name
        )
        blind = name in ("parekh2018/audio_only", "parekh2018/synchronous_audio_only")
        assert np.array_equal(found[name, "black"], whole[name]) == blind, name


@pytest.mark.parametrize("name", MIL_ROWS)
def test_localisation_has_a_score_for_each_proposal(name: str) -> None:
    toy = Toy(options=SHORT)
    system, checkpoint = SYSTEMS[name], toy.fit(name)
    located = system.localisation(checkpoint, toy)  # type: ignore[attr-defined]
    if "synchronous" in name:
        assert set(located) == {"seconds"}
        sizes = [math.ceil((48 * (len(bag) - 1) + 72) / 100) for bag in toy.made["segments"]]
        assert [one.shape for one in located["seconds"]] == [(size, 3) for size in sizes]
        return
    names = {"audio": "segments", "video": "regions"}
    assert set(located) == {names[one] for one in system.modalities}
    for part, found in located.items():
        assert [one.shape for one in found] == [(len(bag), 3) for bag in toy.made[part]]
    if name == "parekh2018/two_stream_without_l2":  # D, whose sums over both modalities' proposals are the scores
        sums = [sum(found[row].sum(axis=0) for found in located.values()) for row in range(160)]
        np.testing.assert_allclose(toy.scores(name, checkpoint), np.array(sums), rtol=1e-4, atol=1e-5)


def test_clips_described_by_other_features_are_refused() -> None:
    checkpoint = Toy(options=SHORT).fit("parekh2018/two_stream")
    with pytest.raises(CheckpointError, match=r"parekh2018/two_stream: trained on other features \(regions\)"):
        Toy(options={**SHORT, "pooled": 2}).scores("parekh2018/two_stream", checkpoint)


# --- settings ---------------------------------------------------------------------------------------------


def test_the_papers_settings_and_rows() -> None:
    paper = yaml.safe_load(manifest_path("published/parekh2018.yaml").read_text(encoding="utf-8"))
    known = {name: one.get("value") for name, one in paper["settings"].items()}
    assert PAPER.optimisation.steps * PAPER.optimisation.epochs == known["steps"]
    assert (PAPER.optimisation.learning_rate, PAPER.optimisation.batch) == (known["learning_rate"], known["batch"])
    assert PAPER.optimisation == Optimisation("adam", 1e-5, 24, 25, 1000)  # and nothing besides: no decay, no clipping
    assert PAPER.search.boxes == known["boxes_per_frame"]
    assert (PAPER.region_units, PAPER.segment_units) == (4096, known["audio_layer_units"])
    assert (PAPER.image_network, PAPER.audio_networks, PAPER.scaled) == ("caffenet", ("vggish",), False)
    condition = Condition(profile="paper", device="cpu")
    features = SYSTEMS["parekh2018/two_stream"].features(condition)
    widths = {name: features[name].nothing().shape[1] for name in ("regions", "segments")}
    assert widths == {"regions": known["region_features"], "segments": known["segment_features"]}
    rows = {f"parekh2018/{name}": row for name, row in paper["table1"].items() if name != "where"}
    assert set(TABLE_1) == set(rows)
    assert all((SYSTEMS[n].title, SYSTEMS[n].place[-2]) == (row["name"], row["letter"]) for n, row in rows.items())


def test_what_the_recipes_depend_on() -> None:
    def key(name: str, **options: Any) -> str:
        condition = Condition(profile="ci", device="cpu", options=tuple(options.items()))
        return SYSTEMS[name].recipe(condition).key

    names = [system.name for system in ROWS]
    assert len({key(name) for name in names}) == len(names)
    longer = replace(PROFILES["ci"].optimisation, steps=9)
    for name in names:
        mil = name in MIL_ROWS
        assert (key(name, optimisation=longer) != key(name)) == mil
        assert (key(name, gated_crnn=TINY) != key(name)) != mil
        assert (key(name, pooled=2) != key(name)) == ("video" in SYSTEMS[name].modalities)
        dry = SYSTEMS[name].settings(Condition(profile="paper", device="cpu", dry=True))
        assert {(o["epochs"], o["steps"]) for o in map(asdict, (dry.optimisation, dry.gated_crnn_optimisation))} == {
            (1, 2)
        }
