"""The feature store: once a stream, on disk, in the corpus's order; a clip that fails has the feature of nothing."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from clip_files import film

from avrepro.corpora.base import Clip, Corpus
from avrepro.encode import remux_clip
from avrepro.features.store import ClipArrays, Feature, _ahead, extract
from avrepro.media import MediaError, read_audio, read_frames
from avrepro.recipes import Recipe

RATE = 8000
pytestmark = pytest.mark.usefixtures("home")


def corpus_of(paths: list[Path]) -> Corpus:
    clips = tuple(Clip(path.name, path, "train", ()) for path in paths)
    return Corpus("toy", ("a",), clips, (), "d")


class Counting:
    """A feature that counts how often it is computed: the loudest frequency of a clip's sound, or the mean grey."""

    def __init__(self, stream: Literal["audio", "video"] = "audio", version: int = 1) -> None:
        self.computed = 0
        read = (lambda clip: read_audio(clip.path, RATE)) if stream == "audio" else frames_of
        recipe = Recipe(f"counting/{stream}", version)
        self.feature = Feature(recipe, stream, read, self.compute, lambda: np.array([-100.0]))

    def compute(self, decoded: np.ndarray) -> np.ndarray:
        self.computed += 1
        if self.feature.stream == "video":
            return np.array([decoded.mean()])
        return np.array([np.abs(np.fft.rfft(decoded)).argmax() * RATE / len(decoded)])


def frames_of(clip: Clip) -> np.ndarray:
    return read_frames(clip.path, fps=12)[0]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    names = ("e", "-a b", "d", "ü", "c")
    return [film(folder / f"{name}.mp4", 500 + 200 * k, 40 + 40 * k, seconds=0.5) for k, name in enumerate(names)]


def test_each_clip_is_computed_once(clips: list[Path], home: Path) -> None:
    counting, corpus = Counting(), corpus_of(clips)
    arrays = extract(counting.feature, corpus)
    assert arrays.present.all() and len(arrays) == 5
    np.testing.assert_allclose(arrays[:][:, 0], 500 + 200 * np.arange(5), atol=25)
    backwards = extract(counting.feature, corpus_of(clips[::-1]))
    assert counting.computed == 5 and backwards.items == arrays.items[::-1]
    assert all(isinstance(path, Path) and path.is_relative_to(home) for path in arrays.items)
    renewed = Counting(version=2)
    assert not set(extract(renewed.feature, corpus).items) & set(arrays.items) and renewed.computed == 5


def test_a_feature_may_build_on_another(clips: list[Path]) -> None:
    base = Counting()
    recipe = Recipe("twice", 1, parts=(base.feature.recipe,))
    feature = Feature(
        recipe, "audio", lambda clip, used: used, lambda one: 2 * one, lambda: np.zeros(1), (base.feature,)
    )
    found = extract(feature, corpus_of(clips))
    np.testing.assert_allclose(found[:][:, 0], 2 * extract(base.feature, corpus_of(clips))[:][:, 0])
    np.testing.assert_array_equal(feature.of(corpus_of(clips).clips[3]), found[3])


def test_a_changed_file_is_computed_anew(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    counting = Counting()
    for tone in (700, 1500, 700):
        film(path, tone, seconds=0.5)
        assert abs(extract(counting.feature, corpus_of([path]))[0][0] - tone) < 25
    assert counting.computed == 2  # the first sound came back


def test_clips_with_the_same_stream_share_its_feature(clips: list[Path], tmp_path: Path) -> None:
    """The sound of one with the pictures of another: no new sound, whether in one corpus or in two."""
    mixed = tmp_path / "mixed.mp4"
    remux_clip(mixed, audio_from=clips[0], video_from=clips[1])
    sound, pictures = Counting("audio"), Counting("video")
    audio, video = (extract(one.feature, corpus_of([*clips, mixed])) for one in (sound, pictures))
    assert sound.computed == pictures.computed == 5
    assert audio.items[5] == audio.items[0] and video.items[5] == video.items[1]
    np.testing.assert_allclose(video[:][:, 0], [40, 80, 120, 160, 200, 80], atol=4)
    extract(sound.feature, corpus_of([mixed]))
    assert sound.computed == 5


def test_clips_that_fail_have_the_feature_of_nothing(
    clips: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that do not open, one that is gone, and one of which what is needed does not decode."""
    counting = Counting()

    def read(clip: Clip) -> np.ndarray:
        if clip.path == clips[2]:
            raise MediaError(clip.path, "nothing of it decodes")
        return counting.feature.read(clip)

    truncated, empty, gone = (tmp_path / name for name in ("truncated.mp4", "empty.mp4", "gone.mp4"))
    truncated.write_bytes(clips[0].read_bytes()[:900])
    empty.touch()
    feature = Feature(Recipe("failing", 1), "audio", read, counting.compute, lambda: np.array([-100.0]))
    found = extract(feature, corpus_of([truncated, clips[3], empty, clips[2], gone, clips[0]]))
    assert found.present.tolist() == [False, True, False, False, False, True]
    np.testing.assert_allclose(found[:][:, 0], [-100, 1100, -100, -100, -100, 500], atol=25)
    printed = capsys.readouterr().err
    reasons = {"truncated": "", "empty": ".*0 bytes", "d": "nothing of it decodes", "gone": "No such"}
    for name, reason in reasons.items():
        assert re.search(rf"clip {name}\.mp4 has no usable audio: {reason}", printed)
    np.testing.assert_array_equal(found.select(np.array([0, 1])).present, [False, True])


def test_an_error_of_the_code_is_no_missing_clip(clips: list[Path], home: Path) -> None:
    def broken(decoded: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError("a mistake in the code")

    feature = Feature(Recipe("broken", 1), "audio", Counting().feature.read, broken, lambda: np.zeros(1))
    with pytest.raises(ZeroDivisionError):
        extract(feature, corpus_of(clips))
    assert not [path for path in home.rglob("*") if path.is_file()]  # nothing half done stays


def test_few_clips_are_decoded_ahead() -> None:
    """Decoding is quick and computing slow: memory holds a bounded number of decoded clips."""
    begun: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        for number, decoded in enumerate(_ahead(pool, lambda row: begun.append(row) or row, range(40), 8)):
            assert decoded == number < len(begun) <= number + 9
            time.sleep(0.002)
    assert len(begun) == 40


def test_arrays_are_read_by_row(tmp_path: Path) -> None:
    whole = np.arange(24, dtype=np.float16).reshape(4, 3, 2)
    paths = tuple(tmp_path / f"{row}.npy" for row in range(4))
    for path, array in zip(paths, whole, strict=True):
        np.save(path, array)
    arrays = ClipArrays(paths, np.ones(4, bool))
    indices: list[Any] = [2, np.int64(1), -1, slice(1, 3), [3, 0], whole[:, 0, 0] > 7]
    for rows in indices:
        np.testing.assert_array_equal(arrays[rows], whole[rows])
        assert arrays[rows].dtype == np.float16
    assert [array[0, 0] for array in arrays] == [0, 6, 12, 18]
