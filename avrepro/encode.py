"""Clips written as files: encoded from arrays, or put together from tracks that are there (PyAV, FFmpeg)."""

from __future__ import annotations

import os
from fractions import Fraction
from heapq import merge
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from avrepro.files import atomic
from avrepro.media import EXACT, MediaError, decode_time, open_container, packets_of, require_track

BITEXACT = {"fflags": "+bitexact"}  # no version of FFmpeg in what is written


def write_clip(
    path: str | os.PathLike[str],
    frames: np.ndarray,
    fps: float | Fraction,
    waveform: np.ndarray,
    sample_rate: int,
) -> None:
    """Write an mp4 with H.264 pictures (MPEG-4 where FFmpeg was built without x264) and AAC sound.

    Parameters
    ----------
    frames: uint8 [frames, height, width, 3] RGB, even height and width (4:2:0 chroma).
    waveform: float32 [samples] mono, clipped to +-1.
    sample_rate: Hz, one that AAC has (8000, 16000, 22050, 32000, 44100, 48000 ...).

    The same input gives the same file. It appears under its name only once it is whole.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        raise ValueError(f"frames must be uint8 [frames, height, width, 3], found {frames.dtype} {frames.shape}")
    height, width = frames.shape[1], frames.shape[2]
    if height % 2 or width % 2:
        raise ValueError(f"frames are {height} x {width} px; 4:2:0 video needs even numbers of both")
    if waveform.ndim != 1 or not len(waveform) or not np.isfinite(waveform).all():
        raise ValueError(f"waveform must be finite numbers [samples], found {waveform.dtype} {waveform.shape}")
    sound = np.clip(waveform, -1, 1).astype(np.float32)
    rate = Fraction(fps).limit_denominator(100_000)
    with (
        atomic(path) as temporary,
        av.open(f"file:{temporary}", "w", format="mp4", options=BITEXACT) as container,
    ):
        video = add_video(container, rate, width, height)
        audio = container.add_stream("aac", rate=sample_rate, layout="mono", format="fltp")
        audio.bit_rate = 96_000
        audio.codec_context.thread_count = 1
        audio.codec_context.flags |= av.codec.context.Flags.bitexact.value
        reformatter = VideoReformatter()
        written = 0
        for index, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = reformatter.reformat(frame, format="yuv420p", interpolation=Interpolation.AREA | EXACT, threads=1)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(video.encode(frame))
            # sound goes along with the pictures, so that a player need not seek to and fro
            until = len(sound) if index == len(frames) - 1 else int((index + 1) / rate * sample_rate)
            while written < len(sound) and (written + 1024 <= until or until == len(sound)):
                block = av.AudioFrame.from_ndarray(sound[None, written : written + 1024], "fltp", "mono")
                block.sample_rate, block.pts, block.time_base = sample_rate, written, Fraction(1, sample_rate)
                container.mux(audio.encode(block))
                written += 1024
        container.mux(video.encode(None))
        container.mux(audio.encode(None))


def remux_clip(
    path: str | os.PathLike[str],
    audio_from: str | os.PathLike[str],
    video_from: str | os.PathLike[str],
) -> None:
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
                for packet in merge(packets_of(first, audio), packets_of(second, video), key=decode_time):
                    packet.stream = target[packet.stream]
                    container.mux(packet)
        except (av.FFmpegError, ValueError) as error:
            reason = f"cannot hold the tracks of {audio_from} and {video_from}: {error}"
            raise MediaError(path, reason) from error


def add_video(container: Any, rate: Fraction, width: int, height: int) -> Any:
    if "libx264" in av.codecs_available:
        # macroblock trees over B frames let x264 read memory that it never wrote, so
        # that the same pictures gave other bytes from one call to the next; without both they never did
        options = {"preset": "ultrafast", "crf": "28", "x264-params": "bframes=0:no-mbtree=1"}
        stream = container.add_stream("libx264", rate=rate, options=options)
    else:
        stream = container.add_stream("mpeg4", rate=rate, options={"qscale": "4"})
        stream.codec_context.flags |= av.codec.context.Flags.qscale.value
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.codec_context.thread_count = 1  # x264 decides differently with another number of threads
    stream.codec_context.flags |= av.codec.context.Flags.bitexact.value
    return stream
