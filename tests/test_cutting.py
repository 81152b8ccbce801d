"""Clips cut out of longer videos: pictures that carry their number and clicks at known times."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import video_server
from clip_files import encode, flat
from video_server import CLICKS, FPS, LENGTH, RATE, clicking, numbered, numbers

from avrepro.cutting import Unusable, cut
from avrepro.encode import write_clip
from avrepro.media import read_audio, read_frames

videos = video_server.videos


@pytest.mark.parametrize(
    ("start", "end"), [(0.0, 10.0), (20.0, 30.0), (20.04, 27.96)], ids=["first", "last", "between"]
)
def test_a_cut_has_the_listed_seconds(videos: Path, tmp_path: Path, start: float, end: float) -> None:
    cut(videos / "good.mp4", tmp_path / "cut.mp4", start, end)
    frames, times = read_frames(tmp_path / "cut.mp4", fps=FPS)
    # what was on show at start + k / fps is on show at k / fps
    expected = np.floor((start + np.arange(len(frames)) / FPS) * FPS + 1e-6).astype(int) % 26
    np.testing.assert_array_equal(numbers(frames), expected)
    assert len(frames) == pytest.approx((end - start) * FPS, abs=1)
    assert times[0] == 0
    waveform = read_audio(tmp_path / "cut.mp4")
    assert len(waveform) / RATE == pytest.approx(end - start, abs=1024 / RATE)  # AAC's blocks
    clicks = [click - start for click in CLICKS if start <= click < end]
    loud = np.flatnonzero(np.abs(waveform) > 0.3) / RATE
    assert loud.min() == pytest.approx(clicks[0], abs=0.002)
    assert loud.max() == pytest.approx(clicks[-1], abs=0.002)


@pytest.mark.parametrize("name", ["-1hDIl9Udkw_30.000_40.000.mp4", "2j4m7JsNtNA_30.000_40.000.mp4"])
def test_a_cut_of_a_real_recording_sounds_and_looks_as_it_did(mirror: Path, tmp_path: Path, name: str) -> None:
    source, start, seconds = mirror / "real_clips" / name, 3.2, 5.0
    cut(source, tmp_path / "cut.mp4", start, start + seconds)
    cut_out, whole = read_audio(tmp_path / "cut.mp4", duration=seconds), read_audio(source, 16000)
    there = whole[round(start * 16000) :][: len(cut_out)]
    assert np.corrcoef(cut_out, there)[0, 1] > 0.999
    times = np.arange(0.03, seconds - 0.1, 0.21)
    shown = read_frames(tmp_path / "cut.mp4", times)[0].astype(float)
    difference = shown - read_frames(source, times + start)[0]
    assert np.abs(difference).mean() < 4  # of 255; and no colour shifted
    assert np.abs(difference.mean(axis=(0, 1, 2))).max() < 1


FORMATS = [
    ("webm", "libvpx", "libopus", "flt", 48000, "stereo", 25),
    ("mkv", "mpeg4", "pcm_s16le", "s16", 6000, "mono", 12),
]


@pytest.mark.parametrize(("suffix", "video", "sound", "form", "rate", "layout", "fps"), FORMATS)
def test_cuts_of_other_formats(
    tmp_path: Path, suffix: str, video: str, sound: str, form: str, rate: int, layout: str, fps: int
) -> None:
    source, start, end, click, flash = tmp_path / f"video.{suffix}", 11.3, 15.3, 12.4, 13.7
    after = np.maximum(np.arange(20 * rate) - round(click * rate), 0)
    levels = np.where(np.arange(20 * fps) / fps >= flash, 235, 40)
    waveform = (0.5 * np.sin(after * 0.9)).astype(np.float32)
    encode(source, video, sound, form, rate, layout, Fraction(fps), flat(levels), waveform)
    cut(source, tmp_path / "cut.mp4", start, end)
    sounding = np.abs(read_audio(tmp_path / "cut.mp4", duration=end - start)) > 0.1
    out_rate = len(sounding) / (end - start)
    assert np.flatnonzero(sounding)[0] / out_rate == pytest.approx(click - start, abs=0.01)
    assert sounding[-int(0.05 * out_rate) :].any()
    frames, times = read_frames(tmp_path / "cut.mp4", fps=50)
    bright = frames.mean(axis=(1, 2, 3)) > 130
    assert times[bright][0] == pytest.approx(flash - start, abs=1 / fps + 0.002)
    assert len(frames) / 50 == pytest.approx(end - start, abs=0.04)


def test_pictures_that_end_before_the_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "video.mp4", numbered(8), FPS, clicking(LENGTH), RATE)
    with pytest.raises(Unusable, match=r"pictures end after 2\.0 s"):
        cut(tmp_path / "video.mp4", tmp_path / "cut.mp4", 6.0, 16.0)
