"""Clips as files: sound and frames read, files checked and digested (PyAV, FFmpeg).

Sound and frames are placed by their time stamps, so encoder priming, edit lists and streams that begin late leave
them in step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soxr
from av.video.reformatter import Interpolation, VideoReformatter

from avrepro.containers import (
    NAME,
    STAMP,
    AnyPath,
    Kind,
    MediaError,
    decoded,
    find_track,
    open_container,
    packets_of,
    pictures_of,
    require_track,
    stamp_of,
    start_of,
)

GAP = 0.05  # s; a jump in the sound's time stamps beyond this is silence, below it is rounding of the container
PREROLL = 1.0  # s of sound decoded before what is wanted, so that the decoder has settled
LOOKAHEAD = 0.1  # s of sound decoded after it, for a resampler
ENDING = 0.5  # s; by how much a stream may end before its container says so
EXACT = Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # the same RGB on every processor


@dataclass(frozen=True)
class MediaInfo:
    """What a container says of itself; 0 where it says nothing or has no such track."""

    duration: float  # s; avi states that of its pictures alone
    sample_rate: int  # Hz
    width: int  # px
    height: int  # px


def probe(path: AnyPath) -> MediaInfo:
    """Length, sound and picture format of a file, from its headers. Raises MediaError."""
    with open_container(path) as container:
        audio, video = find_track(container, "audio"), find_track(container, "video")
        duration = _claimed(container)
        if duration is None:  # live recordings leave it out of the header
            duration = max(_ends(container).values(), default=0.0)
        return MediaInfo(
            duration=duration,
            sample_rate=audio.codec_context.sample_rate if audio else 0,
            width=video.codec_context.width if video else 0,
            height=video.codec_context.height if video else 0,
        )


def check_clip(path: AnyPath) -> None:
    """Raise MediaError unless a file has sound and pictures that decode and reach to where it says they end."""
    with open_container(path) as container:
        lacking = [NAME[kind] for kind in ("audio", "video") if find_track(container, kind) is None]
        if lacking:
            raise MediaError(path, " and ".join(f"no {name} track" for name in lacking))
        _check_complete(path, container)
    read_audio(path)
    read_frames(path, times=[0.0])


def read_audio(
    path: AnyPath, sample_rate: int | None = None, duration: float | None = None, pad: bool = True
) -> np.ndarray:
    """The sound of a clip, float32 [samples] mono (the mean of its channels), full scale at +-1.

    sample_rate: Hz of the result; by default the recording's own. Resampled by soxr's HQ recipe
        (linear phase; flat to about 0.91 of the lower Nyquist frequency, more than 100 dB down above it).
    duration: s; the result is cut, or padded with zeros at its end, to round(duration * sample_rate) samples.
    pad: False: it is cut and not padded, so that its length says how much was recorded.

    Packets that do not decode are left out and their time is silent. Raises MediaError where there is no
    sound track or nothing of it decodes.
    """
    sound, rate, _ = read_sound(path, end=duration, mono=True)
    waveform = sound[0]
    if not np.isfinite(waveform).all():
        raise MediaError(path, "the sound holds values that are not numbers; export it again")
    if sample_rate is not None and sample_rate != rate:
        waveform = soxr.resample(waveform, rate, sample_rate, quality="HQ")
        rate = sample_rate
    if duration is not None:
        samples = round(duration * rate)
        waveform = np.pad(waveform[:samples], (0, max(0, samples - len(waveform)) if pad else 0))
    return np.ascontiguousarray(waveform, dtype=np.float32)


def read_frames(
    path: AnyPath,
    times: Sequence[float] | np.ndarray | None = None,
    *,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The frames on show at given times, decoded in one pass: uint8 [n, height, width, 3] RGB, and when they began (s).

    times: s, ascending. For each, the latest frame that began at or before it (the first frame before the
        first begins, the last one after the end), so one frame may be returned several times.
    fps: instead of ``times``, every k / fps from 0 until the last frame ends.
    size: (height, width) in px to scale to, by area downwards and bilinearly upwards; by default the first
        frame's own. The aspect ratio is not kept, rotation marks are not applied.

    Raises MediaError where there is no video track or nothing of it decodes.
    """
    if (times is None) == (fps is None):
        raise ValueError("read_frames takes either times or fps")
    wanted = None if times is None else np.asarray(times, dtype=np.float64)
    if wanted is not None and (wanted.ndim != 1 or (np.diff(wanted) < 0).any()):
        raise ValueError("times must be one ascending list of seconds")

    def time_of(index: int) -> float:
        if wanted is None:
            return index / fps  # type: ignore[operator]
        return wanted[index] if index < len(wanted) else np.inf

    pictures: list[np.ndarray] = []
    shown: list[float] = []
    reformatter = VideoReformatter()
    frame: Any = None
    with open_container(path) as container:
        stream = require_track(path, container, "video")
        for frame, began, ended, last in pictures_of(container, stream):
            size = size or (frame.height, frame.width)
            until = ended - STAMP
            if last:  # both the last time stamp and the last duration are rounded
                until = ended - 2 * STAMP if wanted is None else np.inf
            picture: np.ndarray | None = None  # converted only where it is wanted
            while time_of(len(pictures)) < until:
                picture = _to_rgb(reformatter, frame, size) if picture is None else picture
                pictures.append(picture)
                shown.append(began)
            if wanted is not None and len(pictures) == len(wanted):
                break
    if frame is None:
        raise MediaError(path, "the video track holds no frame that can be decoded; export the clip again")
    if not pictures:
        return np.empty((0, *(size or (0, 0)), 3), np.uint8), np.empty(0)
    return np.stack(pictures), np.array(shown, dtype=np.float64)


