"""Beyond the three papers: guessing, a transformer with attention bottlenecks, and the papers' ideas together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.special import expit, logit
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.conditions import Condition
from avrepro.evaluation import platt
from avrepro.features.bags import Bags
from avrepro.features.store import Feature
from avrepro.models.bottleneck import BottleneckConfig, BottleneckNetwork
from avrepro.models.fayek2020 import Attention
from avrepro.systems import fayek2020, parekh2018
from avrepro.systems.base import Checkpoint, Data, Examples, System
from avrepro.systems.selection import judged, mean_ap
from avrepro.training import Optimisation, Rows, Validation, predict


@dataclass(frozen=True)
class Settings:
    """Sizes of a run."""

    network: BottleneckConfig
    optimisation: Optimisation
    strengths: tuple[float, ...]  # clips that the prior of word vectors counts for, of which validation chooses


# Batches, rate and number of steps are those of Parekh et al.'s systems; the largest gradient is Nagrani et al.'s. Six
# trainings of two layers on the demo world were compared by the mAP of its validation clips alone: with random batches
# 0.329 for a token a region and 0.382 for one a frame; with balanced batches 0.417 with dropout 0.1 (0.407 within 600
# steps) and 0.416 with 0.3. A third layer came after that: what the last layer writes to the bottleneck is never read.
# Nagrani et al.'s sizes need pretraining on ImageNet-21k, so profile paper differs from demo in its features alone.
DEMO = Settings(
    BottleneckConfig(),
    Optimisation("adam", learning_rate=1e-3, batch=24, epochs=6, steps=100, clip_norm=1.0),
    strengths=(0.0, 3.0, 10.0, 30.0, 100.0),
)
CI = replace(
    DEMO,
    network=BottleneckConfig(width=16, heads=2, hidden=32),
    optimisation=replace(DEMO.optimisation, epochs=2, steps=4),
)
PROFILES = {"ci": CI, "demo": DEMO, "paper": DEMO}


class ClassFrequency(System):
    """Guessing: the score of a class is its share of the training clips, whatever the clip."""

    profiles = PROFILES
    modalities = ()

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        return Checkpoint(numbers={"frequencies": data.targets[data.rows("train")].mean(axis=0).tolist()})

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.tile(np.float32(checkpoint.numbers["frequencies"]), (len(data.corpus.clips), 1))


class Bottleneck(System):
    """Attention bottlenecks (Nagrani et al., 2021) on the frozen features of Parekh et al.'s systems.

    Tokens are frames and segments, where the authors' are patches. Validation chooses the epoch, by mAP.
    """

    profiles = PROFILES
    fields = ("network", "optimisation")
    minutes = 0.7

    def features(self, condition: Condition) -> dict[str, Feature]:
        return parekh2018.ROWS[0].features(condition)

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        settings, (frames, segments) = self.settings(data.condition), self.tokens(data)
        train, held = (
            Examples(rows, parekh2018.with_masks(frames.select(rows), segments.select(rows)), data.targets[rows])
            for rows in (data.rows("train"), data.rows("validation"))
        )

        def build() -> nn.Module:
            widths = {"frame_features": frames.features, "segment_features": segments.features}
            model = BottleneckNetwork(replace(settings.network, classes=len(data.classes), **widths))
            model.prepare(*(bags.select(train.rows) for bags in (frames, segments)))
            return model

        def loss(network: nn.Module, *batch: Tensor) -> Tensor:
            *inputs, weak_labels = batch
            return F.binary_cross_entropy_with_logits(network(*inputs), weak_labels)

        def judge(network: nn.Module) -> Validation:
            return judged(_probabilities(network, held.inputs, data.device), held.labels)

        return self.train(data, build, loss, train, settings.optimisation, seed, state_path, judge)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """Probabilities; those of a clip with neither sound nor pictures are 1/2."""
        self.check_features(checkpoint, data.condition)
        model = checkpoint.load_into(BottleneckNetwork(BottleneckConfig(**checkpoint.numbers["config"])))
        return _probabilities(model.to(data.device), parekh2018.with_masks(*self.tokens(data)), data.device)

    def tokens(self, data: Data) -> tuple[Bags, Bags]:
        """Frames and segments of all clips."""
        arrays = {name: data.arrays(feature) for name, feature in self.features(data.condition).items()}
        pairs = zip(arrays["regions"], arrays["proposals"], strict=True)
        return Bags.of([frames_of(*pair, data.delay) for pair in pairs]), Bags.of(arrays["segments"])


def frames_of(regions: np.ndarray, boxes: np.ndarray, delay: int = 0) -> np.ndarray:
    """The maximum of each feature over the regions of each frame of a clip, [frames, features].

    :param regions: [regions, features]. :param boxes: [frames, boxes, 5], NaN where a frame has fewer boxes.
    :param delay: frames, one a second, by which pictures come late; those of the clip's end come first.
    """
    frame = np.nonzero(~np.isnan(boxes[..., 4]))[0]  # of each region; every frame has one at least
    first = np.flatnonzero(np.diff(frame, prepend=-1))
    return np.roll(np.maximum.reduceat(regions, first) if len(frame) else regions, delay, axis=0)


def _probabilities(network: nn.Module, inputs: Sequence[Rows], device: torch.device) -> np.ndarray:
    """float32 [clips, classes]."""
    return predict(lambda *batch: torch.sigmoid(network(*batch)), inputs, device)


class UnionWithoutWords(fayek2020.AttentionFusion):
    """Attention between Fayek and Kumar's audio model and Parekh et al.'s two streams.

    Two streams localise in both modalities and need no synchrony; attention decides for each clip and class whom to
    weigh. Scores of two streams are no probabilities, and are calibrated on validation clips first (Platt 1999).
    """

    uses = (fayek2020.AUDIO, "parekh2018/two_stream")

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        line = platt_line(data, given[self.uses[1]])
        found = super().fit(data, self._inputs(given, line), seed, state_path)
        return replace(found, numbers=found.numbers | {"calibration": line})

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return super().scores(checkpoint, data, self._inputs(given, checkpoint.numbers["calibration"]))

    def modality_weights(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return super().modality_weights(checkpoint, data, self._inputs(given, checkpoint.numbers["calibration"]))

    def _inputs(self, given: Mapping[str, np.ndarray], line: list[float]) -> dict[str, np.ndarray]:
        streams = on_line(given[self.uses[1]], line)
        return {fayek2020.AUDIO: given[self.uses[0]], fayek2020.VISUAL: streams.astype(np.float32)}


class Union(System):
    """The union with Li et al.'s word vectors as a prior for rare classes.

    A class with n training clips is mixed with what the names of objects in view say, as strength : n. Validation clips
    choose one strength for all classes, 0 among them.
    """

    profiles = PROFILES
    modalities = ()
    uses = ("beyond/union_without_words", "li2017/video")
    fields = ("strengths",)

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        held = data.rows("validation")
        line = platt_line(data, given[self.uses[1]])
        clips = data.targets[data.rows("train")].sum(axis=0)
        union, words = given[self.uses[0]][held], on_line(given[self.uses[1]][held], line)
        quality = {
            strength: mean_ap(data.targets[held], mixed(union, words, strength, clips))
            for strength in self.settings(data.condition).strengths
        }
        strength = max(quality, key=quality.__getitem__)  # of equal ones the first
        return Checkpoint(numbers={"calibration": line, "clips": clips.tolist(), "strength": strength})

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        union, words = given[self.uses[0]], on_line(given[self.uses[1]], checkpoint.numbers["calibration"])
        return mixed(union, words, checkpoint.numbers["strength"], np.array(checkpoint.numbers["clips"]))


def mixed(union: np.ndarray, words: np.ndarray, strength: float, clips: np.ndarray) -> np.ndarray:
    """Scores [clips, classes] of both, mixed class by class; ``clips``: training clips that have each class."""
    share = strength / np.maximum(strength + clips, 1)
    return (1 - share) * union + share * words


def platt_line(data: Data, scores: np.ndarray) -> list[float]:
    """Slope and intercept of Platt scaling on validation clips; scores of all clips, [clips, classes]."""
    held = data.rows("validation")
    at_zero, at_one = logit(platt(data.targets[held], scores[held])(np.array([0.0, 1.0])))
    return [float(at_one - at_zero), float(at_zero)]


def on_line(scores: np.ndarray, line: list[float]) -> np.ndarray:
    """Probabilities of scores, float64."""
    slope, intercept = line
    return expit(slope * scores.astype(np.float64) + intercept)


ROWS: tuple[System, ...] = (
    ClassFrequency("beyond/class_frequency", "Class frequencies (guessing)", "reference"),
    Bottleneck("beyond/bottleneck", "Attention bottlenecks", "Nagrani et al. (2021)"),
    UnionWithoutWords("beyond/union_without_words", "Union without word vectors", "ours", Attention),
    Union("beyond/union", "Union of the three papers", "ours"),
)
