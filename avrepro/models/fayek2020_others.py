"""The other systems of Table 3 of Fayek and Kumar (2020): residual audio, (2+1)D video, and both by gradient blending.

- Ford et al., "A deep residual network for large-scale acoustic scene analysis" (Interspeech 2019): ResNet-50.
- Tran et al., "A closer look at spatiotemporal convolutions for action recognition" (CVPR 2018): R(2+1)D, each
  convolution over space and time split into one over space and one over time; 101 layers in Wang et al.
- Wang et al., "What makes training multi-modal classification networks hard?" (arXiv 1905.12681; CVPR 2020):
  gradient blending.

Blocks are timm's and torchvision's. Wider, narrower and shallower ones are a matter of the configuration.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any, Literal

import torch
from timm.models import resnet
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video.resnet import BasicBlock, Bottleneck, Conv2Plus1D

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
    stride: int = 1  # frames averaged into one before the first convolution: a smaller picture of the sound

    def values(self) -> dict:
        return asdict(self)


@dataclass(frozen=True)
class VideoR2Plus1DConfig:
    """Sizes of :class:`VideoR2Plus1D`; the defaults are R(2+1)D-101's."""

    classes: int = 527
    block: Block = "bottleneck"
    layers: tuple[int, ...] = (3, 4, 23, 3)  # blocks of each stage
    channels: tuple[int, ...] = (64, 128, 256, 512)  # four times as many come out of bottlenecks

    def values(self) -> dict:
        return asdict(self)


class ResidualAudio(nn.Module):
    """Log-mel spectrogram -> logits: a residual network for pictures that have one channel, time by frequency."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: ResidualAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.mels))
        self.register_buffer("deviation", torch.ones(config.mels))
        # Any: timm's own hint asks for a block where it means a class of blocks.
        block: Any = resnet.Bottleneck if config.block == "bottleneck" else resnet.BasicBlock
        self.network = resnet.ResNet(
            block, config.layers, num_classes=config.classes, in_chans=1, channels=config.channels
        )
        self.width: int = self.network.num_features

    @property
    def classify(self) -> nn.Linear:
        """The last layer."""
        return self.network.fc

    def features(self, log_mel: Tensor) -> Tensor:
        """Means of the last maps over time and frequency, [clips, width]; input as of :meth:`forward`."""
        scaled = (log_mel - self.mean) / self.deviation
        picture = F.avg_pool2d(scaled.unsqueeze(1), (self.config.stride, 1))  # (B, 1, T / stride, M)
        return self.network.forward_head(self.network.forward_features(picture), pre_logits=True)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Logits [clips, classes] of log-mel float [clips, frames, mels]; any number of frames from 32 x stride on."""
        return self.classify(self.features(log_mel))

    def prepare(self, log_mel: Tensor, weak_labels: Tensor) -> None:
        """Fit what is not trained by gradient on training clips: the bands' scale, and how common a class is.

        :param log_mel: float [clips, frames, mels]. :param weak_labels: 0 or 1, [clips, classes].
        """
        self.mean.copy_(log_mel.mean(dim=(0, 1)))
        self.deviation.copy_(log_mel.std(dim=(0, 1)).clamp(min=1e-3))
        start_at_base_rates(self.classify, weak_labels)


