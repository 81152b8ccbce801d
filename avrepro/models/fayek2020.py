"""Fayek and Kumar (2020): a ConvNet that hears, a network that sees, and fusions of what the two say.

Outputs of the two models are probabilities of the classes, ``h_a`` and ``h_v``; everything that fuses them reads those
and nothing else of a clip.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SMALLEST = 1e-6  # of a probability and of a deviation that something is divided by


@dataclass(frozen=True)
class AudioConfig:
    """Sizes of the audio ConvNet; the defaults are the paper's Table 1."""

    classes: int = 527
    mels: int = 64
    channels: tuple[int, int, int, int] = (64, 128, 256, 512)  # of blocks B1 to B4
    instance: int = 2048  # features of a segment: block B5
    units: int = 1024  # of B6 and B7

    def values(self) -> dict:
        return asdict(self)


class AudioConvNet(nn.Module):
    """Log-mel spectrogram -> probability of each class in the clip (section 3.1, Table 1).

    A segment is 96 frames, one every 32, and with the margins of the convolutions before B5 it sees 212; B8's sigmoids
    are averaged over segments by G. Ours, as the paper does not say: each band less its mean over the clip, so that
    microphone and steady background go, over its deviation in the training clips.
    """

    deviation: Tensor

    def __init__(self, config: AudioConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("deviation", torch.ones(config.mels))
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
        self.blocks["B8"] = nn.Conv2d(inputs, config.classes, 1)

    def segments(self, log_mel: Tensor) -> Tensor:
        """Probability of each class in each segment.

        :param log_mel: float [clips, frames >= 96, 64], 100 frames a second.
        :returns: float [clips, frames // 32 - 2, classes].
        """
        maps = ((log_mel - log_mel.mean(dim=1, keepdim=True)) / self.deviation).unsqueeze(1)  # (B, 1, T, M)
        for block in self.blocks.values():
            maps = block(maps)  # (B, C, T', M')
        return torch.sigmoid(maps.squeeze(3)).transpose(1, 2)

    def forward(self, log_mel: Tensor) -> Tensor:
        """G, global average pooling: float [clips, classes], 0..1."""
        return self.segments(log_mel).mean(dim=1)

    def prepare(self, log_mel: Tensor, weak_labels: Tensor) -> None:
        """Take the bands' deviations over training clips, float [clips, frames, mels], and first guesses of classes."""
        _guess(self.blocks["B8"], weak_labels.mean(dim=0))
        self.deviation.copy_((log_mel - log_mel.mean(dim=1, keepdim=True)).std(dim=(0, 1)).clamp(min=1e-3))


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

    def values(self) -> dict:
        return asdict(self)


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
        _guess(self.layers[-1], weak_labels.mean(dim=0))
        self.mean.copy_(features.mean(dim=0))
        self.deviation.copy_(features.std(dim=0).clamp(min=1e-3))


def _guess(layer: nn.Module, frequencies: Tensor) -> None:
    """Start an output at its classes' log odds, so that training does not begin by unlearning a half for each; ours."""
    with torch.no_grad():
        layer.bias.copy_(torch.logit(frequencies, eps=1e-3))  # type: ignore[operator]


def clip_loss(probability: Tensor, weak_labels: Tensor) -> Tensor:
    """Equation 2: binary cross entropy averaged over clips and classes; both [clips, classes], 0..1."""
    return F.binary_cross_entropy(probability, weak_labels)


def co_supervised(weak_labels: Tensor, teacher: Tensor, weight: float) -> Tensor:
    """What a generation learns from: (1 - weight) y + weight p, labels and the previous generation's predictions.

    Sequential co-supervision (Kumar and Ithapu 2020); all float [clips, classes], 0..1.
    """
    return (1 - weight) * weak_labels + weight * teacher


# --- fusions of h_a and h_v, normalised; each gives logits [clips, classes] ------------------------------------------


class Regression(nn.Module):
    """A linear layer on both outputs (section 3.3); its L2 penalty is ``penalty``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * classes, classes)

    def forward(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        return self.linear(torch.cat([h_a, h_v], dim=1))

    def ends(self) -> list[nn.Linear]:
        """The layers whose outputs become probabilities of the classes."""
        return [self.linear]

    def penalty(self) -> Tensor:
        """Lambda times the squared weights, lambda = 1e-5."""
        return 1e-5 * self.linear.weight.square().sum()


class MLP(nn.Module):
    """One hidden layer with batch normalisation, ReLU and dropout 0.5 on both outputs (section 3.3).

    Also ``n_attn`` of equation 3, which has the same layers (section 4.2); of one modality in the ablations.
    """

    def __init__(self, inputs: int, classes: int, units: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, units), nn.BatchNorm1d(units), nn.ReLU(), nn.Dropout(0.5), nn.Linear(units, classes)
        )

    def forward(self, *outputs: Tensor) -> Tensor:
        return self.layers(torch.cat(outputs, dim=1))

    def ends(self) -> list[nn.Linear]:
        return [self.layers[-1]]  # type: ignore[list-item]


class Attention(nn.Module):
    """Attention weighs both modalities clip by clip and class by class (section 3.4, equations 3 to 6).

    Equation 5 is printed without tildes, which would leave n_a and n_v without a use. Built as text and figure 1 say:
    h~_av = alpha_a h~_a + (1 - alpha_a) h~_v. "Single layer networks with 512 units and sigmoid activations" is read
    as one hidden layer of 512 and an output layer of as many units as classes, which alpha_a has to fit.

    :param attends: what ``n_attn`` reads: both; or, in Table 4, ``self`` or ``cross``: a network a modality, which
        reads its own or the other's output, and the two weights are divided by their sum.
    :param transforms: n_a and n_v; without, they are the identity on the normalised outputs.
    :param combines: n_av; without, it is the identity, and h~_av is a probability already.
    """

    def __init__(
        self, classes: int, units: int, attends: str = "both", transforms: bool = True, combines: bool = True
    ) -> None:
        super().__init__()
        self.attends = attends
        if attends == "both":
            self.n_attn = MLP(2 * classes, classes, units)
        else:
            self.n_attn_a, self.n_attn_v = (MLP(classes, classes, units) for _ in range(2))
        self.n_a, self.n_v = (_sigmoid_layers(classes, units) if transforms else nn.Identity() for _ in range(2))
        self.n_av = _sigmoid_layers(classes, units)[:-1] if combines else None

    def weights(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        """alpha_a, equation 3: how far sound is believed, [clips, classes], 0..1; vision gets the rest."""
        if self.attends == "both":
            return torch.sigmoid(self.n_attn(h_a, h_v))
        read_a, read_v = (h_a, h_v) if self.attends == "self" else (h_v, h_a)
        log_a, log_v = F.logsigmoid(self.n_attn_a(read_a)), F.logsigmoid(self.n_attn_v(read_v))
        return torch.sigmoid(log_a - log_v)  # alpha_a / (alpha_a + alpha_v), however small both are

    def forward(self, h_a: Tensor, h_v: Tensor) -> Tensor:
        alpha = self.weights(h_a, h_v)
        fused = alpha * self.n_a(h_a) + (1 - alpha) * self.n_v(h_v)  # equations 4 and 5
        if self.n_av is None:
            return torch.logit(fused, eps=SMALLEST)
        return self.n_av(fused)  # equation 6, whose sigmoid is in the loss

    def ends(self) -> list[nn.Linear]:
        return [self.n_av[-1]] if self.n_av is not None else [self.n_a[-2], self.n_v[-2]]  # type: ignore[index, list-item]


def _sigmoid_layers(classes: int, units: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(classes, units), nn.Sigmoid(), nn.Linear(units, classes), nn.Sigmoid())


FUSIONS: dict[str, Callable[[int, int], nn.Module]] = {  # (classes, units) -> a fusion that is trained
    "regression": lambda classes, units: Regression(classes),
    "mlp": lambda classes, units: MLP(2 * classes, classes, units),
    "attention": Attention,
    "attention_self": lambda classes, units: Attention(classes, units, attends="self"),
    "attention_cross": lambda classes, units: Attention(classes, units, attends="cross"),
    "attention_without_na_nv": lambda classes, units: Attention(classes, units, transforms=False),
    "attention_without_nav": lambda classes, units: Attention(classes, units, combines=False),
}


class Fusions(nn.Module):
    """Several fusions trained together, each as if it were alone: they share the data and no parameter.

    Each keeps a copy of itself as it was best on the validation clips, so that what is saved of a training holds
    those too.

    :param names: of ``FUSIONS``. :param units: hidden units, 512 in the paper.
    """

    moments: Tensor
    best_scores: Tensor

    def __init__(self, names: tuple[str, ...], classes: int, units: int) -> None:
        super().__init__()
        self.units = units
        self.members = nn.ModuleDict({name: FUSIONS[name](classes, units) for name in names})
        self.best = copy.deepcopy(self.members).requires_grad_(False)
        self.register_buffer("moments", torch.tensor([0.0, 1.0]).repeat(2, 1)[..., None].repeat(1, 1, classes))
        self.register_buffer("best_scores", torch.full((len(names),), -1.0, dtype=torch.float64))

    def prepare(self, audio: tuple[Tensor, Tensor], visual: tuple[Tensor, Tensor], frequencies: Tensor) -> None:
        """Take mean and deviation of the training clips' outputs (section 4.2), and first guesses; each [classes].

        :param frequencies: share 0..1 of the training clips that have each class.
        """
        for fusion in self.members.values():
            for layer in fusion.ends():  # type: ignore[operator]
                _guess(layer, frequencies)
        self.best.load_state_dict(self.members.state_dict())
        self.moments.copy_(torch.stack([torch.stack(audio), torch.stack(visual)]))
        self.moments[:, 1].clamp_(min=SMALLEST)

    def normalised(self, h_a: Tensor, h_v: Tensor) -> tuple[Tensor, Tensor]:
        """Zero mean and unit deviation in the training clips; both [clips, classes]."""
        (mean_a, deviation_a), (mean_v, deviation_v) = self.moments
        return (h_a - mean_a) / deviation_a, (h_v - mean_v) / deviation_v

    def loss(self, h_a: Tensor, h_v: Tensor, weak_labels: Tensor) -> Tensor:
        """Sum of all fusions' losses: the gradient of each is that of its own."""
        h_a, h_v = self.normalised(h_a, h_v)
        total = torch.zeros((), device=h_a.device)
        for fusion in self.members.values():
            total = total + F.binary_cross_entropy_with_logits(fusion(h_a, h_v), weak_labels)
            if isinstance(fusion, Regression):
                total = total + fusion.penalty()
        return total

    def forward(self, h_a: Tensor, h_v: Tensor, best: bool = True) -> Tensor:
        """Probabilities of every fusion, [clips, fusions, classes], in the order of their names.

        :param best: by the copies that were best on validation; else as the fusions are now.
        """
        h_a, h_v = self.normalised(h_a, h_v)
        members = self.best if best else self.members
        return torch.stack([torch.sigmoid(fusion(h_a, h_v)) for fusion in members.values()], dim=1)

    def weights(self, h_a: Tensor, h_v: Tensor, name: str = "attention") -> Tensor:
        """alpha_a of one attention fusion, [clips, classes]."""
        return self.best[name].weights(*self.normalised(h_a, h_v))  # type: ignore[operator]

    def keep_best(self, scores: dict[str, float]) -> None:
        """Copy the fusions whose validation score is higher than any before."""
        for number, (name, score) in enumerate(scores.items()):
            if score > self.best_scores[number]:
                self.best_scores[number] = score
                self.best[name].load_state_dict(self.members[name].state_dict())
