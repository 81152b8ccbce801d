"""Clips cut out of longer videos, and whether a file is the clip that a list names (PyAV, FFmpeg)."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from avrepro.containers import STAMP, MediaError, decoded, open_container, pictures_of, require_track, start_of
from avrepro.encode import BITEXACT, BLOCK, add_audio, add_video, audio_block
from avrepro.media import GAP, MediaInfo, check_clip, probe

ROUNDED = 1.0  # s; the official lists give whole seconds, so a clip's last second may lack a part
PREROLL = 1.0  # s of sound decoded before a cut, so that the decoder has settled
CLOCK = 60_000  # Hz, time base of the pictures that are written; MPEG-4 takes no finer one than 1/65535 s
AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


class Unusable(Exception):
    """Why a clip cannot be had, as a status (see ``download.STATUSES``) and words."""

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
            video = add_video(container, fps, width, height)
            if video.codec_context.name == "libx264":
                video.options = {**video.options, "preset": "veryfast", "crf": "23"}
            context = video.codec_context
            context.time_base = Fraction(1, CLOCK)
            for name in ("color_range", "color_primaries", "color_trc", "colorspace"):
                setattr(context, name, getattr(stream.codec_context, name))
            audio = add_audio(container, rate, layout)
            written = 0
            lasting: dict[int, int] = {}  # time stamp of a picture -> how long it is on show
            for frame, began, ended in _pictures(origin, stream, start, end):
                picture = frame.reformat(width=width, height=height, format="yuv420p", threads=1)
                picture.pts, picture.time_base = round(began * CLOCK), Fraction(1, CLOCK)
                picture.pict_type = 0  # the encoder decides, not the source's pattern
                lasting[picture.pts] = round(ended * CLOCK) - picture.pts
                shown = ended
                _mux(container, video.encode(picture), lasting)
                while written < min(sound.shape[1], ended * rate):
                    container.mux(audio.encode(audio_block(sound, written, rate, layout)))
                    written += BLOCK
            _mux(container, video.encode(None), lasting)
            while written < sound.shape[1]:
                container.mux(audio.encode(audio_block(sound, written, rate, layout)))
                written += BLOCK
            container.mux(audio.encode(None))
    except av.FFmpegError as error:
        if error.errno == errno.ENOSPC:  # the fault of no clip
            raise OSError(error.errno, error.strerror, str(target)) from error
        raise MediaError(source, f"cannot be cut: {error}") from error
    for name, reached in (("sound", sound.shape[1] / rate), ("pictures", shown)):
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
    """Sound between start and end: float32 [channels, samples], its rate (Hz) and its layout of channels."""
    sound: np.ndarray | None = None
    position, rate, layout = -1, 0, ""
    with open_container(source) as container:
        stream = require_track(source, container, "audio")
        resampler: Any = None
        for frame in decoded(container, stream, max(0.0, start - PREROLL)):
            if frame.pts is None:
                continue
            stamp = float(frame.pts * frame.time_base) - start_of(container)
            if sound is None:
                rate = frame.sample_rate if frame.sample_rate in AAC_RATES else 48_000
                # some containers give a number of channels alone
                layout = {1: "mono", 2: "stereo"}.get(frame.layout.nb_channels, frame.layout.name)
                resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
                sound = np.zeros((frame.layout.nb_channels, round((end - start) * rate)), np.float32)
            if stamp > end + GAP:
                break
            due = round((stamp - start) * rate)
            if position < 0 or abs(due - position) > GAP * rate:  # smaller steps are rounding of the container
                position = due
            for piece in resampler.resample(frame):
                samples = piece.to_ndarray()
                first, last = max(position, 0), min(position + samples.shape[1], sound.shape[1])
                if last > first:
                    sound[:, first:last] = samples[:, first - position : last - position]
                position += samples.shape[1]
    if sound is None:
        raise MediaError(source, "the sound track holds nothing that can be decoded")
    return sound[:, : max(position, 0)], rate, layout
