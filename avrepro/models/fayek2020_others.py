"""The other systems of Table 3 of Fayek and Kumar (2020): residual audio, (2+1)D video, and both by gradient blending.

- Ford et al., "A deep residual network for large-scale acoustic scene analysis" (Interspeech 2019): ResNet-50.
- Tran et al., "A closer look at spatiotemporal convolutions for action recognition" (CVPR 2018): R(2+1)D, each
  convolution over space and time split into one over space and one over time; 101 layers in Wang et al.
- Wang et al., "What makes training multi-modal classification networks hard?" (arXiv 1905.12681; CVPR 2020):
  gradient blending.

Blocks are timm's and torchvision's. Wider, narrower and shallower ones are a matter of the configuration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models.audio import recorded, start_at_frequencies

Block = Literal["basic", "bottleneck"]
HEADS = ("audio", "visual", "joint")
LEAST_WEIGHT, LEAST_OVERFITTING = 0.01, 0.1  # of the largest, see blending_weights


@dataclass(frozen=True)
class ResidualAudioConfig:
    """Sizes of :class:`ResidualAudio`; the defaults are ResNet-50's."""

    classes: int = 527
    mels: int = 64
    block: Block = "bottleneck"
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)  # blocks of each stage
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)  # four times as many come out of bottlenecks
    stride: int = 1  # frames averaged into one before the first convolution


@dataclass(frozen=True)
class VideoR2Plus1DConfig:
    """Sizes of :class:`VideoR2Plus1D`; the defaults are R(2+1)D-101's."""

    classes: int = 527
    block: Block = "bottleneck"
    layers: tuple[int, ...] = (3, 4, 23, 3)  # blocks of each stage
    channels: tuple[int, ...] = (64, 128, 256, 512)  # four times as many come out of bottlenecks


class Classifier(nn.Module, ABC):
    """Inputs scaled as in the training clips -> features -> logits by a last layer, :attr:`classify`."""

    mean: Tensor
    deviation: Tensor
    classify: nn.Linear
    width: int  # features of a clip

    def __init__(self, mean: Tensor, deviation: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)

    @abstractmethod
    def features(self, inputs: Tensor) -> Tensor:
        """Means of the last maps over time and space or frequency, [clips, width]."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits [clips, classes]."""
        return self.classify(self.features(inputs))

    def scale_by(self, values: Tensor, weak_labels: Tensor) -> None:
        """Fit what is not trained by gradient: scales, to ``values`` [any, scales], and the classes' shares."""
        self.mean.copy_(values.mean(dim=0))
        self.deviation.copy_(values.std(dim=0).clamp(min=1e-3))
        start_at_base_rates(self.classify, weak_labels)


class ResidualAudio(Classifier):
    """Log-mel spectrogram, float [clips, frames >= 32 x stride, mels], -inf beyond a clip's end: a residual network."""

    def __init__(self, config: ResidualAudioConfig) -> None:
        super().__init__(torch.zeros(config.mels), torch.ones(config.mels))
        self.config = config
        # Any: timm's own hint asks for a block where it means a class of blocks.
        from timm.models import resnet  # takes seconds to import

        block: Any = resnet.Bottleneck if config.block == "bottleneck" else resnet.BasicBlock
        self.network = resnet.ResNet(
            block, config.layers, num_classes=config.classes, in_chans=1, channels=config.channels
        )
        self.width = self.network.num_features

    @property
    def classify(self) -> nn.Linear:  # type: ignore[override]
        return self.network.fc

    def features(self, inputs: Tensor) -> Tensor:
        scaled = torch.where(inputs > -torch.inf, (inputs - self.mean) / self.deviation, 0.0)
        picture = F.avg_pool2d(scaled.unsqueeze(1), (self.config.stride, 1))  # (B, 1, T / stride, M)
        return self.network.forward_head(self.network.forward_features(picture), pre_logits=True)

    def prepare(self, log_mel: Tensor, weak_labels: Tensor) -> None:
        self.scale_by(log_mel[recorded(log_mel)], weak_labels)


