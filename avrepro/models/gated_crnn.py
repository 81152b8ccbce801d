"""Gated convolutional recurrent network with attention over time (Xu et al., ICASSP 2018; DCASE 2017, task 4).

Systems (f) and (g) of Parekh et al. (2018), Table 1, written anew from what those papers and the authors' public
description say. It hears and never sees.

Their networks are two: one tags clips by the plain mean over 30 steps of time (convolutions pool it 8 to 1), one keeps
240 frames and weighs them by attention. This is the second, which also tells when; ``pool_time`` makes it as short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models.parekh2018 import binary_log_loss


@dataclass(frozen=True)
class GatedCRNNConfig:
    """Sizes of the network; the defaults are the authors'."""

    classes: int = 17
    mels: int = 64
    channels: tuple[int, ...] = (64, 64, 64, 64)  # of each pair of gated convolutions
    pool_time: tuple[int, ...] = (1, 1, 1, 1)  # none keeps their 24 frames a second; pooling saves time
    pool_mel: tuple[int, ...] = (2, 2, 2, 2)  # 64 bands -> 4
    features: int = 256  # channels of the last convolution, whose maximum over the remaining bands is taken
    hidden: int = 128  # units of each recurrent layer in each direction

    def values(self) -> dict:
        return asdict(self)


class GatedConvolution(nn.Module):
    """Y = (W * X) . sigmoid(V * X): a learnable gate decides for each cell what passes on (gated linear unit)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False)  # W and V side by side
        self.norm = nn.BatchNorm2d(2 * outputs)

    def forward(self, maps: Tensor) -> Tensor:
        return F.glu(self.norm(self.convolution(maps)), dim=1)  # first half times the sigmoid of the second


class GatedCRNN(nn.Module):
    """Log-mel spectrogram -> probability of each class in the clip; :meth:`frames` says where it comes from."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: GatedCRNNConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.mels))
        self.register_buffer("deviation", torch.ones(config.mels))
        layers: list[nn.Module] = []
        inputs = 1
        for outputs, time, mel in zip(config.channels, config.pool_time, config.pool_mel, strict=True):
            layers += [GatedConvolution(inputs, outputs), GatedConvolution(outputs, outputs), nn.MaxPool2d((time, mel))]
            inputs = outputs
        layers += [nn.Conv2d(inputs, config.features, 3, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.recurrent = nn.GRU(config.features, config.hidden, batch_first=True, bidirectional=True)
        self.recurrent_gate = nn.GRU(config.features, config.hidden, batch_first=True, bidirectional=True)
        # Ours: torch's GRU ends in tanh, whose values of -1..1 alone could neither open nor close a gate.
        self.open = nn.Linear(2 * config.hidden, 2 * config.hidden)
        self.classify = nn.Linear(2 * config.hidden, config.classes)
        self.localise = nn.Linear(2 * config.hidden, config.classes)
        self.apply(_start_as_in_keras)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Clip-wise probabilities, float32 [clips, classes]: the mean over frames, weighted by attention.

        :param log_mel: float [clips, frames, mels].
        """
        probabilities, attention = self.frames(log_mel)
        return (probabilities * attention).sum(dim=1)

    def frames(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of each class in each frame, and how much the frame counts for the clip.

        :param log_mel: float [clips, frames, mels].
        :returns: two arrays, float32 [clips, frames / product of pool_time, classes]; the second sums to 1 over frames.
        """
        scaled = (log_mel - self.mean) / self.deviation
        maps = self.convolutions(scaled.unsqueeze(1))  # (B, C, T, M)
        sequence = maps.amax(dim=3).transpose(1, 2)  # (B, T, C)
        gate = torch.sigmoid(self.open(self.recurrent_gate(sequence)[0]))  # (B, T, 2 * H)
        hidden = self.recurrent(sequence)[0] * gate
        probabilities = torch.sigmoid(self.classify(hidden).float())  # (B, T, K)
        # A softmax over classes: which of them does this frame tell of? Over time those shares are divided by their
        # sum, which is what a softmax over time does to their logarithms.
        return probabilities, self.localise(hidden).float().log_softmax(dim=2).softmax(dim=1)

    def loss(self, probabilities: Tensor, weak_labels: Tensor) -> Tensor:
        """Binary cross entropy averaged over clips and classes; both [clips, classes], labels 0 or 1."""
        return binary_log_loss(probabilities, weak_labels)

    def prepare(self, log_mel: Tensor, weak_labels: Tensor) -> None:
        """Fit what is not trained by gradient on training clips: the bands' scale, and the first guess of each class.

        :param log_mel: float [clips, frames, mels]; mean and deviation of each band are kept with the weights.
        :param weak_labels: 0 or 1, [clips, classes]; ours: the output's biases start at the log odds of their means,
            so that training does not begin by unlearning a half for every class.
        """
        self.mean.copy_(log_mel.mean(dim=(0, 1)))
        self.deviation.copy_(log_mel.std(dim=(0, 1)).clamp(min=1e-3))
        with torch.no_grad():
            self.classify.bias.copy_(torch.logit(weak_labels.mean(dim=0), eps=1e-3))


def _start_as_in_keras(layer: nn.Module) -> None:
    """Glorot's uniform weights, orthogonal ones from a recurrent layer to itself, biases 0: what the authors' code has.

    From torch's own, smaller weights the small network of the demo world has learnt next to nothing after 250 steps.
    """
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.GRU):
        for name, values in layer.named_parameters():
            if name.startswith("bias"):
                nn.init.zeros_(values)
                continue
            start = nn.init.orthogonal_ if name.startswith("weight_hh") else nn.init.xavier_uniform_
            for of_gate in values.data.split(layer.hidden_size):  # reset, update and new lie one below the other
                start(of_gate)


def fuse(scores: Sequence[np.ndarray]) -> np.ndarray:
    """The fusion system: the mean of several networks' probabilities, each [clips, classes].

    The networks differ by seed, epoch or input; what they are is the caller's choice.

    :raises ValueError: there are none, or their shapes differ.
    """
    shapes = {score.shape for score in scores}
    if len(shapes) != 1:
        raise ValueError(f"expected scores of one shape from at least one network, found shapes {sorted(shapes)}")
    return np.mean(np.stack(list(scores)), axis=0)