class VideoR2Plus1D(nn.Module):
    """Frames -> logits: residual blocks of convolutions over space, each followed by one over time.

    As torchvision's ``VideoResNet`` (the same weights give the same output at its widths), with dials. Of the stem's 45
    intermediate channels for 64 outputs, narrower networks have the same share.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: VideoR2Plus1DConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.full((3,), 0.5))  # of colours 0..1
        self.register_buffer("deviation", torch.full((3,), 0.25))
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

    def features(self, frames: Tensor) -> Tensor:
        """Means of the last maps over time and space, [clips, width]; input as of :meth:`forward`."""
        scaled = (frames.float() / 255 - self.mean) / self.deviation
        maps = self.blocks(self.stem(scaled.permute(0, 4, 1, 2, 3).contiguous()))  # (B, C, T, H, W)
        return maps.mean(dim=(2, 3, 4))

    def forward(self, frames: Tensor) -> Tensor:
        """Logits [clips, classes] of frames, uint8 or float 0..255, [clips, frames, H, W, 3] RGB."""
        return self.classify(self.features(frames))

    def prepare(self, frames: Tensor, weak_labels: Tensor) -> None:
        """Fit what is not trained by gradient on training clips: the colours' scale, and how common a class is.

        :param frames: 0..255, [clips, frames, H, W, 3]. :param weak_labels: 0 or 1, [clips, classes].
        """
        colours = frames.reshape(-1, 3).double() / 255  # float32 sums over so many pixels would lose digits
        self.mean.copy_(colours.mean(dim=0))
        self.deviation.copy_(colours.std(dim=0).clamp(min=1e-3))
        start_at_base_rates(self.classify, weak_labels)


class JointAudioVisual(nn.Module):
    """Both networks with three heads: on what is heard, on what is seen, and on both side by side (late concatenation).

    :param hidden: units of the joint head's hidden layer.
    :raises ValueError: the two configurations differ in classes.
    """

    def __init__(self, audio: ResidualAudioConfig, visual: VideoR2Plus1DConfig, hidden: int) -> None:
        super().__init__()
        if audio.classes != visual.classes:
            raise ValueError(f"the networks have {audio.classes} and {visual.classes} classes; expected the same")
        self.audio = ResidualAudio(audio)
        self.visual = VideoR2Plus1D(visual)
        both = self.audio.width + self.visual.width
        # Ours: with the normalisation no hidden unit is silent for all clips, as all of them can be after a few steps.
        self.joint = nn.Sequential(nn.Linear(both, hidden), nn.LayerNorm(hidden), nn.ReLU())
        self.classify = nn.Linear(hidden, audio.classes)

    def forward(self, log_mel: Tensor, frames: Tensor, heads: Collection[str] = HEADS) -> dict[str, Tensor]:
        """Logits [clips, classes] of each head asked for. A trunk that none of them needs does not run.

        :param log_mel: float [clips, frames, mels]. :param frames: 0..255, [clips, frames, H, W, 3].
        :param heads: out of ``HEADS``.
        """
        logits = {}
        if "audio" in heads or "joint" in heads:
            heard = self.audio.features(log_mel)
        if "visual" in heads or "joint" in heads:
            seen = self.visual.features(frames)
        if "audio" in heads:
            logits["audio"] = self.audio.classify(heard)
        if "visual" in heads:
            logits["visual"] = self.visual.classify(seen)
        if "joint" in heads:
            logits["joint"] = self.classify(self.joint(torch.cat((heard, seen), dim=1)))
        return logits

    def prepare(self, log_mel: Tensor, frames: Tensor, weak_labels: Tensor) -> None:
        """As of the two networks; afterwards all three heads say the same of every clip."""
        self.audio.prepare(log_mel, weak_labels)
        self.visual.prepare(frames, weak_labels)
        start_at_base_rates(self.classify, weak_labels)


def start_at_base_rates(layer: nn.Linear, weak_labels: Tensor) -> None:
    """Ours: a last layer that says of every clip how common each class is among ``weak_labels`` [clips, classes].

    So training does not begin by unlearning a half for every class, and all heads of a joint network start with the
    same loss, from which gradient blending measures.
    """
    nn.init.zeros_(layer.weight)
    with torch.no_grad():
        layer.bias.copy_(torch.logit(weak_labels.float().mean(dim=0), eps=1e-3))


@dataclass(frozen=True)
class Losses:
    """What a head loses on average, in nats a clip and class, with the network in evaluation mode."""

    train: float
    validation: float


def blending_weights(start: Mapping[str, Losses], end: Mapping[str, Losses]) -> dict[str, float]:
    """Weight of each head's loss by gradient blending: w_k proportional to G_k / O_k^2, summing to 1 (Wang et al.).

    Between two moments of a head's own training, G is by how much the validation loss fell (generalisation), O by how
    much the gap between validation and training loss grew (overfitting). The formula leaves open, and here it is so:

    - a head with G <= 0 has learnt nothing that holds for other clips. It gets a hundredth of the largest weight:
      never a negative one, and not none, or the head would stay as it began;
    - if no head has G > 0, nothing tells them apart: equal weights;
    - an O near 0 would take all the weight by an accident of measurement: |O| counts as at least a tenth of the
      largest among the heads with G > 0, so that it changes no weight more than a hundredfold; if it is 0 for all
      of them, G alone decides.

    :param start: head -> losses before. :param end: head -> losses after.
    :raises ValueError: the heads differ, there are none, or a loss is not finite.
    """
    if not start or start.keys() != end.keys():
        raise ValueError(f"expected losses of the same heads, found {sorted(start)} and {sorted(end)}")
    wrong = [head for at in (start, end) for head, of in at.items() if not isfinite(of.train + of.validation)]
    if wrong:
        raise ValueError(f"head {wrong[0]}: expected finite losses, found {start[wrong[0]]} and {end[wrong[0]]}")
    gain = {head: start[head].validation - end[head].validation for head in start}  # G
    useful = [head for head in start if gain[head] > 0]
    if not useful:
        return {head: 1 / len(start) for head in start}
    grown = {head: end[head].validation - end[head].train for head in useful}
    grown = {head: abs(gap - (start[head].validation - start[head].train)) for head, gap in grown.items()}  # |O|
    least = LEAST_OVERFITTING * max(grown.values())
    ratio = {head: gain[head] / (max(grown[head], least) if least else 1) ** 2 for head in useful}
    ratio = {head: ratio.get(head, LEAST_WEIGHT * max(ratio.values())) for head in start}
    return {head: of / sum(ratio.values()) for head, of in ratio.items()}


def blended_loss(logits: Mapping[str, Tensor], weak_labels: Tensor, weights: Mapping[str, float]) -> Tensor:
    """sum_k w_k L_k, binary cross entropy of each head that has weight, averaged over clips and classes.

    :param logits: head -> [clips, classes]. :param weak_labels: 0 or 1, [clips, classes].
    """
    return sum(
        (weight * F.binary_cross_entropy_with_logits(logits[head], weak_labels) for head, weight in weights.items()),
        start=weak_labels.new_zeros(()),
    )
