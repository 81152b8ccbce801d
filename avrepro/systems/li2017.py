"""The systems of Li et al. (2017): a CRNN on sound, objects and words on pictures, and their weighted sum by class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avrepro.evaluation import tagging_scores, tune_thresholds
from avrepro.features.audio import log_mel
from avrepro.features.logmel import LogMel
from avrepro.features.objects import (
    Choice,
    Recogniser,
    drawn_recogniser,
    imagenet_recogniser,
    key_frame_objects,
    key_frame_times,
    probe_recipe,
)
from avrepro.features.store import Feature
from avrepro.features.words import clip_objects, corrected_similarities, glove, map_objects_to_events, similarities
from avrepro.models.audio import mix_clips
from avrepro.models.li2017 import (
    CRNN,
    CRNNConfig,
    by_better_branch,
    by_better_branch_of_class,
    fuse,
    mil_loss,
    tuned_weights,
)
from avrepro.recipes import Recipe
from avrepro.systems.base import Checkpoint, Condition, Data, System
from avrepro.training import Optimisation, Validation, choose_device, predict


@dataclass(frozen=True)
class Settings:
    """Sizes of a run; every difference of another profile from ``paper`` is a stated deviation."""

    crnn: CRNNConfig
    optimisation: Optimisation
    mixing: float  # share of training clips that another clip is laid over
    frames_per_second: float  # of the frames that key frames are chosen from
    key_frames: int  # a clip
    backbone: str  # network that names objects, and whose maps are compared
    frame_size: tuple[int, int]  # height, width of the frames that objects are recognised in, px
    dissimilarity_size: tuple[int, int]  # height, width of the frames that are compared, px
    words: str  # vectors of object and event names
    drawn_pictures: int  # that the probe of drawn objects is taught with


# Section 3.2: Nesterov momentum 0.8, batch 95, rate 0.1 times 0.8 after 3 epochs without a fall of the validation
# loss; 18 epochs are the 6 hours at 20 minutes each in which the paper's model converges. "A gradient clipping limit of
# 10^-3" is read as a limit of each value: as a limit of the norm it would shrink the first gradients 280 times.
PAPER_OPTIMISATION = Optimisation(
    "sgd", learning_rate=0.1, batch=95, epochs=18, momentum=0.8, clip_value=1e-3, decay=0.8, patience=3
)
PAPER = Settings(
    crnn=CRNNConfig(),
    optimisation=PAPER_OPTIMISATION,
    mixing=0.0,
    frames_per_second=24.0,  # 240 frames of 10 s (section 3.4)
    key_frames=4,
    backbone="inception-v4",
    frame_size=(299, 299),
    dissimilarity_size=(224, 224),
    words="glove.840B.300d",
    drawn_pictures=10_000,
)
# 600 clips are 7 batches of 95 an epoch: the demo world is trained by Adam with small batches instead.
DEMO = replace(
    PAPER,
    crnn=CRNNConfig(channels=(16, 32, 64), stride_time=5),
    optimisation=Optimisation("adam", learning_rate=2e-3, batch=12, epochs=22, decay=0.5, patience=2),
    mixing=0.5,
    frames_per_second=3.0,
    backbone="efficientnet-lite0",
    frame_size=(216, 288),
    dissimilarity_size=(72, 96),
    words="glove.6B.50d",
    drawn_pictures=6_000,
)
CI = replace(
    DEMO,
    optimisation=replace(DEMO.optimisation, epochs=2),
    frames_per_second=1.0,
    frame_size=(96, 128),
    dissimilarity_size=(48, 64),
    drawn_pictures=400,
)
PROFILES = {"ci": CI, "demo": DEMO, "paper": PAPER}


class Audio(System):
    """The CRNN, trained by max-pooling MIL (sections 2.1, 3.2, 3.3)."""

    profiles = PROFILES
    modalities = ("audio",)
    fields = ("crnn", "optimisation", "mixing")
    minutes = 3.7

    def features(self, condition: Condition) -> dict[str, Feature]:
        return {"log_mel": log_mel(LogMel.li2017(), "li2017")}

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        settings = self.settings(data.condition)
        train, held = (self.examples(data, split) for split in ("train", "validation"))
        config = replace(settings.crnn, classes=len(data.classes))

        def loss(network: CRNN, log_mel: Tensor, weak_labels: Tensor) -> Tensor:
            log_mel, weak_labels = mix_clips(log_mel, weak_labels, settings.mixing)
            return mil_loss(network.clip(log_mel), weak_labels)

        def judge(network: Any) -> Validation:  # section 3.3: the epoch with the highest micro F1 is taken
            logits = torch.from_numpy(predict(network.clip, held.inputs, data.device))
            scores = torch.sigmoid(logits).numpy()
            f1 = tagging_scores(held.labels, scores >= tune_thresholds(held.labels, scores, seed)).f1
            return Validation(float(mil_loss(logits, torch.from_numpy(held.labels).float())), f1)

        optimisation = settings.optimisation
        return self.train(data, lambda: train.prepare(CRNN(config)), loss, train, optimisation, seed, state_path, judge)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        """P(e_k | x_i) of each clip."""
        model = checkpoint.load_into(CRNN(CRNNConfig(**checkpoint.numbers["config"]))).to(data.device)
        return predict(lambda log_mel: torch.sigmoid(model.clip(log_mel)), self.arrays(data), data.device)


class Video(System):
    """Key frames, the objects in them, and the events whose names are nearest (section 2.2); nothing is learnt."""

    profiles = PROFILES
    modalities = ("video",)
    fields = ("frames_per_second", "key_frames", "backbone", "frame_size", "dissimilarity_size", "words")
    seeded = False
    held_out_only = True

    def __init__(self, name: str, title: str, place: str, choice: Choice = "ds3", corrected: bool = False) -> None:
        super().__init__(name, title, place)
        self.choice: Choice = choice
        self.corrected = corrected  # whether words' vectors are freed of what all words share; ours

    def features(self, condition: Condition) -> dict[str, Feature]:
        settings, device = self.settings(condition), choose_device(condition.device)
        times = key_frame_times(
            settings.backbone, settings.frames_per_second, settings.dissimilarity_size, settings.key_frames, device,
            self.choice,
        )  # fmt: skip
        return {"times": times, "objects": key_frame_objects(times, settings.backbone, settings.frame_size, device)}

    def recipe(self, condition: Condition, parts: tuple[Recipe, ...] = ()) -> Recipe:
        settings = self.settings(condition)
        if condition.drawn:
            parts += (probe_recipe(settings.backbone, settings.drawn_pictures, settings.frame_size),)
        return super().recipe(condition, parts)

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        objects, _ = self.objects(data)
        return map_objects_to_events(objects, self.similarity(tuple(checkpoint.classes), data.condition))

    def recogniser(self, condition: Condition) -> Recogniser:
        """What names objects: ImageNet's classifier, or the probe of drawn objects."""
        settings, device = self.settings(condition), choose_device(condition.device)
        if condition.drawn:
            return drawn_recogniser(settings.backbone, settings.drawn_pictures, settings.frame_size, device)
        return imagenet_recogniser(settings.backbone, device)

    def objects(self, data: Data) -> tuple[np.ndarray, tuple[str, ...]]:
        """Rectified probabilities of objects of each clip, float64 [clips, objects], and the objects' names."""
        recogniser = self.recogniser(data.condition)
        pooled = data.arrays(self.features(data.condition)["objects"])
        return clip_objects(recogniser(pooled[:])), recogniser.objects

    def similarity(self, classes: tuple[str, ...], condition: Condition) -> np.ndarray:
        """Cosine of the word vectors of objects and classes, [objects, classes]."""
        objects = self.recogniser(condition).objects
        vectors = glove(self.settings(condition).words, (*objects, *classes))
        return (corrected_similarities if self.corrected else similarities)(objects, classes, vectors)


