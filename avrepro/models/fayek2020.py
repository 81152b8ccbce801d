"""Fayek and Kumar (2020): an audio ConvNet, a visual network, and fusions of their outputs.

The two models' outputs are probabilities of the classes, ``h_a`` and ``h_v``; fusions read those and nothing else of a
clip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models.audio import band_deviation, centred, recorded, start_at_frequencies

PADDED = ("B1", "B2", "B3", "B4")  # blocks whose convolutions look beyond the end of a clip
SMALLEST = 1e-6  # of a probability, and of a deviation that something is divided by


@dataclass(frozen=True)
class AudioConfig:
    """Sizes of the audio ConvNet; the defaults are the paper's Table 1."""

    classes: int = 527
    mels: int = 64
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)  # of blocks B1 to B4
    instance: int = 2048  # features of a segment: block B5
    units: int = 1024  # of B6 and B7


class AudioConvNet(nn.Module):
    """Log-mel spectrogram -> probability of each class in the clip (section 3.1, Table 1).

    A segment is 96 frames, one every 32; with the margins of the convolutions before B5 it sees 212.
    """

    deviation: Tensor

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("deviation", torch.ones(config.mels))  # of each band; part of the checkpoint
        self.blocks = nn.ModuleDict()
        inputs = 1
        for number, outputs in enumerate(config.channels, start=1):
            pooling = nn.MaxPool2d(4 if number == 1 else 2)
            layers = [*_convolution(inputs, outputs, 3, 1), *_convolution(outputs, outputs, 3, 1), pooling]
            self.blocks[f"B{number}"] = nn.Sequential(*layers)
            inputs = outputs
        for name, outputs, size in (("B5", config.instance, (3, 2)), ("B6", config.units, 1), ("B7", config.units, 1)):
            self.blocks[name] = nn.Sequential(*_convolution(inputs, outputs, size, 0))
            inputs = outputs
        self.blocks["B8"] = nn.Sequential(nn.Conv2d(inputs, config.classes, 1))

    def segments(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of each class in each segment, and which segments lie within the recording.

        :param log_mel: float [clips, frames >= 96, 64], 100 frames a second; -inf beyond the end of a short clip.
        :returns: float [clips, frames // 32 - 2, classes], and bool [clips, frames // 32 - 2].
        """
        frames, size = recorded(log_mel).sum(dim=1, keepdim=True), 1  # (B, 1); frames of a column of the maps
        padded = PADDED if bool((frames < log_mel.shape[1]).any()) else ()
        maps = (centred(log_mel) / self.deviation).unsqueeze(1)  # (B, 1, T, M)
        for name, block in self.blocks.items():
            for layer in block:  # type: ignore[attr-defined]
                maps = layer(maps)  # (B, C, T, M), of ever fewer columns and bands
                if isinstance(layer, nn.MaxPool2d):
                    size *= 4 if name == "B1" else 2
                if isinstance(layer, nn.MaxPool2d | nn.ReLU) and name in padded:
                    maps = maps * _within(frames, maps.shape[2], size)[:, None, :, None]  # as if the clip ended there
        probability = torch.sigmoid(maps.squeeze(3)).transpose(1, 2)  # (B, S, C)
        return probability, _within(frames - 2 * size, probability.shape[1], size)  # a segment is three columns

    def forward(self, log_mel: Tensor) -> Tensor:
        """G, global average pooling over the segments within the recording: float [clips, classes], 0..1."""
        probability, within = self.segments(log_mel)  # (B, S, C), (B, S)
        within[:, 0] = True  # also of a clip that is shorter than a segment
        return (probability * within.unsqueeze(2)).sum(dim=1) / within.sum(dim=1, keepdim=True)

    def prepare(self, log_mel: Tensor, weak_labels: Tensor) -> None:
        """Take the bands' deviations over training clips, float [clips, frames, mels], and first guesses of classes."""
        start_at_frequencies(self.blocks["B8"][0], weak_labels.mean(dim=0))  # type: ignore[index]
        self.deviation.copy_(band_deviation(log_mel))


def _within(frames: Tensor, columns: int, size: int) -> Tensor:
    """Which columns of ``size`` frames lie within the first ``frames`` [clips, 1] of a clip, bool [clips, columns]."""
    return torch.arange(1, columns + 1, device=frames.device) * size <= frames


def _convolution(inputs: int, outputs: int, size: int | tuple[int, int], padding: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, size, padding=padding, bias=False)
    convolution.weight.data = convolution.weight.data.contiguous(memory_format=torch.channels_last)  # quicker on CPUs
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


@dataclass(frozen=True)
class VisualConfig:
    """Sizes of the visual network; the defaults are the paper's (section 3.2)."""

    classes: int = 527
    inputs: int = 2048  # features of a frame
    hidden: tuple[int, int, int, int] = (2048, 2048, 1024, 1024)
    dropout: float = 0.3  # after the first two


class VisualNetwork(nn.Module):
    """Mean features of a clip's frames -> probability of each class (section 3.2).

    Ours: features are normalised by their mean and deviation over the training clips.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: VisualConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.inputs))
        self.register_buffer("deviation", torch.ones(config.inputs))
        layers: list[nn.Module] = []
        inputs = config.inputs
        for number, outputs in enumerate(config.hidden, start=1):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
            if number <= 2:
                layers.append(nn.Dropout(config.dropout))
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, config.classes))

    def forward(self, features: Tensor) -> Tensor:
        """Float [clips, inputs], the mean over a clip's frames -> [clips, classes], 0..1."""
        return torch.sigmoid(self.layers((features - self.mean) / self.deviation))

    def prepare(self, features: Tensor, weak_labels: Tensor) -> None:
        """Take mean and deviation of training clips' features, float [clips, inputs], and first guesses of classes."""
        start_at_frequencies(self.layers[-1], weak_labels.mean(dim=0))
        self.mean.copy_(features.mean(dim=0))
        self.deviation.copy_(features.std(dim=0).clamp(min=1e-3))


def clip_loss(probability: Tensor, weak_labels: Tensor) -> Tensor:
    """Equation 2: binary cross entropy averaged over clips and classes; both [clips, classes], 0..1."""
    return F.binary_cross_entropy(probability, weak_labels)


def co_supervised(weak_labels: Tensor, teacher: Tensor, weight: float) -> Tensor:
    """Targets of a generation: (1 - weight) y + weight p, labels and the previous generation's predictions.

    Sequential co-supervision (Kumar and Ithapu 2020); all float [clips, classes], 0..1.
    """
    return (1 - weight) * weak_labels + weight * teacher


# --- fusions of h_a and h_v ------------------------------------------------------------------------------------------


class Fusion(nn.Module, ABC):
    """What the learnt fusions share: outputs of zero mean and unit deviation in training (section 4.2) -> logits.

    h_a and h_v are [clips, classes] throughout.
    """

    moments: Tensor  # [(audio, visual), (mean, deviation), classes]; part of the checkpoint

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("moments", torch.stack([torch.zeros(classes), torch.ones(classes)]).repeat(2, 1, 1))

    def prepare(self, moments: Tensor, frequencies: Tensor) -> None:
        """Take the moments of both outputs over the training clips, and the share of them that has each class."""
        self.moments.copy_(moments)
        self.moments[:, 1].clamp_(min=SMALLEST)
        for layer in self.outputs():
            start_at_frequencies(layer, frequencies)

    def normalised(self, h_a: Tensor, h_v: Tensor) -> tuple[Tensor, Tensor]:
        (mean_a, deviation_a), (mean_v, deviation_v) = self.moments
        return (h_a - mean_a) / deviation_a, (h_v - mean_v) / deviation_v

    @abstractmethod
    def logits(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        """Of normalised outputs."""

    @abstractmethod
    def outputs(self) -> list[nn.Module]:
        """The layers whose outputs become probabilities of the classes."""

    def loss(self, h_a: Tensor, h_v: Tensor, weak_labels: Tensor) -> Tensor:
        """Equation 2 of the fused probabilities; outputs as the models give them."""
        return F.binary_cross_entropy_with_logits(self.logits(*self.normalised(h_a, h_v)), weak_labels)

    def forward(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        """Fused probabilities, 0..1, of outputs as the models give them."""
        return torch.sigmoid(self.logits(*self.normalised(h_a, h_v)))


class Regression(Fusion):
    """A linear layer on both outputs, L2 regularised (section 3.3)."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.linear = nn.Linear(2 * classes, classes)

    def logits(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        return self.linear(torch.cat([h_a, h_v], dim=1))

    def outputs(self) -> list[nn.Module]:
        return [self.linear]

    def loss(self, h_a: Tensor, h_v: Tensor, weak_labels: Tensor) -> Tensor:
        """With the penalty: lambda times the squared weights, lambda = 1e-5."""
        return super().loss(h_a, h_v, weak_labels) + 1e-5 * self.linear.weight.square().sum()


class MLP(Fusion):
    """One hidden layer on both outputs (section 3.3)."""

    def __init__(self, classes: int, units: int = 512) -> None:
        super().__init__(classes)
        self.layers = _perceptron(2 * classes, units, classes)

    def logits(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        return self.layers(torch.cat([h_a, h_v], dim=1))

    def outputs(self) -> list[nn.Module]:
        return [self.layers[-1]]


class Attention(Fusion):
    """Attention weighs both modalities clip by clip and class by class (section 3.4, equations 3 to 6).

    :param attends: what ``n_attn`` reads: both; or, in Table 4, ``self`` or ``cross``: a network a modality, which
        reads its own or the other's output, and the two weights are divided by their sum.
    :param transforms: n_a and n_v; without, they are the identity on the normalised outputs.
    :param combines: n_av; without, it is the identity, and h~_av is a probability already.
    :param reading: of "n_a, n_v, and n_av are all single layer networks with 512 units and sigmoid activations", here
        a hidden and an output layer. ``printed``: a sigmoid after both. ``average`` (ours): likewise, and starting as
        the average. ``linear``: n_a and n_v have no sigmoid after the last layer.
    """

    def __init__(
        self,
        classes: int,
        units: int = 512,
        attends: Literal["both", "self", "cross"] = "both",
        transforms: bool = True,
        combines: bool = True,
        reading: Literal["average", "printed", "linear"] = "average",
    ) -> None:
        super().__init__(classes)
        self.attends, self.reading = attends, reading
        if attends == "both":
            self.n_attn = _perceptron(2 * classes, units, classes)
        else:
            self.n_attn_a, self.n_attn_v = (_perceptron(classes, units, classes) for _ in range(2))
        self.n_a, self.n_v = (
            _sigmoid_layers(classes, units, bounded=reading != "linear") if transforms else None for _ in range(2)
        )
        self.n_av = _sigmoid_layers(classes, units, bounded=False) if combines else None

    def weights(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        """alpha_a of normalised outputs (equation 3), the weight of audio: [clips, classes], 0..1."""
        if self.attends == "both":
            return torch.sigmoid(self.n_attn(torch.cat([h_a, h_v], dim=1)))
        read_a, read_v = (h_a, h_v) if self.attends == "self" else (h_v, h_a)
        log_a, log_v = F.logsigmoid(self.n_attn_a(read_a)), F.logsigmoid(self.n_attn_v(read_v))
        return torch.sigmoid(log_a - log_v)  # alpha_a / (alpha_a + alpha_v), however small both are

    def logits(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        return self.fused(h_a, h_v, self.weights(h_a, h_v))

    def fused(self, h_a: Tensor, h_v: Tensor, alpha: Tensor) -> Tensor:
        """Logits of normalised outputs and given weights, which may be the same for all clips, [classes]."""
        transformed_a = self.n_a(h_a) if self.n_a is not None else h_a  # equation 4
        transformed_v = self.n_v(h_v) if self.n_v is not None else h_v
        mixed = alpha * transformed_a + (1 - alpha) * transformed_v  # equation 5, with the tildes of figure 1
        if self.n_av is None:
            return torch.logit(mixed, eps=SMALLEST)
        return self.n_av(mixed)  # equation 6; its last sigmoid is in the loss and in forward

    def outputs(self) -> list[nn.Module]:
        if self.n_av is not None:
            return [self.n_av[-1]]
        return [self.n_a[2], self.n_v[2]]  # type: ignore[index]

    def prepare(self, moments: Tensor, frequencies: Tensor) -> None:
        super().prepare(moments, frequencies)
        if self.reading == "average":
            self.start_as_average()

    def start_as_average(self) -> None:
        """Initial values with which the fusion is nearly the average of both outputs; ours.

        With usual ones, a sigmoid of a sigmoid of a sigmoid gives all clips nearly the same logit, from which training
        hardly gets away. Here networks start in the nearly linear middle of their sigmoids: alpha_a is a half, n_a and
        n_v undo the normalisation, sigmoid(p - mean) = 1/2 + (p - mean) / 4, and n_av goes on with the line that
        meets logit(p) at the mean and at a half.
        """
        for network in [self.n_attn] if self.attends == "both" else [self.n_attn_a, self.n_attn_v]:
            nn.init.zeros_(network[-1].weight)  # type: ignore[arg-type]
            nn.init.zeros_(network[-1].bias)  # type: ignore[arg-type]
        mean, (deviation_a, deviation_v) = self.moments[:, 0].mean(dim=0).clamp(1e-3, 0.499), self.moments[:, 1]
        first = torch.logit(mean)
        slope = first / (mean - 0.5)
        if self.n_av is None:
            start_linear(self.n_a, slope * deviation_a, first)  # type: ignore[arg-type]
            start_linear(self.n_v, slope * deviation_v, first)  # type: ignore[arg-type]
        elif self.n_a is None:
            start_linear(self.n_av, slope * (deviation_a + deviation_v) / 2, first)
        else:
            start_linear(self.n_a, deviation_a, torch.zeros_like(first))
            start_linear(self.n_v, deviation_v, torch.zeros_like(first))  # type: ignore[arg-type]
            start_linear(self.n_av, 4 * slope, first, centre=0.5)


def start_linear(layers: nn.Sequential, slope: Tensor, offset: Tensor, centre: float = 0.0) -> None:
    """Let a hidden layer of sigmoids and a linear one start as offset + slope (x - centre), class by class.

    The hidden units read a random rotation Q of the input, sigmoid(s Q x) = 1/2 + s Q x / 4 where it is small, and the
    output layer turns it back. Of more classes than units, as many random directions as units are kept.

    :param slope: [classes]; ``offset`` likewise.
    """
    hidden, output = layers[0], layers[2]
    units, classes = hidden.weight.shape  # type: ignore[misc]
    scale = 0.25 * (units / min(units, classes)) ** 0.5  # so that hidden units get numbers of deviation 1/4
    nn.init.orthogonal_(hidden.weight)  # type: ignore[arg-type]
    with torch.no_grad():
        output.weight.copy_(4 / scale * slope[:, None] * hidden.weight.T)  # type: ignore[operator]
        output.bias.copy_(offset - output.weight.sum(dim=1) / 2)  # type: ignore[operator]
        hidden.weight.mul_(scale)  # type: ignore[operator]
        hidden.bias.copy_(-centre * hidden.weight.sum(dim=1))  # type: ignore[operator]


def _perceptron(inputs: int, units: int, classes: int) -> nn.Sequential:
    """Hidden layer with batch normalisation, ReLU and dropout 0.5: the MLP fusion and n_attn (sections 3.3, 4.2)."""
    return nn.Sequential(
        nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(0.5), nn.Linear(units, classes)
    )


def _sigmoid_layers(classes: int, units: int, bounded: bool) -> nn.Sequential:
    """n_a, n_v and n_av; ``bounded``: with a sigmoid after the last layer."""
    layers = [nn.Linear(classes, units), nn.Sigmoid(), nn.Linear(units, classes)]
    return nn.Sequential(*layers, *[nn.Sigmoid()] * bounded)
