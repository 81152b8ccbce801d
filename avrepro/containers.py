"""Files opened as containers of tracks, and what lies in them: packets, and frames with their times (PyAV, FFmpeg).

Time 0 of a clip is where its container begins. Every decoder runs on one thread: decoded bytes are the same
everywhere, and callers parallelise over clips.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import av

AnyPath = str | os.PathLike[str]
Kind = Literal["audio", "video"]

NAME = {"audio": "sound", "video": "video"}
STAMP = 0.6e-3  # s; Matroska and WebM round time stamps to whole milliseconds


class MediaError(ValueError):
    """A file that cannot be used as a clip; ``reason`` says why, in words a person can act on."""

    def __init__(self, path: AnyPath, reason: str) -> None:
        super().__init__(os.fspath(path), reason)  # both in args, so that it crosses process borders
        self.path, self.reason = Path(path), reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def open_container(path: AnyPath) -> Any:
    """Raises MediaError where the file is missing, or is none that FFmpeg reads."""
    file = Path(path)
    if not file.is_file():
        raise MediaError(path, "not a file" if file.exists() else "no such file")
    if file.stat().st_size == 0:
        raise MediaError(path, "the file is empty (0 bytes); copy or download it again")
    try:
        # "file:" keeps a name like "a:b.mp4" from being read as an address; the whitelist keeps playlists
        # away from the network
        return av.open(f"file:{file}", metadata_errors="ignore", options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise MediaError(path, "no video file, or truncated or damaged; download it again") from error


def find_track(container: Any, kind: str) -> Any:
    """The first track of a kind, or None. A cover picture is no video track."""
    for stream in getattr(container.streams, kind):
        if not stream.disposition & av.stream.Disposition.attached_pic and stream.codec_context is not None:
            stream.codec_context.thread_count = 1
            return stream
    return None


def require_track(path: AnyPath, container: Any, kind: str) -> Any:
    stream = find_track(container, kind)
    if stream is None:
        raise MediaError(path, f"no {NAME[kind]} track")
    return stream


def start_of(container: Any) -> float:
    """Time stamp (s) of the clip's time 0; a start below 0 is priming, which the decoders take away."""
    return max(0.0, (container.start_time or 0) / av.time_base)


def stamp_of(item: Any) -> int | None:
    """Time stamp of a packet or frame, when it is shown; where that is not known, when it is decoded."""
    return item.dts if item.pts is None else item.pts


def packets_of(container: Any, *streams: Any) -> Iterator[Any]:
    """Packets until the end of the file, or of what can be read of it."""
    try:
        for packet in container.demux(streams):
            if packet.size:
                yield packet
    except av.FFmpegError:
        return


def decoded(container: Any, stream: Any, since: float = 0.0) -> Iterator[Any]:
    """Frames in order of presentation, from the key frame at or before ``since`` (s of the clip) on.

    What does not decode is left out, as players do.
    """
    if since > 0:
        container.seek(int((since + start_of(container)) / stream.time_base), stream=stream)
    for packet in chain(packets_of(container, stream), [None]):  # None: what the decoder still holds
        try:
            yield from stream.decode(packet)
        except av.FFmpegError:
            continue


def pictures_of(container: Any, stream: Any, since: float = 0.0) -> Iterator[tuple[Any, float, float, bool]]:
    """Pictures, when each appears and goes (s of the clip), and whether it is the last."""
    interval = float(1 / (stream.average_rate or stream.guessed_rate or 25))
    shown, began, lasts = None, 0.0, interval
    for count, picture in enumerate(decoded(container, stream, since)):
        stamp = stamp_of(picture)
        now = count * interval if stamp is None else float(stamp * stream.time_base) - start_of(container)
        if shown is not None:
            yield shown, began, now, False
        shown, began = picture, now
        lasts = float(picture.duration * stream.time_base) if picture.duration else interval
    if shown is not None:
        yield shown, began, began + lasts, True
