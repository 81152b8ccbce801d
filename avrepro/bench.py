"""How quick the parts are that take the time, as ratios against what one would use instead, on this machine."""

from __future__ import annotations

import copy
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import librosa
import numpy as np
import torch
from sklearn.metrics import average_precision_score, f1_score

from avrepro.encode import write_clip
from avrepro.evaluation.intervals import Interval, metric_interval, micro_f1_interval
from avrepro.evaluation.ranking import interval_of, resampled
from avrepro.features.logmel import LogMel
from avrepro.media import read_frames
from avrepro.models.efficientnet import EfficientNetLite0
from avrepro.progress import say

SECONDS = 10  # of a clip
FPS = 25
KEY_FRAMES = np.arange(0.5, SECONDS, 2.5)  # s


@dataclass(frozen=True)
class Size:
    """How much work it is; ``few`` and ``one``: how many of the resamples the slow ways go through, to be scaled up."""

    clips: int = 16
    picture: tuple[int, int] = (360, 640)  # height, width in px
    frames: int = 32
    tagged: tuple[int, int] = (1103, 17)  # the test clips and classes of DCASE 2017 Task 4
    ranked: tuple[int, int] = (20_371, 527)  # the evaluation clips and classes of AudioSet
    resamples: int = 2000
    few: int = 20
    one: int = 1


@dataclass(frozen=True)
class Task:
    """One thing done in two ways that give the same.

    :ivar share: of the work that ``usual`` does where all of it would take minutes or hours; 1: all.
    :ivar tolerance: how far, at most, the two results may lie apart on average where ``share`` is 1.
    """

    name: str
    instead: str
    ours: Callable[[], Any]
    usual: Callable[[], Any]
    share: float = 1.0
    tolerance: float = 1e-4


@dataclass(frozen=True)
class Timing:
    """Seconds of both ways, the best of some repetitions; those of the usual one scaled up to all of the work."""

    task: Task
    ours: float
    usual: float

    @property
    def ratio(self) -> float:
        """How many times quicker."""
        return self.usual / self.ours


def bench(repeat: int = 3, size: Size | None = None) -> Iterator[Timing]:
    """Time each task; the two ways take turns, so that whatever else the machine does meets both.

    :param repeat: how often each way runs, at least 1. ValueError for less.
    """
    if repeat < 1:
        raise ValueError(f"repeat: expected at least 1, found {repeat}")
    with tasks(size or Size()) as todo:
        for number, task in enumerate(todo, start=1):
            say(f"{number} / {len(todo)}: {task.name}, against {task.instead}")
            pairs = [(_seconds(task.ours), _seconds(task.usual)) for _ in range(repeat)]
            ours, usual = (min(times) for times in zip(*pairs, strict=True))
            yield Timing(task, ours, usual / task.share)


