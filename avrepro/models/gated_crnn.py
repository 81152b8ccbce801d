"""Gated convolutional recurrent network with attention over time (Xu et al., ICASSP 2018; DCASE 2017, task 4).

Systems (f) and (g) of Parekh et al. (2018), Table 1. The authors have two networks on sound: one tags clips by the
plain mean over 30 steps of time, one keeps 240 frames and weights them by attention. This is the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models.audio import recorded, start_at_frequencies

SILENCE = math.log(1e-8)  # log-mel of recorded silence: the logarithm of the front end's offset


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


class GatedConvolution(nn.Module):
    """Y = (W * X) . sigmoid(V * X): a learnable gate decides for each cell what passes on (gated linear unit)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, 2 * outputs, 3, padding=1, bias=False)  # W and V side by side
        self.norm = nn.BatchNorm2d(2 * outputs)

    def forward(self, maps: Tensor) -> Tensor:
        return F.glu(self.norm(self.convolution(maps)), dim=1)  # first half times the sigmoid of the second


class GatedCRNN(nn.Module):
    """Log-mel spectrogram, float [clips, frames, mels] -> probability of each class; :meth:`frames` localises it.

    Log-mel is -inf beyond the end of a short clip.
    """

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
        """Clip-wise probabilities, float32 [clips, classes]: the mean over frames, weighted by attention."""
        probabilities, attention = self.frames(log_mel)
        return (probabilities * attention).sum(dim=1)

    def frames(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """Probability of each class in each frame, and how much the frame counts for the clip.

        :returns: two arrays, float32 [clips, frames / product of pool_time, classes]; the second sums to 1 over the
            frames, and is 0 where nothing was recorded.
        """
        here = recorded(log_mel)  # (B, T)
        scaled = torch.where(here.unsqueeze(2), (_known(log_mel) - self.mean) / self.deviation, 0.0)
        maps = self.convolutions(scaled.unsqueeze(1))  # (B, C, T, M)
        sequence = maps.amax(dim=3).transpose(1, 2)  # (B, T, C)
        gate = torch.sigmoid(self.open(self.recurrent_gate(sequence)[0]))  # (B, T, 2 * H)
        hidden = self.recurrent(sequence)[0] * gate
        probabilities = torch.sigmoid(self.classify(hidden))  # (B, T, K)
        # A softmax over classes: which of them is this frame about? Over time those shares are divided by their sum,
        # which is what a softmax over time does to their logarithms.
        shares = self.localise(hidden).log_softmax(dim=2)  # (B, T, K)
        pooled = math.prod(self.config.pool_time)
        here = here[:, : shares.shape[1] * pooled].unflatten(1, (-1, pooled)).any(dim=2)
        return probabilities, shares.masked_fill(~here.unsqueeze(2), -torch.inf).softmax(dim=1)

    def prepare(self, log_mel: Tensor, weak_labels: Tensor) -> None:
        """Take the bands' scale over the recorded frames of training clips, and first guesses of classes.

        :param log_mel: float [clips, frames, mels]; ``weak_labels``: 0 or 1, [clips, classes].
        """
        frames = _known(log_mel)[recorded(log_mel)]  # (N, M)
        self.mean.copy_(frames.mean(dim=0))
        self.deviation.copy_(frames.std(dim=0).clamp(min=1e-3))
        start_at_frequencies(self.classify, weak_labels.mean(dim=0))


def _known(log_mel: Tensor) -> Tensor:
    """Log-mel in which a clip without any recorded frame is silence, not -inf."""
    return log_mel.masked_fill(log_mel == -torch.inf, SILENCE)


def _start_as_in_keras(layer: nn.Module) -> None:
    """Glorot's uniform weights, orthogonal ones from a recurrent layer to itself, biases 0: as in the authors' code."""
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
