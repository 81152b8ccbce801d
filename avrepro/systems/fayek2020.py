"""The systems of Fayek and Kumar (2020): a model of sound, a model of pictures, and fusions of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avrepro.features.audio import log_mel
from avrepro.features.frames import mean_frame_features
from avrepro.features.logmel import LogMel
from avrepro.features.store import Feature
from avrepro.models.audio import mix_clips
from avrepro.models.fayek2020 import (
    MLP,
    Attention,
    AudioConfig,
    AudioConvNet,
    Fusion,
    Regression,
    VisualConfig,
    VisualNetwork,
    clip_loss,
    co_supervised,
)
from avrepro.systems.base import Checkpoint, Condition, Data, Examples, System, partial_paths
from avrepro.systems.selection import judged
from avrepro.training import Optimisation, Rows, Selected, choose_device, predict

FIRST, AUDIO, VISUAL = "fayek2020/audio_first_generation", "fayek2020/audio", "fayek2020/visual"
PICTURES = 10_000  # training clips that means and deviations of their pictures' features are taken from
CHUNK = 4096  # clips whose scores are fused at a time


@dataclass(frozen=True)
class Settings:
    """Sizes of a run; every difference of another profile from ``paper`` is a stated deviation."""

    audio: AudioConfig
    audio_pooled: int  # log-mel frames of 10 ms that are averaged to one
    audio_optimisation: Optimisation
    mixing: float  # share of training clips that another clip's sound is laid over
    generations: int  # of the audio model: the first learns from labels, each other one also from the one before
    teacher_weight: float  # of the teacher's scores, beside the labels
    backbone: str  # frozen network that describes frames
    frames: int  # of a clip
    frame_size: tuple[int, int] | None  # height, width in which they are decoded, px; None: as filmed
    visual: VisualConfig
    visual_optimisation: Optimisation
    visual_rates: tuple[float, ...]  # learning rates, of which validation chooses
    units: int  # hidden units of fusions
    fusion_optimisation: Optimisation
    fusion_rates: tuple[float, ...]  # likewise, for each fusion
    folds: int  # 0: fusions learn from scores that the models give to clips they were trained on, as in the paper


# Section 4.2. Batch and epochs of the audio model are the visual model's, and its rate is fixed: "the details of the
# audio model training can be found in" Kumar and Ithapu (2020), as can generations and the teacher's weight.
PAPER = Settings(
    audio=AudioConfig(),
    audio_pooled=1,
    audio_optimisation=Optimisation("adam", learning_rate=1e-3, batch=144, epochs=20, decay=0.5, patience=2),
    mixing=0.0,
    generations=2,
    teacher_weight=0.3,
    backbone="resnet152",
    frames=64,
    frame_size=None,
    visual=VisualConfig(),
    visual_optimisation=Optimisation("adam", learning_rate=1e-4, batch=144, epochs=20),
    visual_rates=(1e-3, 3e-4, 1e-4),
    units=512,
    fusion_optimisation=Optimisation("adam", learning_rate=1e-3, batch=256, epochs=100),
    fusion_rates=(1e-3, 3e-4, 1e-4),
    folds=0,
)
# 600 clips are not 2 million. Narrow networks, mixed clips; and as both models soon know so few clips by heart, their
# scores of those tell a fusion nothing about how far to trust them: it learns from scores of models that were not
# trained on the clip. Epochs were chosen on validation clips; the same choose among the rates in every run.
DEMO = replace(
    PAPER,
    audio=AudioConfig(channels=(8, 16, 32, 64), instance=256, units=128),
    audio_pooled=2,
    audio_optimisation=Optimisation("adam", learning_rate=1e-3, batch=12, epochs=14, decay=0.5, patience=2),
    mixing=0.5,
    backbone="efficientnet-lite0",
    frames=8,
    frame_size=(112, 144),
    visual=VisualConfig(hidden=(256, 256, 128, 128)),
    visual_optimisation=Optimisation("adam", learning_rate=1e-3, batch=24, epochs=10),
    visual_rates=(1e-3, 3e-4),
    fusion_optimisation=Optimisation("adam", learning_rate=1e-2, batch=64, epochs=60),
    fusion_rates=(1e-2, 3e-3, 1e-3),
    folds=3,
)
CI = replace(
    DEMO,
    audio_optimisation=replace(DEMO.audio_optimisation, epochs=1),
    visual_optimisation=replace(DEMO.visual_optimisation, epochs=2),
    visual_rates=(1e-3,),
    fusion_optimisation=replace(DEMO.fusion_optimisation, epochs=2),
    fusion_rates=(1e-3,),
)
PROFILES = {"ci": CI, "demo": DEMO, "paper": PAPER}


class Audio(System):
    """The audio ConvNet (section 3.1), trained on labels alone: the first generation."""

    profiles = PROFILES
    modalities = ("audio",)
    fields: tuple[str, ...] = ("audio", "audio_optimisation", "mixing")
    minutes = 0.9

    def features(self, condition: Condition) -> dict[str, Feature]:
        return {"log_mel": log_mel(LogMel.fayek2020(), "fayek2020", self.settings(condition).audio_pooled)}

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        return self.generation(data, None, seed, state_path)

    def generation(self, data: Data, teacher: np.ndarray | None, seed: int, state_path: Path) -> Checkpoint:
        """One generation, which begins anew; ``teacher``: scores of the one before, [clips, classes]."""
        settings = self.settings(data.condition)
        train, held = (self.examples(data, split) for split in ("train", "validation"))
        targets = torch.from_numpy(train.labels).float()
        if teacher is not None:
            targets = co_supervised(targets, torch.from_numpy(teacher[train.rows]), settings.teacher_weight)
        config = replace(settings.audio, classes=len(data.classes))

        def loss(network: nn.Module, log_mel: Tensor, targets: Tensor) -> Tensor:
            log_mel, targets = mix_clips(log_mel, targets, settings.mixing)
            return clip_loss(network(log_mel), targets)

        return self.train(
            data, lambda: train.prepare(AudioConvNet(config)), loss, replace(train, labels=targets),
            settings.audio_optimisation, seed, state_path,
            lambda network: judged(predict(network, held.inputs, data.device), held.labels),
        )  # fmt: skip

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        model = checkpoint.load_into(AudioConvNet(AudioConfig(**checkpoint.numbers["config"])))
        return predict(model.to(data.device), self.arrays(data), data.device)


class CoSupervisedAudio(Audio):
    """The last generation of sequential co-supervision; of a single one, the first."""

    uses = (FIRST,)
    fields = (*Audio.fields, "generations", "teacher_weight")

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        teacher, found, seconds = given[FIRST], Checkpoint(), 0.0
        with partial_paths(state_path, range(1, self.settings(data.condition).generations)) as paths:
            for path in paths:
                found = self.generation(data, teacher, seed, path)
                teacher, seconds = super().scores(found, data, given), seconds + found.seconds
        return replace(found, seconds=seconds)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return super().scores(checkpoint, data, given) if checkpoint.state else given[FIRST]


class Visual(System):
    """The visual network on mean features of frames (section 3.2); validation chooses the learning rate."""

    profiles = PROFILES
    modalities = ("video",)
    fields = ("visual", "visual_optimisation", "visual_rates")
    minutes = 0.1

    def features(self, condition: Condition) -> dict[str, Feature]:
        settings, device = self.settings(condition), choose_device(condition.device)
        return {"frames": mean_frame_features(settings.backbone, settings.frames, settings.frame_size, device)}

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        settings = self.settings(data.condition)
        train, held = (self.examples(data, split) for split in ("train", "validation"))
        config = replace(settings.visual, classes=len(data.classes), inputs=train.inputs[0][0].shape[0])

        def run(optimisation: Optimisation, path: Path) -> Checkpoint:
            return self.train(
                data, lambda: train.prepare(VisualNetwork(config), PICTURES),
                lambda network, frames, labels: clip_loss(network(frames), labels), train, optimisation, seed, path,
                lambda network: judged(predict(network, held.inputs, data.device), held.labels),
            )  # fmt: skip

        return best_rate(settings.visual_rates, settings.visual_optimisation, run, state_path)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        model = checkpoint.load_into(VisualNetwork(VisualConfig(**checkpoint.numbers["config"])))
        return predict(model.to(data.device), self.arrays(data), data.device)


def best_rate(
    rates: Sequence[float],
    optimisation: Optimisation,
    run: Callable[[Optimisation, Path], Checkpoint],
    state_path: Path,
) -> Checkpoint:
    """Of trainings by some learning rates, one after the other, the one that reaches the highest validation score."""
    with partial_paths(state_path, rates) as paths:
        tried = [run(replace(optimisation, learning_rate=rate), path) for rate, path in zip(rates, paths, strict=True)]
    scores = [max(row["validation_score"] for row in one.history) for one in tried]
    best = tried[scores.index(max(scores))]
    numbers = best.numbers | {"rates": [list(pair) for pair in zip(rates, scores, strict=True)]}
    return replace(best, numbers=numbers, seconds=sum(one.seconds for one in tried))


class Average(System):
    """The mean of both models' outputs (section 3.3); nothing is learnt."""

    profiles = PROFILES
    modalities = ()
    uses = (AUDIO, VISUAL)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return (given[AUDIO] + given[VISUAL]) / 2