class Fused(System):
    """The weighted sum of audio and video, a weight a class, chosen on validation clips (sections 2.3, 3.4)."""

    profiles = PROFILES
    modalities = ()

    def __init__(
        self, name: str, title: str, place: str, video: str = "li2017/video",
        weights: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray] = by_better_branch,
    ) -> None:  # fmt: skip
        super().__init__(name, title, place)
        self.uses = ("li2017/audio", video)
        self.weights = weights

    def fit(self, data: Data, given: Mapping[str, np.ndarray], seed: int, state_path: Path) -> Checkpoint:
        rows = data.rows("validation")
        audio, video = (given[used][rows] for used in self.uses)
        return Checkpoint(numbers={"video_weights": self.weights(data.targets[rows], audio, video, seed).tolist()})

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        audio, video = (given[used] for used in self.uses)
        return fuse(audio, video, np.array(checkpoint.numbers["video_weights"]))


class WithThresholds(System):
    """Another system's scores, with another rule for the thresholds of its decisions."""

    profiles = PROFILES
    modalities = ()

    def __init__(self, name: str, title: str, place: str, of: str, rule: str) -> None:
        super().__init__(name, title, place)
        self.uses, self.threshold_rule = (of,), rule

    def scores(self, checkpoint: Checkpoint, data: Data, given: Mapping[str, np.ndarray]) -> np.ndarray:
        return given[self.uses[0]]


ROWS: tuple[System, ...] = (
    Audio("li2017/audio", "Audio only", "Table 1"),
    Video("li2017/video", "Video only", "section 3.4"),
    Fused("li2017/fused", "Audio + video (0.8 / 0.2)", "Table 1"),
    Fused("li2017/fused_tuned", "Audio + video, weights tuned", "section 2.3", weights=tuned_weights),
    Fused("li2017/fused_class_f1", "Audio + video (0.8 / 0.2 by step 1)", "ours", weights=by_better_branch_of_class),
    Video("li2017/video_even", "Video only, evenly spaced frames", "section 2.2.1", choice="even"),
    Video("li2017/video_kmeans", "Video only, frames by k-means", "section 2.2.1", choice="kmeans"),
    Video("li2017/video_corrected", "Video only, corrected words", "ours", corrected=True),
    Fused("li2017/fused_corrected", "Audio + video, corrected words", "ours", video="li2017/video_corrected"),
    WithThresholds("li2017/audio_half", "Audio only, threshold 0.5", "section 3.3", "li2017/audio", "half"),
    WithThresholds("li2017/audio_single", "Audio only, one threshold", "section 3.3", "li2017/audio", "single"),
    WithThresholds("li2017/fused_half", "Audio + video, threshold 0.5", "section 3.3", "li2017/fused", "half"),
    WithThresholds("li2017/fused_single", "Audio + video, one threshold", "section 3.3", "li2017/fused", "single"),
)
