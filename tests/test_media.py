"""Decoding against planted truth: tones, clicks and flat frames in real files of many formats."""

from __future__ import annotations

import os
import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clip_files import encode, film, flat

from avrepro.encode import remux_clip, write_clip
from avrepro.media import MediaError, check_clip, probe, read_audio, read_frames, stream_digest

FORMATS = [  # suffix, video codec, sound codec, sample format, Hz, channels, frames/s
    ("mp4", "libx264", "aac", "fltp", 44100, "stereo", Fraction(30000, 1001)),
    ("mp4", "libx264", "aac", "fltp", 48000, "5.1", Fraction(25)),
    ("mkv", "libx264", "pcm_s16le", "s16", 16000, "stereo", Fraction(24000, 1001)),
    ("webm", "libvpx", "libopus", "flt", 48000, "stereo", Fraction(12)),
    ("avi", "mpeg4", "pcm_u8", "u8", 8000, "mono", Fraction(10)),
    ("mkv", "mpeg4", "libmp3lame", "fltp", 44100, "stereo", Fraction(25)),
]
CODED = 16 + 8 * np.arange(30)  # grey level of each frame: its index can be read back through any codec


def _tone_and_clicks(rate: int, seconds: float = 2.5) -> tuple[np.ndarray, tuple[float, ...]]:
    """A 440 Hz tone of amplitude 0.25 for a second, then short bursts at known times."""
    time = np.arange(round(seconds * rate)) / rate
    waveform = 0.25 * np.sin(2 * np.pi * 440 * time) * (time < 1.0)
    clicks = (1.3, 1.7, 2.2)
    for click in clicks:
        since = time - click
        waveform += np.where(since >= 0, 0.8 * np.exp(-since / 0.004) * np.sin(2 * np.pi * 1500 * since), 0)
    return waveform.astype(np.float32), clicks


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: f"{form[0]}-{form[1]}-{form[2]}-{form[4]}-{form[5]}")
def test_formats_keep_tones_clicks_and_frames(tmp_path: Path, form: tuple[Any, ...]) -> None:
    suffix, video, audio, fmt, rate, layout, fps = form
    path = tmp_path / f"clip.{suffix}"
    waveform, clicks = _tone_and_clicks(rate)
    encode(path, video, audio, fmt, rate, layout, fps, flat(CODED), waveform)

    info = probe(path)
    assert (info.sample_rate, info.width, info.height) == (rate, 64, 48)
    shown = 30 / float(fps)
    assert info.duration == pytest.approx(shown if suffix == "avi" else max(2.5, shown), abs=0.15)
    check_clip(path)

    for target in (20000, 16000):
        sound = read_audio(path, target, duration=3.0)
        assert sound.dtype == np.float32 and sound.shape == (3 * target,)
        tone = sound[round(0.1 * target) : round(0.9 * target)]
        level = 0.25 * (5 / 6 if layout == "5.1" else 1)  # AAC low-passes the subwoofer channel at 120 Hz
        level *= 0.95 if audio == "libmp3lame" else 1  # LAME takes 0.45 dB off against clipping
        window = np.hanning(len(tone))
        spectrum = np.abs(np.fft.rfft(tone * window, 8 * target))
        assert 2 * spectrum.max() / window.sum() == pytest.approx(level, rel=0.05)
        assert np.argmax(spectrum) / 8 == pytest.approx(440, abs=0.5)
        # where each burst sits: the lag at which it fits best to the one that was planted
        since = np.arange(round(0.02 * target)) / target
        burst = np.exp(-since / 0.004) * np.sin(2 * np.pi * 1500 * since)
        fit = np.correlate(sound, burst, "valid")
        for click in clicks:
            near = slice(round((click - 0.1) * target), round((click + 0.1) * target))
            assert (np.argmax(fit[near]) + near.start) / target == pytest.approx(click, abs=0.002)

    frames, times = read_frames(path, fps=float(fps))
    assert frames.dtype == np.uint8 and times.dtype == np.float64
    assert np.abs(frames.mean(axis=(1, 2, 3)) - CODED).max() < 4  # half of the distance between two frames
    np.testing.assert_allclose(times, np.arange(30) / float(fps), atol=1.5e-3)
    wanted = [-1.0, 0.0, 0.55 / float(fps), 7.5 / float(fps), 7.6 / float(fps), 20.01 / float(fps), 99.0]
    frames, _ = read_frames(path, wanted, size=(24, 20))
    assert frames.shape == (7, 24, 20, 3)
    assert np.abs(frames.mean(axis=(1, 2, 3)) - CODED[[0, 0, 0, 7, 7, 20, 29]]).max() < 4


def test_channels_are_averaged_and_duration_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "two.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="stereo", format="s16")
        samples = np.tile(np.array([[16384, -8192]], np.int16), (1, 4000))
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", "stereo")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    np.testing.assert_allclose(read_audio(path), np.full(4000, 0.125), atol=1e-6)
    assert len(read_audio(path, duration=0.3)) == 2400
    longer = read_audio(path, duration=0.75)
    assert len(longer) == 6000 and not longer[4000:].any()
    recorded = read_audio(path, 16000, duration=10.0, pad=False)  # cut, not padded: what was recorded
    np.testing.assert_array_equal(recorded, read_audio(path, 16000, duration=10.0)[:8000])


