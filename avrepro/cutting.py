"""Clips cut out of longer videos, and whether a file is the clip that a list names (PyAV, FFmpeg)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr

from avrepro.containers import STAMP, MediaError, open_container, pictures_of, require_track
from avrepro.encode import BITEXACT, add_audio, add_video, mux_sound
from avrepro.media import MediaInfo, check_clip, probe, read_sound

ROUNDED = 1.0  # s; the official lists give whole seconds, so a clip's last second may lack a part
CLOCK = 60_000  # Hz, time base of the pictures that are written
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


class Unusable(Exception):
    """Why a clip cannot be had, as a status (see ``download.Status``) and words."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(status, reason)
        self.status, self.reason = status, reason


def examine(path: Path, seconds: float) -> float:
    """The length (s) of a clip that should last ``seconds``. Raises Unusable, or MediaError where it is damaged."""
    info = _sound_and_pictures(path, path)
    if info.duration < seconds - ROUNDED:
        raise Unusable("too short", f"lasts {info.duration:.1f} s, listed with {seconds:.1f} s")
    if info.duration > 2 * seconds + ROUNDED:
        text = f"lasts {info.duration:.1f} s, listed with {seconds:.1f} s: a whole video? cut it to the listed seconds"
        raise Unusable("error", text)
    check_clip(path)
    return info.duration


def cut(source: Path, target: Path, start: float, end: float, sound_from: Path | None = None) -> None:
    """Write seconds ``start`` to ``end`` of a video as an mp4 (H.264 and AAC), without decoding what lies before.

    ``sound_from`` holds the sound where ``source`` does not. Sound is cut to the sample; pictures keep their times
    and size, and the one on show at ``start`` is the first. Raises Unusable and MediaError.
    """
    sound_from = sound_from or source
    info = _sound_and_pictures(source, sound_from)
    if info.duration < end - ROUNDED:
        raise Unusable("too short", f"the video lasts {info.duration:.1f} s, the clip ends at {end:.1f} s")
    sound, rate, layout = _sound(sound_from, start, end)
    shown = 0.0
    try:
        with (
            open_container(source) as origin,
            av.open(f"file:{target}", "w", format="mp4", options=BITEXACT) as container,
        ):
            stream = require_track(source, origin, "video")
            fps = Fraction(stream.average_rate or stream.guessed_rate or 25).limit_denominator(1001)
            width, height = info.width - info.width % 2, info.height - info.height % 2
            video = add_video(container, fps, width, height, preset="veryfast", crf="23")
            context = video.codec_context
            context.time_base = Fraction(1, CLOCK)
            for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
                setattr(context, name, getattr(stream.codec_context, name))
            audio = add_audio(container, rate, layout)
            length, written = sound.shape[1], 0
            lasting: dict[int, int] = {}  # time stamp of a picture -> how long it is on show
            for frame, began, ended in _pictures(origin, stream, start, end):
                picture = frame.reformat(width=width, height=height, format="yuv420p", threads=1)
                picture.pts, picture.time_base = round(began * CLOCK), Fraction(1, CLOCK)
                picture.pict_type = 0  # the encoder decides, not the source's pattern
                lasting[picture.pts] = round(ended * CLOCK) - picture.pts
                shown = ended
                _mux(container, video.encode(picture), lasting)
                written = mux_sound(container, audio, sound, written, min(length, round(ended * rate)))
            _mux(container, video.encode(None), lasting)
            mux_sound(container, audio, sound, written, length)
            container.mux(audio.encode(None))
    except av.FFmpegError as error:
        if error.errno == errno.ENOSPC:  # the fault of no clip
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise MediaError(source, f"cannot be cut: {error}") from error
    for name, reached in (("sound", length / rate), ("pictures", shown)):
        if reached < end - start - ROUNDED:
            raise Unusable("too short", f"the {name} end after {reached:.1f} s of {end - start:.1f} s")


def _sound_and_pictures(pictures: Path, sound: Path) -> MediaInfo:
    info = probe(pictures)
    if not probe(sound).sample_rate:
        raise Unusable("no sound track", "the video has no sound track")
    if not info.width:
        raise Unusable("no picture", "the video has no pictures")
    return info


def _mux(container: Any, packets: list[Any], lasting: dict[int, int]) -> None:
    for packet in packets:
        # without this the last picture would last as long as the mean one does
        packet.duration = lasting[round(packet.pts * packet.time_base * CLOCK)]
        container.mux(packet)


def _pictures(container: Any, stream: Any, start: float, end: float) -> Iterator[tuple[Any, float, float]]:
    """Frames on show between start and end, each with when it appears and goes, in s from ``start``."""
    for frame, began, ended, _ in pictures_of(container, stream, start):
        if began - start > end - start - STAMP:
            return
        if ended - start > STAMP:
            yield frame, max(began - start, 0.0), min(ended - start, end - start)


def _sound(source: Path, start: float, end: float) -> tuple[np.ndarray, int, str]:
    """Sound between start and end as AAC can have it: float32 [channels, samples], its rate (Hz) and its layout."""
    sound, rate, layout = read_sound(source, start, end)
    if rate not in AAC_RATES:
        sound, rate = soxr.resample(sound.T, rate, 48_000, quality="HQ").T, 48_000
    # some containers give a number of channels alone
    return sound[:, : round((end - start) * rate)], rate, {1: "mono", 2: "stereo"}.get(len(sound), layout)