def stream_digest(path: AnyPath, kind: Kind) -> str:
    """SHA-256 (hex) of one stream: its codec, format and encoded packets with their times, without decoding.

    A clip remuxed with other pictures keeps the digest of its sound. Raises MediaError where the track is missing.
    """
    digest = hashlib.sha256()
    with open_container(path) as container:
        stream = require_track(path, container, kind)
        context = stream.codec_context
        if kind == "audio":
            form = [context.sample_rate, context.layout.name]
        else:
            form = [context.width, context.height, context.pix_fmt]
        digest.update(repr((kind, context.name, form)).encode())
        digest.update(context.extradata or b"")
        for packet in packets_of(container, stream):
            stamp = stamp_of(packet)
            # in seconds as a fraction: a muxer may choose another time base for the same instants
            began = None if stamp is None else stamp * packet.time_base
            digest.update(f"|{began}|{packet.size}|".encode())
            digest.update(bytes(packet))
    return digest.hexdigest()


def read_sound(
    path: AnyPath, start: float = 0.0, end: float | None = None, mono: bool = False
) -> tuple[np.ndarray, int, str]:
    """Sound from ``start`` (s of the clip) to at least ``end``, placed by its time stamps.

    Returns float32 [channels or 1, samples], its own rate (Hz) and its layout of channels. Raises as read_audio.
    """
    pieces: list[np.ndarray] = []
    position = rate = 0  # where the next piece is due, samples from ``start``
    layout = ""
    with open_container(path) as container:
        stream = require_track(path, container, "audio")
        origin, claimed = start_of(container), _claimed(container)
        for frame in decoded(container, stream, max(0.0, start - PREROLL)):
            rate, layout = rate or frame.sample_rate, layout or frame.layout.name
            if frame.sample_rate != rate:
                reason = f"the sound changes from {rate} to {frame.sample_rate} Hz; export it with one rate"
                raise MediaError(path, reason)
            samples = _samples(frame, mono)
            stamp = position
            if frame.pts is not None:
                stamp = round((float(frame.pts * stream.time_base) - origin - start) * rate)
            if position <= 0 or stamp - position > GAP * rate:
                # a broken time stamp must not ask for hours of silence
                if claimed is not None and start * rate + stamp > (claimed + 1) * rate:
                    continue
                silence = max(0, stamp - max(position, 0))
                pieces.append(np.zeros((len(samples), silence), np.float32))
                position = stamp
            pieces.append(samples[:, max(0, -position) :])
            position += samples.shape[1]
            if end is not None and position > (end - start + LOOKAHEAD) * rate:
                break
    if not pieces:
        raise MediaError(path, "the sound track holds nothing that can be decoded; export the clip again")
    return np.concatenate(pieces, axis=1), rate, layout


def _samples(frame: Any, mono: bool) -> np.ndarray:
    """An audio frame, float32 [channels or 1 (their mean), samples], full scale at +-1."""
    samples = frame.to_ndarray()  # (channels, samples) if planar, (1, samples * channels) if not
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif samples.dtype.kind == "i":
        samples = samples.astype(np.float32) / -float(np.iinfo(samples.dtype).min)
    return samples.mean(axis=0, dtype=np.float32, keepdims=True) if mono else samples.astype(np.float32)


def _to_rgb(reformatter: VideoReformatter, frame: Any, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    smaller = height < frame.height or width < frame.width
    method = (Interpolation.AREA if smaller else Interpolation.BILINEAR) | EXACT
    return reformatter.reformat(frame, width, height, "rgb24", interpolation=method, threads=1).to_ndarray()


def _claimed(container: Any) -> float | None:
    """Length in s that the container's header states, None where it does not."""
    return container.duration / av.time_base if container.duration else None


def _ends(container: Any) -> dict[Any, float]:
    """Where the last packet of each track ends, s after the container's start, by reading all packets."""
    ends: dict[Any, float] = {}
    origin = start_of(container)
    streams = [stream for kind in ("audio", "video") if (stream := find_track(container, kind)) is not None]
    for packet in packets_of(container, *streams):
        end = float(((stamp_of(packet) or 0) + (packet.duration or 0)) * packet.time_base) - origin
        ends[packet.stream] = max(end, ends.get(packet.stream, 0.0))
    return ends


def _check_complete(path: AnyPath, container: Any) -> None:
    """Raise MediaError if a track is empty or ends before the container says it does."""
    with Path(path).open("rb") as handle:
        magic, size = handle.read(4), int.from_bytes(handle.read(4), "little")
    present = Path(path).stat().st_size
    # FFmpeg shortens an avi's stated length to what is there, so its stated size has to tell
    if magic == b"RIFF" and size + 8 > present:
        raise MediaError(path, f"truncated: {size + 8} bytes long by its header, {present} found; download it again")
    ends = _ends(container)
    stated = [("clip", max(ends.values(), default=0.0), _claimed(container) or 0.0)]
    for kind in ("audio", "video"):
        stream = find_track(container, kind)
        end = ends.get(stream, 0.0)
        if end <= 0:
            raise MediaError(path, f"the {NAME[kind]} track has zero length")
        if stream.duration is not None and stream.time_base is not None:
            start = float((stream.start_time or 0) * stream.time_base) - start_of(container)
            stated.insert(-1, (NAME[kind], end, start + float(stream.duration * stream.time_base)))
    for what, end, claimed in stated:
        if end < claimed - ENDING:
            found = f"the {what} should last {claimed:.1f} s and ends after {end:.1f} s"
            raise MediaError(path, f"truncated: {found}; download it again")