def test_late_sound_is_preceded_by_silence(tmp_path: Path) -> None:
    waveform, clicks = _tone_and_clicks(16000)
    sound = ("aac", "fltp", 16000, "mono")
    encode(tmp_path / "late.mp4", "libx264", *sound, Fraction(10), flat(CODED), waveform, delay=0.4)
    read = read_audio(tmp_path / "late.mp4", duration=3.0)
    assert np.abs(read[: round(0.3 * 16000)]).max() < 1e-3
    assert np.argmax(np.abs(read) > 0.4) / 16000 == pytest.approx(clicks[0] + 0.4, abs=0.003)


def test_variable_frame_rate(tmp_path: Path) -> None:
    stamps = [0, 40, 500, 540, 1700, 1750, 2500]
    path = tmp_path / "vfr.mkv"
    frames = flat(CODED[:7])
    encode(path, "libx264", None, "", 0, "", Fraction(25), frames, stamps=stamps)
    wanted = [0.0, 0.039, 0.04, 0.499, 0.5, 1.69, 1.72, 2.4, 2.5]
    got, times = read_frames(path, wanted)
    index = [0, 0, 1, 1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(times, np.array(stamps)[index] / 1000, atol=1e-3)
    assert np.abs(got.mean(axis=(1, 2, 3)) - CODED[index]).max() < 4


def test_written_clip_reads_back_and_is_the_same_every_time(tmp_path: Path) -> None:
    waveform, _ = _tone_and_clicks(32000)
    index, row, column = np.mgrid[:24, :48, :64]
    moving = [(column * 4 + 5 * index) % 256, (row * 5 + 2 * index) % 256, row * 0 + 9 * index]
    frames = np.stack(moving, axis=-1).astype(np.uint8)
    contents = set()
    for index in range(6):
        _ = [np.random.default_rng(index).random(20_000 * (index + 1)) for _ in range(9)]  # stir freed memory
        write_clip(tmp_path / "clip.mp4", frames, 12, waveform, 32000)
        contents.add((tmp_path / "clip.mp4").read_bytes())
    assert len(contents) == 1
    assert os.listdir(tmp_path) == ["clip.mp4"]
    check_clip(tmp_path / "clip.mp4")
    sound = read_audio(tmp_path / "clip.mp4", duration=2.5)
    assert np.corrcoef(sound, waveform)[0, 1] > 0.99
    got, times = read_frames(tmp_path / "clip.mp4", fps=12)
    np.testing.assert_allclose(times, np.arange(24) / 12, atol=1e-6)
    grey = np.abs(got.mean(axis=3) - frames.mean(axis=3)).mean(axis=(1, 2))
    assert grey.max() < 8
    colours = np.abs(got.mean(axis=(1, 2)) - frames.mean(axis=(1, 2)))
    assert colours.max() < 6


def test_remuxed_streams_keep_their_content(tmp_path: Path) -> None:
    one, other = film(tmp_path / "a.mp4"), film(tmp_path / "b.mp4", 700, 180)
    mixed = tmp_path / "mixed.mp4"
    remux_clip(mixed, audio_from=one, video_from=other)
    check_clip(mixed)
    assert stream_digest(mixed, "audio") == stream_digest(one, "audio") != stream_digest(other, "audio")
    assert stream_digest(mixed, "video") == stream_digest(other, "video") != stream_digest(one, "video")


@pytest.mark.parametrize("name", ["-i.mp4", "100%d%03d 鳥.mp4", "http:x.mp4"])
def test_odd_file_names(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    remux_clip(f"2{name}", film(Path(name)), name)
    check_clip(f"2{name}")
    assert probe(name).duration == pytest.approx(2, abs=0.1)


def test_unusable_files_say_why(tmp_path: Path) -> None:
    waveform, _ = _tone_and_clicks(16000)
    common = ("fltp", 16000, "mono", Fraction(12), flat(CODED), waveform)
    good = tmp_path / "good.mp4"
    shaken = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)  # most of the file
    encode(good, "libx264", "aac", *common)
    whole = good.read_bytes()

    def reason(name: str, content: bytes | None = None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError) as caught:
            check_clip(tmp_path / name)
        assert str(pickle.loads(pickle.dumps(caught.value))) == f"{tmp_path / name}: {caught.value.reason}"
        return caught.value.reason

    assert reason("none.mp4") == "no such file" and "empty" in reason("empty.mp4", b"")
    assert "no video file" in reason("text.mp4", b"clip,labels\nthis is no video\n" * 50)
    assert "truncated" in reason("no_index.mp4", whole[: len(whole) // 2])
    for name, video, audio in (("sound", "libx264", None), ("video", None, "aac")):
        encode(tmp_path / f"no {name}.mp4", video, audio, *common)
        assert reason(f"no {name}.mp4") == f"no {name} track"
    head = {"movflags": "faststart"}
    encode(tmp_path / "f.mp4", "libx264", "aac", *common[:4], shaken, waveform, container_options=head)
    encode(tmp_path / "f.avi", "mpeg4", "pcm_s16le", "s16", *common[1:4], shaken, waveform)
    for suffix, part in (("mp4", 2), ("avi", 3)):
        content = (tmp_path / f"f.{suffix}").read_bytes()
        assert reason(f"cut.{suffix}", content[: len(content) // part]).startswith("truncated")
    start = whole.index(b"mdat") + 4
    end = whole.index(b"moov") - 4
    assert "decoded" in reason("scrambled.mp4", whole[:start] + b"\xff" * (end - start) + whole[end:])
    encode(tmp_path / "nothing.mp4", "libx264", "aac", *common[:4], flat(CODED[:0]), waveform)
    assert "video track" in reason("nothing.mp4")
