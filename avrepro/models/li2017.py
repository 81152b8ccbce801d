"""Li et al. (2017): a CRNN that learns frames from clip labels by max-pooling MIL, and its fusion with pictures."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor, nn

from avrepro.evaluation import tagging_scores, tune_thresholds
from avrepro.models.audio import band_deviation, centred, recorded, start_at_frequencies


@dataclass(frozen=True)
class CRNNConfig:
    """Sizes of the network. The paper gives frame rates, GRU and dropout (section 3.2); the rest is open."""

    classes: int = 17
    mels: int = 60
    channels: tuple[int, ...] = (32, 64, 128)  # open in the paper; doubled at each pooling as usual
    pool_time: tuple[int, ...] = (5, 2, 2)  # 200 Hz -> 10 Hz
    pool_mel: tuple[int, ...] = (3, 2, 2)  # 60 bands -> 5
    stride_time: int = 1  # of the first convolution; more trades detail for speed
    hidden: int = 100  # GRU units in each direction
    dropout: float = 0.2


class CRNN(nn.Module):
    """Log-mel spectrogram -> probability of each class in each frame; :meth:`clip` pools them.

    Li et al. (2017), section 3.2 and the left branch of figure 2. Batch normalisation after each
    convolution and 3 x 3 kernels are ours: the paper does not say.
    """

    deviation: Tensor

    def __init__(self, config: CRNNConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("deviation", torch.ones(config.mels))  # of each band; part of the checkpoint
        layers: list[nn.Module] = []
        inputs, stride = 1, config.stride_time
        for outputs, time, mel in zip(config.channels, config.pool_time, config.pool_mel, strict=True):
            layers += [
                nn.Conv2d(inputs, outputs, 3, padding=1, stride=(stride, 1), bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
                nn.MaxPool2d((time // stride, mel)),
                nn.Dropout(config.dropout),
            ]
            inputs, stride = outputs, 1
        self.convolutions = nn.Sequential(*layers)
        for parameter in self.convolutions.parameters():  # laid out by pixel: a third faster on CPUs
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        bands = config.mels
        for mel in config.pool_mel:
            bands //= mel
        self.gru = nn.GRU(inputs * bands, config.hidden, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(2 * config.hidden, config.classes)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Frame-wise logits.

        :param log_mel: float [clips, frames, mels], 200 frames a second; -inf beyond the end of a short clip.
        :returns: float [clips, frames / 20, classes]; the sigmoid of it is P(e_k | x_ij).
        """
        scaled = centred(log_mel) / self.deviation  # (B, T, M)
        maps = self.convolutions(scaled.unsqueeze(1))  # (B, C, T, M)
        sequence = maps.permute(0, 2, 1, 3).flatten(2)  # (B, T, C * M)
        hidden, _ = self.gru(sequence)  # (B, T, 2 * H)
        return self.classify(self.dropout(hidden))  # (B, T, K)

    def clip(self, log_mel: Tensor) -> Tensor:
        """Clip-wise logits, float [clips, classes]: section 2.1, P(e_k | x_i) = max_j P(e_k | x_ij).

        The sigmoid grows with its argument, so the maximum of the logits is the logit of the maximum;
        only the maximal frame of a clip receives gradient.
        """
        logits = self(log_mel)  # (B, J, K)
        pooled = prod(self.config.pool_time)
        here = recorded(log_mel)[:, : logits.shape[1] * pooled].unflatten(1, (-1, pooled)).any(dim=2)  # (B, J)
        return logits.masked_fill(~here.unsqueeze(2), -torch.inf).amax(dim=1)  # (B, K)

    def prepare(self, log_mel: Tensor, weak_labels: Tensor) -> None:
        """Take the bands' deviations over training clips, float [clips, frames, mels], and first guesses of classes."""
        self.deviation.copy_(band_deviation(log_mel))
        start_at_frequencies(self.classify, weak_labels.mean(dim=0))


def mil_loss(clip_logits: Tensor, weak_labels: Tensor) -> Tensor:
    """Cross entropy averaged over clips and classes (section 2.1, L(x)); both [clips, classes], labels 0 or 1."""
    return nn.functional.binary_cross_entropy_with_logits(clip_logits, weak_labels)


def fuse(audio: np.ndarray, video: np.ndarray, video_weights: np.ndarray) -> np.ndarray:
    """Section 2.3: the average of both branches' probabilities [clips, classes], weighted by class [classes], 0..1."""
    return video_weights * video + (1 - video_weights) * audio


def fusion_weights(audio_class_f1: np.ndarray, video_class_f1: np.ndarray) -> np.ndarray:
    """Section 3.4: the video branch weighs 0.8 in the classes where it is better on validation, else 0.2."""
    return np.where(video_class_f1 > audio_class_f1, 0.8, 0.2)


def by_better_branch(y_true: np.ndarray, audio: np.ndarray, video: np.ndarray, seed: int = 0) -> np.ndarray:
    """:func:`fusion_weights` of the classes' F1 at thresholds tuned for micro F1 (section 3.3), [classes].

    :param y_true: labels, bool [clips, classes] of validation clips; scores ``audio`` and ``video`` likewise.
    """
    f1 = [tagging_scores(y_true, one >= tune_thresholds(y_true, one, seed)).class_f1 for one in (audio, video)]
    return fusion_weights(*f1)


def by_better_branch_of_class(y_true: np.ndarray, audio: np.ndarray, video: np.ndarray, seed: int = 0) -> np.ndarray:
    """The same at thresholds tuned for each class's own F1, step 1 of section 3.3: the other reading."""
    columns = [slice(k, k + 1) for k in range(y_true.shape[1])]
    weights = [by_better_branch(y_true[:, k], audio[:, k], video[:, k], seed) for k in columns]
    return np.concatenate(weights)


def tuned_weights(y_true: np.ndarray, audio: np.ndarray, video: np.ndarray, seed: int = 0) -> np.ndarray:
    """Weights "tuned toward achieving the best overall F1" (section 2.3); arguments as of :func:`by_better_branch`.

    Ours: from the paper's weights on, classes in a random order take the weight out of 0, 0.1, ... 1 that gives
    the highest micro F1 (thresholds of the fused scores tuned anew each time), until a round changes nothing.
    """
    rng = np.random.default_rng(seed)

    def micro_f1(weights: np.ndarray) -> float:
        fused = fuse(audio, video, weights)
        return tagging_scores(y_true, fused >= tune_thresholds(y_true, fused, seed)).f1

    weights = by_better_branch(y_true, audio, video, seed)
    best, changed = micro_f1(weights), True
    while changed:
        changed = False
        for column in rng.permutation(len(weights)):
            for weight in np.linspace(0, 1, 11):
                trial = weights.copy()
                trial[column] = weight
                found = micro_f1(trial)
                if found > best:
                    weights, best, changed = trial, found, True
    return weights
