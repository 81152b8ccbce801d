"""Clips written as files: encoded from arrays, or put together from tracks that are there (PyAV, FFmpeg)."""

from __future__ import annotations

from fractions import Fraction
from heapq import merge
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from avrepro.containers import AnyPath, MediaError, open_container, packets_of, require_track
from avrepro.files import atomic
from avrepro.media import EXACT

BITEXACT = {"fflags": "+bitexact"}  # no version of FFmpeg in what is written
BLOCK = 1024  # samples of a frame of AAC


def write_clip(
    path: AnyPath, frames: np.ndarray, fps: float | Fraction, waveform: np.ndarray, sample_rate: int
) -> None:
    """Write an mp4 with H.264 pictures and AAC sound; the same input gives the same file.

    frames: uint8 [frames, height, width, 3] RGB, even height and width (4:2:0 chroma).
    waveform: float32 [samples] mono, clipped to +-1.
    sample_rate: Hz, one that AAC has (8000, 16000, 22050, 32000, 44100, 48000 ...).
    """
    if not np.isfinite(waveform).all():
        raise ValueError("the waveform holds values that are not numbers")
    sound = np.clip(waveform, -1, 1).astype(np.float32)[None]
    rate = Fraction(fps).limit_denominator(100_000)
    with atomic(path) as temporary, av.open(f"file:{temporary}", "w", format="mp4", options=BITEXACT) as container:
        video = add_video(container, rate, frames.shape[2], frames.shape[1])
        audio = add_audio(container, sample_rate, "mono")
        reformatter = VideoReformatter()
        written = 0
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = reformatter.reformat(frame, format="yuv420p", interpolation=Interpolation.AREA | EXACT, threads=1)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(video.encode(frame))
            # sound goes along with the pictures, so that a player need not seek to and fro
            until = sound.shape[1] if index == len(frames) - 1 else int((index + 1) / rate * sample_rate)
            written = mux_sound(container, audio, sound, written, until)
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def remux_clip(path: AnyPath, audio_from: AnyPath, video_from: AnyPath) -> None:
    """Write a clip with the sound of one file and the pictures of another, both as they are encoded.

    The container is the one that the suffix of ``path`` names; the stream digests of the two survive where
    it is that of the sources (Matroska would round their time stamps). Raises MediaError where a track is
    missing or the container cannot hold it.
    """
    with open_container(audio_from) as first, open_container(video_from) as second, atomic(path) as temporary:
        audio = require_track(audio_from, first, "audio")
        video = require_track(video_from, second, "video")
        try:
            with av.open(f"file:{temporary}", "w", options=BITEXACT) as container:
                streams = (video, audio)
                target = {one: container.add_stream_from_template(one, opaque=True) for one in streams}
                for packet in merge(packets_of(first, audio), packets_of(second, video), key=_decode_time):
                    packet.stream = target[packet.stream]
                    container.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            reason = f"cannot hold the tracks of {audio_from} and {video_from}: {error}"
            raise MediaError(path, reason) from error


def add_video(
    container: Any, rate: Fraction, width: int, height: int, preset: str = "ultrafast", crf: str = "28"
) -> Any:
    # macroblock trees over B frames let x264 read memory that it never wrote, so
    # that the same pictures gave other bytes from one call to the next; without both they never did
    options = {"preset": preset, "crf": crf, "x264-params": "bframes=0:no-mbtree=1"}
    stream = container.add_stream("libx264", rate=rate, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1  # x264 decides differently with another number of threads
    stream.codec_context.flags |= av.codec.context.Flags.bitexact.value
    return stream


def add_audio(container: Any, rate: int, layout: str) -> Any:
    stream = container.add_stream("aac", rate=rate, layout=layout, format="fltp")
    stream.bit_rate = 96_000 * stream.codec_context.channels
    stream.codec_context.thread_count = 1
    stream.codec_context.flags |= av.codec.context.Flags.bitexact.value
    return stream


def mux_sound(container: Any, stream: Any, sound: np.ndarray, written: int, until: int) -> int:
    """Write the blocks of a sound, float32 [channels, samples], between two samples; all if the second is its end.

    Returns how many samples are written now.
    """
    while written < sound.shape[1] and (written + BLOCK <= until or until == sound.shape[1]):
        samples = np.ascontiguousarray(sound[:, written : written + BLOCK])
        block = av.AudioFrame.from_ndarray(samples, "fltp", stream.layout.name)
        block.sample_rate, block.pts, block.time_base = stream.rate, written, Fraction(1, stream.rate)
        container.mux(stream.encode(block))
        written += BLOCK
    return written


def _decode_time(packet: Any) -> float:
    stamp = packet.dts if packet.dts is not None else packet.pts
    return float((stamp or 0) * packet.time_base)