class VideoR2Plus1D(Classifier):
    """Frames, 0..255, [clips, frames, H, W, 3] RGB: residual blocks of convolutions over space, each then over time.

    As torchvision's ``VideoResNet`` (the same weights give the same output at its widths), of any size. Of the stem's
    45 intermediate channels for 64 outputs, narrower networks have the same share.
    """

    def __init__(self, config: VideoR2Plus1DConfig) -> None:
        super().__init__(torch.full((3,), 0.5), torch.full((3,), 0.25))  # of colours 0..1
        self.config = config
        width = config.channels[0]
        between = max(1, 45 * width // 64)
        self.stem = nn.Sequential(
            nn.Conv3d(3, between, (1, 7, 7), (1, 2, 2), (0, 3, 3), bias=False),
            nn.BatchNorm3d(between),
            nn.ReLU(inplace=True),
            nn.Conv3d(between, width, (3, 1, 1), 1, (1, 0, 0), bias=False),
            nn.BatchNorm3d(width),
            nn.ReLU(inplace=True),
        )
        # takes seconds to import
        from torchvision.models.video.resnet import BasicBlock, Bottleneck, Conv2Plus1D

        kind: type[BasicBlock | Bottleneck] = Bottleneck if config.block == "bottleneck" else BasicBlock
        blocks: list[nn.Module] = []
        for stage, (count, channels) in enumerate(zip(config.layers, config.channels, strict=True)):
            outputs = channels * kind.expansion
            for place in range(count):
                stride = 2 if stage and not place else 1  # over space and time alike
                shortcut = None
                if stride != 1 or width != outputs:
                    shortcut = nn.Sequential(nn.Conv3d(width, outputs, 1, stride, bias=False), nn.BatchNorm3d(outputs))
                blocks.append(kind(width, channels, Conv2Plus1D, stride, shortcut))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.width = width
        self.classify = nn.Linear(width, config.classes)
        for layer in self.modules():
            if isinstance(layer, nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def features(self, inputs: Tensor) -> Tensor:
        scaled = (inputs.float() / 255 - self.mean) / self.deviation
        maps = self.blocks(self.stem(scaled.permute(0, 4, 1, 2, 3).contiguous()))  # (B, C, T, H, W)
        return maps.mean(dim=(2, 3, 4))

    def prepare(self, frames: Tensor, weak_labels: Tensor) -> None:
        # float32 sums over so many pixels would lose digits
        self.scale_by(frames.reshape(-1, 3).double() / 255, weak_labels)


class JointAudioVisual(nn.Module):
    """Both networks with three heads: on audio, on video, and on both side by side, of ``hidden`` units."""

    def __init__(self, audio: ResidualAudioConfig, visual: VideoR2Plus1DConfig, hidden: int) -> None:
        super().__init__()
        self.audio = ResidualAudio(audio)
        self.visual = VideoR2Plus1D(visual)
        both = self.audio.width + self.visual.width
        # Ours: with the normalisation no hidden unit is silent for all clips, as all of them can be after a few steps.
        self.joint = nn.Sequential(nn.Linear(both, hidden), nn.LayerNorm(hidden), nn.ReLU())
        self.classify = nn.Linear(hidden, audio.classes)

    def forward(self, log_mel: Tensor, frames: Tensor, heads: Collection[str] = HEADS) -> dict[str, Tensor]:
        """Logits [clips, classes] of some of the ``HEADS``. A trunk that none of them needs does not run."""
        logits = {}
        if "audio" in heads or "joint" in heads:
            audio = self.audio.features(log_mel)
        if "visual" in heads or "joint" in heads:
            visual = self.visual.features(frames)
        if "audio" in heads:
            logits["audio"] = self.audio.classify(audio)
        if "visual" in heads:
            logits["visual"] = self.visual.classify(visual)
        if "joint" in heads:
            logits["joint"] = self.classify(self.joint(torch.cat((audio, visual), dim=1)))
        return logits

    def prepare(self, log_mel: Tensor, frames: Tensor, weak_labels: Tensor) -> None:
        """As of the two networks; afterwards all three heads give every clip the same scores."""
        self.audio.prepare(log_mel, weak_labels)
        self.visual.prepare(frames, weak_labels)
        start_at_base_rates(self.classify, weak_labels)


def start_at_base_rates(layer: nn.Linear, weak_labels: Tensor) -> None:
    """Ours: a last layer that gives every clip the share of clips with each class in ``weak_labels`` [clips, classes].

    So all heads of a joint network start with the same loss, from which gradient blending measures.
    """
    nn.init.zeros_(layer.weight)
    start_at_frequencies(layer, weak_labels.float().mean(dim=0))


@dataclass(frozen=True)
class Losses:
    """Mean binary cross entropy of a head, nats a clip and class, with the network in evaluation mode."""

    train: float
    validation: float

    @property
    def gap(self) -> float:
        return self.validation - self.train


def blending_weights(start: Mapping[str, Losses], end: Mapping[str, Losses]) -> dict[str, float]:
    """Weight of each head's loss by gradient blending: w_k proportional to G_k / O_k^2, summing to 1 (Wang et al.).

    Between two moments of a head's own training, G is by how much the validation loss fell (generalisation), O by how
    much the gap between validation and training loss grew (overfitting). Where the formula leaves it open, ours are:
    a head with G <= 0 gets a hundredth of the largest weight, not zero, or it would stay as it began; |O| counts as at
    least a tenth of the largest among the heads with G > 0, or an O near 0 would take all the weight by chance.

    :param start: head -> losses before; ``end``: losses after.
    :raises ValueError: a loss is not finite.
    """
    for head in start:
        if not np.isfinite([*astuple(start[head]), *astuple(end[head])]).all():
            raise ValueError(f"head {head}: expected finite losses, found {start[head]} and {end[head]}")
    gain = np.array([start[head].validation - end[head].validation for head in start])  # G
    overfitting = np.array([end[head].gap - start[head].gap for head in start])  # O
    useful = gain > 0
    if not useful.any():
        return dict.fromkeys(start, 1 / len(start))
    size = np.abs(overfitting)
    size = np.maximum(size, LEAST_OVERFITTING * size[useful].max())
    size = np.where(size > 0, size, 1)  # no useful head has a gap: G alone decides
    ratio = gain / size**2
    ratio = np.where(useful, ratio, LEAST_WEIGHT * ratio[useful].max())
    return dict(zip(start, (ratio / ratio.sum()).tolist(), strict=True))


def blended_loss(logits: Mapping[str, Tensor], weak_labels: Tensor, weights: Mapping[str, float]) -> Tensor:
    """sum_k w_k L_k, binary cross entropies averaged over clips and classes; logits and labels are [clips, classes]."""
    losses = {head: F.binary_cross_entropy_with_logits(logits[head], weak_labels) for head in weights}
    return sum((weight * losses[head] for head, weight in weights.items()), start=weak_labels.new_zeros(()))
