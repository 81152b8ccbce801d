"""Seconds of the parts that take the time, beside those of what one would use instead, on this machine."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import cv2
import librosa
import numpy as np
import torch
from sklearn.metrics import average_precision_score, f1_score

from avrepro.encode import write_clip
from avrepro.evaluation import metric_interval, resample, summarise
from avrepro.features.logmel import LogMel
from avrepro.media import read_frames
from avrepro.progress import say

SECONDS, FPS = 10, 25  # of a clip
TIMES = np.arange(0.5, SECONDS, 2.5)  # of its key frames, s


@dataclass(frozen=True)
class Size:
    """How much work it is."""

    clips: int = 16
    picture: tuple[int, int] = (360, 640)  # height, width in px
    tagged: tuple[int, int] = (1103, 17)  # test clips and classes of DCASE 2017 Task 4
    ranked: tuple[int, int] = (20_371, 527)  # evaluation clips and classes of AudioSet
    resamples: int = 2000
    few: tuple[int, int] = (20, 1)  # resamples that the slow way goes through, of tagged and of ranked clips


@dataclass(frozen=True)
class Task:
    """One thing done in two ways that give the same.

    :param share: of the work that ``usual`` does where all of it would take minutes or hours; 1: all.
    """

    name: str
    ours: Callable[[], Any]
    instead: str
    usual: Callable[[], Any]
    share: float = 1.0


def bench(repeat: int = 3, size: Size | None = None) -> Iterator[tuple[Task, float, float]]:
    """Time each task: the best seconds of ours and of the usual way, scaled up to all of the work.

    :param repeat: how often each way runs; they take turns, so that whatever else the machine does meets both.
    """
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks(size or Size(), Path(folder)):
            say(f"{task.name}, against {task.instead}")
            seconds = [(timeit(task.ours, number=1), timeit(task.usual, number=1)) for _ in range(repeat)]
            ours, usual = (min(times) for times in zip(*seconds, strict=True))
            yield task, ours, usual / task.share


def tasks(size: Size, folder: Path) -> Iterator[Task]:
    """What is timed, on random sound, pictures and scores."""
    rng = np.random.default_rng(0)
    yield from (_log_mel(rng, size), _key_frames(rng, size, folder))
    yield _interval("mAP", average_precision_score, size.ranked, size.few[1], rng, size)
    yield _interval("micro F1", partial(f1_score, average="micro"), size.tagged, size.few[0], rng, size)


def _log_mel(rng: np.random.Generator, size: Size) -> Task:
    log_mel, rate = LogMel.li2017(), LogMel.li2017().sample_rate
    waveforms = rng.normal(0, 0.1, (size.clips, SECONDS * rate)).astype(np.float32)
    mel_of = partial(librosa.feature.melspectrogram, n_fft=1024, win_length=480, hop_length=100, n_mels=60)

    def usual() -> np.ndarray:
        mel = [mel_of(y=one, sr=rate, pad_mode="constant") for one in waveforms]
        return np.log(np.maximum(mel, 1e-10))[:, :, :-1].transpose(0, 2, 1)

    ours = lambda: log_mel(torch.from_numpy(waveforms)).numpy()  # noqa: E731
    return Task(f"log-mel spectrograms of {size.clips} clips", ours, "librosa, clip by clip", usual)


def _key_frames(rng: np.random.Generator, size: Size, folder: Path) -> Task:
    path, (height, width) = folder / "clip.mp4", size.picture
    street = cv2.resize(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8), (width, height))
    frames = np.stack([np.roll(street, width // 40 * number, axis=1) for number in range(SECONDS * FPS)])
    write_clip(path, frames, FPS, rng.normal(0, 0.1, SECONDS * 16_000).astype(np.float32), 16_000)

    def usual() -> np.ndarray:
        capture, found = cv2.VideoCapture(str(path)), []
        while (read := capture.read())[0]:
            found.append(cv2.cvtColor(cv2.resize(read[1], (224, 224), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB))
        return np.stack(found)[(TIMES * FPS).astype(int)]

    name = f"{len(TIMES)} frames of a clip of {width} x {height} px"
    ours = lambda: read_frames(path, TIMES, size=(224, 224))[0]  # noqa: E731
    return Task(name, ours, "OpenCV, every frame", usual)


def _interval(
    name: str, metric: Callable[..., float], shape: tuple[int, int], few: int, rng: np.random.Generator, size: Size
) -> Task:
    y_true = rng.random(shape) < max(0.005, 20 / shape[0])  # a label in 200 clips, as in AudioSet
    scores = rng.normal(y_true, 1.0).astype(np.float32)
    scores = scores if name == "mAP" else (scores >= 0.5).astype(np.float32)

    def ours() -> float:
        found = resample(y_true, scores, 0.5, size.resamples)
        interval = summarise([found.map if name == "mAP" else found.micro_f1], resplit=None, paired=False)
        return interval.high - interval.low

    def usual() -> float:
        with warnings.catch_warnings(action="ignore"):  # a class may have no positive clip in a resample
            interval = metric_interval(metric, y_true, scores, resamples=few)
        return interval.high - interval.low

    amount = f"{shape[0]:,} clips x {shape[1]} classes, {size.resamples:,} resamples"
    share = (1 + few) / (1 + size.resamples)  # the clips as they are are scored besides
    return Task(f"{name} of {amount}", ours, "scikit-learn, resample by resample", usual, share)