@contextmanager
def tasks(size: Size) -> Iterator[list[Task]]:
    """What is timed, on made-up sound, pictures and scores."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        yield [_log_mel(rng, size), _key_frames(rng, size, Path(folder)), _network(rng, size),
               _micro_f1(rng, size), _mean_ap(rng, size)]  # fmt: skip


def _log_mel(rng: np.random.Generator, size: Size) -> Task:
    log_mel = LogMel.li2017()
    waveforms = rng.normal(0, 0.1, (size.clips, SECONDS * log_mel.sample_rate)).astype(np.float32)

    def by_librosa() -> np.ndarray:
        settings: dict[str, Any] = {
            "n_fft": 1024,
            "win_length": 480,
            "hop_length": 100,
            "n_mels": 60,
            "pad_mode": "constant",
        }
        mel = [librosa.feature.melspectrogram(y=one, sr=log_mel.sample_rate, **settings) for one in waveforms]
        return np.log(np.maximum(mel, 1e-10))[:, :, :-1].transpose(0, 2, 1)

    name = f"log-mel spectrograms of {size.clips} clips"
    return Task(name, "librosa, clip by clip", lambda: log_mel(torch.from_numpy(waveforms)).numpy(), by_librosa)


def _key_frames(rng: np.random.Generator, size: Size, folder: Path) -> Task:
    path, (height, width) = folder / "clip.mp4", size.picture
    coarse = rng.integers(0, 256, (9, 16, 3), dtype=np.uint8)
    street = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    frames = np.stack([np.roll(street, width // 40 * number, axis=1) for number in range(SECONDS * FPS)])
    write_clip(path, frames, FPS, rng.normal(0, 0.1, SECONDS * 16_000).astype(np.float32), 16_000)

    def by_opencv() -> np.ndarray:
        capture, found = cv2.VideoCapture(str(path)), []
        while (read := capture.read())[0]:
            found.append(cv2.cvtColor(cv2.resize(read[1], (224, 224), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB))
        return np.stack(found)[(KEY_FRAMES * FPS).astype(int)]

    name = f"{len(KEY_FRAMES)} frames of a clip of {width} x {height} px"
    ours = lambda: read_frames(path, KEY_FRAMES, size=(224, 224))[0]  # noqa: E731
    return Task(name, "OpenCV, every frame", ours, by_opencv, tolerance=4.0)  # of 255; they convert colours differently


def _network(rng: np.random.Generator, size: Size) -> Task:
    network = EfficientNetLite0.pretrained(size=224)
    pictures = rng.integers(0, 256, (size.frames, 224, 224, 3), dtype=np.uint8)
    plain = copy.deepcopy(network.network).to(memory_format=torch.contiguous_format)

    def one_by_one() -> np.ndarray:
        with torch.no_grad():
            inputs = (network.prepare(pictures[row : row + 1]).contiguous() for row in range(len(pictures)))
            return torch.cat([plain.forward_head(plain.forward_features(x), pre_logits=True) for x in inputs]).numpy()

    name = f"an ImageNet network on {size.frames} pictures"
    return Task(name, "timm, picture by picture", lambda: network.embeddings(pictures), one_by_one)


def _micro_f1(rng: np.random.Generator, size: Size) -> Task:
    y_true, y_pred = (rng.random(size.tagged) < 0.1 for _ in range(2))

    def by_sklearn() -> float:
        return _width(metric_interval(lambda t, p: f1_score(t, p, average="micro"), y_true, y_pred, resamples=size.few))

    name = f"micro F1 of {_by(size.tagged)}, {size.resamples:,} resamples"
    ours = lambda: _width(micro_f1_interval(y_true, y_pred, resamples=size.resamples))  # noqa: E731
    return Task(name, "scikit-learn, resample by resample", ours, by_sklearn, _share(size.few, size))


def _mean_ap(rng: np.random.Generator, size: Size) -> Task:
    y_true = rng.random(size.ranked) < max(0.005, 20 / size.ranked[0])  # a label in 200 clips, as in AudioSet
    scores = rng.normal(y_true, 1.0).astype(np.float32)

    def by_sklearn() -> float:
        with warnings.catch_warnings(action="ignore"):  # a class may have no positive clip in a resample
            return _width(metric_interval(average_precision_score, y_true, scores, resamples=size.one))

    name = f"mAP of {_by(size.ranked)}, {size.resamples:,} resamples"
    ours = lambda: _width(interval_of(resampled(y_true, scores, size.resamples).mean_ap))  # noqa: E731
    return Task(name, "scikit-learn, resample by resample", ours, by_sklearn, _share(size.one, size))


def _width(interval: Interval) -> float:
    return interval.high - interval.low


def _share(resamples: int, size: Size) -> float:
    """Of the work of all resamples; either way the clips as they are are scored besides."""
    return (1 + resamples) / (1 + size.resamples)


def _by(shape: tuple[int, int]) -> str:
    return f"{shape[0]:,} clips x {shape[1]} classes"


def _seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