class LearntFusion(System):
    """A fusion trained on both models' outputs (section 3.3); validation chooses the learning rate.

    :param build: number of classes, hidden units -> the fusion.
    """

    profiles = PROFILES
    modalities = ()
    uses = (AUDIO, VISUAL)
    fields = ("units", "fusion_optimisation", "fusion_rates")
    minutes = 0.1

    def __init__(self, name: str, title: str, place: str, build: Callable[[int, int], Fusion]) -> None:
        super().__init__(name, title, place)
        self.build = build

    def folds(self, condition: Condition) -> int:
        return self.settings(condition).folds

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        settings = self.settings(data.condition)
        train, held = (
            Examples(rows, (Selected(given[AUDIO], rows), Selected(given[VISUAL], rows)), data.targets[rows])
            for rows in (data.rows("train"), data.rows("validation"))
        )

        def build() -> nn.Module:
            model = self.build(len(data.classes), settings.units)
            model.prepare(torch.stack([moments(one) for one in train.inputs]), moments(train.labels)[0])
            return model

        def run(optimisation: Optimisation, path: Path) -> Checkpoint:
            return self.train(
                data, build, lambda network, *batch: network.loss(*batch), train, optimisation, seed, path,
                lambda network: judged(predict(network, held.inputs, data.device, CHUNK), held.labels),
            )  # fmt: skip

        return best_rate(settings.fusion_rates, settings.fusion_optimisation, run, state_path)

    def network(self, checkpoint: Checkpoint, data: Data) -> Any:
        """The trained fusion, in evaluation mode."""
        model = self.build(checkpoint.state["moments"].shape[2], self.settings(data.condition).units)
        return checkpoint.load_into(model).to(data.device)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return predict(self.network(checkpoint, data), (given[AUDIO], given[VISUAL]), data.device, CHUNK)


