"""The systems of others in Table 3 of Fayek and Kumar (2020), trained on the same clips.

All are trained by binary cross entropy; the mean average precision on validation clips chooses the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.features.audio import log_mel
from avrepro.features.frames import video_frames
from avrepro.features.logmel import LogMel
from avrepro.features.store import Feature
from avrepro.models.fayek2020_others import (
    HEADS,
    JointAudioVisual,
    Losses,
    ResidualAudio,
    ResidualAudioConfig,
    VideoR2Plus1D,
    VideoR2Plus1DConfig,
    blended_loss,
    blending_weights,
)
from avrepro.systems.base import Checkpoint, Condition, Data, Examples, System, partial_paths
from avrepro.systems.selection import judged
from avrepro.training import Optimisation, Validation, predict

SAMPLE = 64  # training clips that inputs' means and deviations are taken from


@dataclass(frozen=True)
class Settings:
    """Sizes of the three systems. Gradient blending trains the two networks of the others, together."""

    audio: ResidualAudioConfig
    audio_pooled: int  # log-mel frames of 10 ms that are averaged to one
    audio_optimisation: Optimisation
    video: VideoR2Plus1DConfig
    video_optimisation: Optimisation
    video_frames: int  # of a clip
    video_size: tuple[int, int]  # height, width of a frame, px
    hidden: int  # units of the joint head's hidden layer
    measured: int  # epochs of the first trainings of gradient blending, which measure the heads
    blend_optimisation: Optimisation  # of those as of the last one


# The depths are those of the papers named; frames, sizes and optimisation are ours.
PAPER = Settings(
    audio=ResidualAudioConfig(),
    audio_pooled=1,
    audio_optimisation=Optimisation("adam", 1e-3, batch=64, epochs=20),
    video=VideoR2Plus1DConfig(),
    video_optimisation=Optimisation("adam", 1e-3, batch=32, epochs=20),
    video_frames=32,
    video_size=(112, 112),
    hidden=2048,
    measured=5,
    blend_optimisation=Optimisation("adam", 1e-3, batch=32, epochs=20),
)
# Small enough for about a minute each on one core with 600 clips. The validation clips of the demo world chose the rate
# and the batch: with smaller rates or larger batches next to nothing is learnt in that time.
SMALL = Optimisation("adam", 5e-3, batch=8, epochs=20)
DEMO = Settings(
    audio=ResidualAudioConfig(block="basic", layers=(1, 1, 1, 1), channels=(16, 32, 64, 128), stride=4),
    audio_pooled=2,
    audio_optimisation=SMALL,
    video=VideoR2Plus1DConfig(block="basic", layers=(0, 1, 1, 1), channels=(8, 16, 32, 64)),
    video_optimisation=replace(SMALL, epochs=12),
    video_frames=8,
    video_size=(48, 64),
    hidden=64,
    measured=2,
    blend_optimisation=replace(SMALL, epochs=10),
)
CI = replace(
    DEMO,
    audio_optimisation=replace(SMALL, epochs=1),
    video_optimisation=replace(SMALL, epochs=1),
    measured=1,
    blend_optimisation=replace(SMALL, epochs=1),
)
PROFILES = {"ci": CI, "demo": DEMO, "paper": PAPER}


class OfOthers(System):
    """A network on one stream, which gives logits.

    :param build: number of classes, settings -> the network. :param fields: the last is its optimisation.
    """

    profiles = PROFILES

    def __init__(
        self, name: str, title: str, modalities: tuple[str, ...], fields: tuple[str, ...], minutes: float,
        build: Callable[[int, Settings], Any],
    ) -> None:  # fmt: skip
        super().__init__(name, title, "Table 3")
        self.modalities, self.fields, self.minutes, self.build = modalities, fields, minutes, build

    def features(self, condition: Condition) -> dict[str, Feature]:
        settings = self.settings(condition)
        known = {
            "audio": log_mel(LogMel.fayek2020(), "fayek2020", settings.audio_pooled),
            "video": video_frames(settings.video_frames, settings.video_size),
        }
        return {stream: known[stream] for stream in self.modalities}

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        train, held = (self.examples(data, split) for split in ("train", "validation"))

        def loss(model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
            return F.binary_cross_entropy_with_logits(model(inputs), labels)

        return self.train(
            data, lambda: self.prepared(data, train), loss, train,
            getattr(self.settings(data.condition), self.fields[-1]), seed, state_path,
            lambda model: validation(model, held, data.device),
        )  # fmt: skip

    def prepared(self, data: Data, examples: Examples) -> Any:
        """A new network, fitted to the scales of training clips."""
        return examples.prepare(self.build(len(data.classes), self.settings(data.condition)), SAMPLE)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        classes = len(checkpoint.classes) or len(data.classes)
        model = checkpoint.load_into(self.build(classes, self.settings(data.condition))).to(data.device)
        return predict(lambda *batch: torch.sigmoid(self.logits(model, *batch)), self.arrays(data), data.device)

    def logits(self, model: Any, *inputs: Tensor) -> Tensor:
        return model(*inputs)


class GBlend(OfOthers):
    """Offline gradient blending (Wang et al.); the scores are the joint head's, whose mAP chooses the epoch.

    From the same initial weights each head is first trained alone, with what is below it, for ``measured`` epochs; its
    losses before and after, on all training and validation clips, give its weight. Ours: of those epochs the one with
    the least validation loss counts, for with few clips the last one may lie anywhere. Then the network starts anew
    and all heads are trained together.
    """

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        settings, device = self.settings(data.condition), data.device
        train, held = (self.examples(data, split) for split in ("train", "validation"))

        def run(weights: Mapping[str, float], epochs: int, path: Path, judge: Callable) -> Checkpoint:
            def loss(model: nn.Module, log_mel: Tensor, frames: Tensor, labels: Tensor) -> Tensor:
                return blended_loss(model(log_mel, frames, tuple(weights)), labels, weights)

            optimisation = replace(settings.blend_optimisation, epochs=epochs)
            return self.train(data, lambda: self.prepared(data, train), loss, train, optimisation, seed, path, judge)

        def judge(model: nn.Module, head: str, examples: Examples = held) -> Validation:
            return validation(partial(head_logits, model, head), examples, device)

        def losses(model: nn.Module, head: str) -> Losses:
            return Losses(judge(model, head, train).loss, judge(model, head).loss)

        def least_loss(model: nn.Module, head: str) -> Validation:
            found = judge(model, head)
            return replace(found, score=-found.loss)

        torch.manual_seed(seed)
        model = self.prepared(data, train).to(device).eval()
        start = dict.fromkeys(HEADS, losses(model, "audio"))  # all heads begin alike
        end, seconds = {}, 0.0
        with partial_paths(state_path, (*HEADS, "network")) as paths:
            for head, path in zip(HEADS, paths[:-1], strict=True):
                alone = run({head: 1.0}, settings.measured, path, partial(least_loss, head=head))
                end[head], seconds = losses(alone.load_into(model), head), seconds + alone.seconds
            weights = blending_weights(start, end)
            epochs = settings.blend_optimisation.epochs
            found = run(weights, epochs, paths[-1], partial(judge, head="joint"))
        return replace(found, numbers=found.numbers | {"weights": weights}, seconds=seconds + found.seconds)

    def logits(self, model: Any, *inputs: Tensor) -> Tensor:
        return head_logits(model, "joint", *inputs)


def validation(model: Callable[..., Tensor], examples: Examples, device: torch.device) -> Validation:
    """Binary cross entropy, nats a clip and class, and mAP of a model that gives logits."""
    logits = predict(model, examples.inputs, device)
    return judged(logits, examples.labels, F.binary_cross_entropy_with_logits)


def head_logits(model: Any, head: str, *inputs: Tensor) -> Tensor:
    """Of one head of a network of several, [clips, classes]."""
    return model(*inputs, (head,))[head]


AUDIO_FIELDS, VIDEO_FIELDS = ("audio", "audio_pooled"), ("video", "video_frames", "video_size")
ROWS: tuple[System, ...] = (
    OfOthers(
        "fayek2020/resnet_audio", "Audio (ResNet)", ("audio",), (*AUDIO_FIELDS, "audio_optimisation"), 1.0,
        lambda classes, settings: ResidualAudio(replace(settings.audio, classes=classes)),
    ),
    OfOthers(
        "fayek2020/r2plus1d_visual", "Visual (R(2+1)D)", ("video",), (*VIDEO_FIELDS, "video_optimisation"), 1.0,
        lambda classes, settings: VideoR2Plus1D(replace(settings.video, classes=classes)),
    ),
    GBlend(
        "fayek2020/gblend", "Audio and visual (G-Blend)", ("audio", "video"),
        (*AUDIO_FIELDS, *VIDEO_FIELDS, "hidden", "measured", "blend_optimisation"), 1.5,
        lambda classes, settings: JointAudioVisual(
            replace(settings.audio, classes=classes), replace(settings.video, classes=classes), settings.hidden
        ),
    ),
)  # fmt: skip
