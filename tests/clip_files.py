"""Clips written as files for tests: one tone and one grey, or any format, by PyAV alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from avrepro.encode import write_clip


def film(path: Path, tone: float = 440.0, level: int = 100, seconds: float = 2.0) -> Path:
    """A clip with one tone (Hz) and pictures of one grey, 12 a second."""
    waveform = 0.3 * np.sin(2 * np.pi * tone * np.arange(round(8000 * seconds)) / 8000)
    write_clip(path, flat(np.full(round(12 * seconds), level)), 12, waveform.astype(np.float32), 8000)
    return path


def encode(
    path: Path, video: str | None, audio: str | None, fmt: str, rate: int, layout: str, fps: Fraction,
    frames: Any = None, waveform: Any = None, *, stamps: list[int] | None = None,
    delay: float = 0.0, container_options: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """A file in any format, by PyAV alone; the waveform goes to every channel."""
    container: Any = av.open(f"file:{path}", "w", options=container_options or {})
    with container:
        streams: list[tuple[Any, Any]] = []
        if video:
            stream = container.add_stream(video, rate=fps)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            stream.bit_rate = 2_000_000
            if stamps:
                stream.codec_context.time_base = Fraction(1, 1000)
            base = Fraction(1, 1000) if stamps else 1 / fps

            def pictures() -> Any:
                for index, picture in enumerate(frames):
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
                    frame.pts, frame.time_base = (stamps[index] if stamps else index), base
                    yield frame

            streams.append((stream, pictures()))
        if audio:
            sound = container.add_stream(audio, rate=rate, layout=layout, format=fmt)
            sound.bit_rate = 128_000

            def blocks() -> Any:
                channels = sound.codec_context.channels
                resampler = av.AudioResampler(fmt, layout, rate, frame_size=sound.codec_context.frame_size or 1024)
                every = np.repeat(waveform[None].astype(np.float32), channels, axis=0)
                frame = av.AudioFrame.from_ndarray(every, "fltp", layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
                for block in [*resampler.resample(frame), *resampler.resample(None)]:
                    block.pts = (block.pts or 0) + round(delay * rate)
                    yield block

            # the header is written with the first packet, once the encoder has said how long its frames are
            sound.codec_context.open()
            streams.append((sound, blocks()))
        for stream, items in streams:
            for item in items:
                container.mux(stream.encode(item))
            container.mux(stream.encode(None))


def flat(levels: np.ndarray) -> np.ndarray:
    return np.broadcast_to(levels[:, None, None, None], (len(levels), 48, 64, 3)).astype(np.uint8).copy()