def moments(rows: Rows) -> Tensor:
    """Mean and deviation of each column, float32 [2, columns]; a chunk at a time, for there may be millions of rows."""
    total, squares = 0.0, 0.0
    chunks = np.array_split(np.arange(len(rows)), range(CHUNK, len(rows), CHUNK))
    for chunk in chunks:
        total = total + np.asarray(rows[chunk], np.float64).sum(axis=0)
    mean = total / len(rows)
    for chunk in chunks:
        squares = squares + ((np.asarray(rows[chunk], np.float64) - mean) ** 2).sum(axis=0)
    return torch.from_numpy(np.stack([mean, np.sqrt(squares / len(rows))])).float()


class AttentionFusion(LearntFusion):
    """Attention fusion (section 3.4), whose weights can be asked for."""

    def modality_weights(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """alpha_a, the weight of audio, 0..1, float32 [clips, classes]."""
        model = self.network(checkpoint, data)

        def alpha(h_a: Tensor, h_v: Tensor) -> Tensor:
            return model.weights(*model.normalised(h_a, h_v))

        return predict(alpha, (given[AUDIO], given[VISUAL]), data.device, CHUNK)


class ClassWeights(AttentionFusion):
    """Attention fusion, trained as it is; then the weights of each class are their mean over the training clips."""

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        found = super().fit(data, given, seed, state_path)
        alpha = super().modality_weights(found, data, given)[data.rows("train")].mean(axis=0)
        return replace(found, numbers=found.numbers | {"class_weights": alpha.tolist()})

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        model, alpha = self.network(checkpoint, data), torch.tensor(checkpoint.numbers["class_weights"])

        def fused(h_a: Tensor, h_v: Tensor) -> Tensor:
            return torch.sigmoid(model.fused(*model.normalised(h_a, h_v), alpha.to(h_a.device)))

        return predict(fused, (given[AUDIO], given[VISUAL]), data.device, CHUNK)

    def modality_weights(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.tile(np.float32(checkpoint.numbers["class_weights"]), (len(given[AUDIO]), 1))


def _attention(row: str, title: str, place: str, **options: Any) -> AttentionFusion:
    return AttentionFusion(f"fayek2020/{row}", title, place, partial(Attention, **options))


ROWS: tuple[System, ...] = (
    Audio(FIRST, "Audio, first generation", "section 3.1"),
    CoSupervisedAudio(AUDIO, "Audio", "Table 2"),
    Visual(VISUAL, "Visual", "Table 2"),
    Average("fayek2020/average", "Average fusion", "Table 2"),
    LearntFusion("fayek2020/regression", "Regression fusion", "Table 2", lambda classes, units: Regression(classes)),
    LearntFusion("fayek2020/mlp", "MLP fusion", "Table 2", MLP),
    _attention("attention", "Attention fusion", "Table 2"),
    _attention("attention_self", "Attention (self unimodal)", "Table 4", attends="self"),
    _attention("attention_cross", "Attention (cross unimodal)", "Table 4", attends="cross"),
    _attention("attention_without_na_nv", "Attention without n_a and n_v", "Table 4", transforms=False),
    _attention("attention_without_nav", "Attention without n_av", "Table 4", combines=False),
    _attention("attention_as_printed", "Attention, usual initial values", "section 4.2", reading="printed"),
    _attention("attention_linear_output", "Attention, n_a and n_v end linearly", "section 4.2", reading="linear"),
    ClassWeights("fayek2020/attention_class_weights", "Attention, weights of classes", "ours", Attention),
)
