"""The systems of Parekh et al. (2018): bags, seconds, scales, members of the fusion, impaired clips, places."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from toy_clips import Toy, short

from avrepro.features.bags import Bags, root_mean_square
from avrepro.features.segments import Seconds
from avrepro.features.store import ClipArrays
from avrepro.systems import SYSTEMS, CheckpointError
from avrepro.systems.parekh2018 import ROWS

pytestmark = pytest.mark.usefixtures("one_thread")

SHORT = short("parekh2018/two_stream")
MIL_ROWS = [system.name for system in ROWS if "cvssp" not in system.name]


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


@pytest.mark.parametrize("name", MIL_ROWS)
def test_features_are_scaled_by_those_of_the_training_clips(name: str) -> None:
    for scaled in (True, False):
        toy = Toy({**SHORT, "scaled": scaled})
        checkpoint, rows = toy.fit(name), toy.rows("train")
        squares = {
            part: np.sqrt(np.mean(np.concatenate([toy.made[part][row] for row in rows]).astype(float) ** 2))
            for part in ("segments", "regions")
        }
        if "synchronous" in name:
            expected = [*squares.values()] if name == "parekh2018/synchronous" else [squares["segments"]]
            assert checkpoint.numbers["scales"] == pytest.approx(expected, rel=1e-6)
            continue
        for part, square in squares.items():
            if f"{part}.scale" in checkpoint.state:
                assert float(checkpoint.state[f"{part}.scale"]) == pytest.approx(square if scaled else 1.0, rel=1e-6)


def test_the_fusion_is_the_mean_of_networks_of_other_seeds() -> None:
    toy, first, fusion = Toy(SHORT), SYSTEMS["parekh2018/cvssp_gated_crnn"], SYSTEMS["parekh2018/cvssp_fusion"]
    members = [toy.scores(first.name, toy.fit(first.name, seed)) for seed in (4, 1004, 2004)]
    assert not np.array_equal(members[0], members[1]) and not np.array_equal(members[1], members[2])
    given = {first.name: members[0]}
    found = fusion.scores(fusion.fit(toy, given, 4, Path("state.partial")), toy, given)
    np.testing.assert_allclose(found, sum(members) / 3, rtol=1e-6)


def test_impaired_clips() -> None:
    """Without a modality two streams are the other stream; late pictures matter to the synchronous system alone."""
    toy, worse = Toy(SHORT), {how: Toy(SHORT, impaired=how) for how in ("silent", "black", "delay 3 s")}
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
        on_time = name != "parekh2018/synchronous"
        assert np.array_equal(found[name, "delay 3 s"], whole[name]) == on_time, name
        assert np.array_equal(found[name, "black"], whole[name]) == ("audio_only" in name), name


@pytest.mark.parametrize("name", MIL_ROWS)
def test_localisation_has_a_score_for_each_proposal(name: str) -> None:
    toy = Toy(SHORT)
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
    checkpoint = Toy(SHORT).fit("parekh2018/two_stream")
    with pytest.raises(CheckpointError, match=r"parekh2018/two_stream: trained on other features \(regions\)"):
        Toy({**SHORT, "pooled": 2}).scores("parekh2018/two_stream", checkpoint)
