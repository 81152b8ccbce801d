"""The image networks of Li et al. (2017) and of Fayek and Kumar (2020).

``maps`` are convolutional, ``pooled`` is one vector a frame, ``classify`` turns those into probabilities of the 1000
classes of ImageNet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from torch import Tensor, nn

from avrepro.backbones.images import device_of, in_batches, probabilities, to_images
from avrepro.backbones.weights import Weights, load_strictly, read_torch

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures, 0..1; torchvision's networks


class AlexNetInception(nn.Module):
    """The networks of Li et al. (2017): AlexNet's conv5 compares frames, Inception-v4 names objects.

    Both take frames as large as they are. Parts: ``conv5``, AlexNet up to its fifth convolution and the ReLU after
    it (section 2.2.1), and ``inception`` (Szegedy et al., 2017; section 2.2.2).

    :param alexnet: weights in torchvision's layout. :param inception: weights in timm's layout.
    :raises WeightsError: a file does not fit.
    """

    def __init__(self, alexnet: Path, inception: Path) -> None:
        super().__init__()
        self.conv5 = load_strictly(torchvision.models.alexnet(weights=None), alexnet).features[:12]
        network: Any = timm.create_model("inception_v4", pretrained=False)  # Any: its layers are timm's own
        self.inception = load_strictly(network, inception, read=without_background)

    def maps(self, frames: np.ndarray) -> np.ndarray:
        """conv5 of AlexNet, [n, 256, h, w], a cell every 16 px."""
        return in_batches(lambda part: self.conv5(standardised(to_images(part, device_of(self)))), frames)

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """The mean over Inception's last maps, [n, 1536]."""

        def compute(part: np.ndarray) -> Tensor:
            images = (to_images(part, device_of(self)) / 255 - 0.5) / 0.5  # -1..1
            return self.inception.forward_head(self.inception.forward_features(images), pre_logits=True)

        return in_batches(compute, frames)

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities, [n, 1536] -> [n, 1000]."""
        return probabilities(self.inception.last_linear, pooled)


class ResNet152(nn.Module):
    """The network of Fayek and Kumar (2020, section 3.2): 2048 pooled features a frame; torchvision's layout.

    Frames are resized whole to 224 x 224, the size it was trained on; the paper does not say how it did that.

    :raises WeightsError: the file does not fit.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        whole = load_strictly(torchvision.models.resnet152(weights=None), path)
        self.convolutions = nn.Sequential(*list(whole.children())[:-2])

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """[n, 2048], the mean over the last maps."""

        def compute(part: np.ndarray) -> Tensor:
            images = standardised(to_images(part, device_of(self), (224, 224)))
            return self.convolutions(images).mean((2, 3))

        return in_batches(compute, frames)


def standardised(images: Tensor) -> Tensor:
    """Images 0..255, [n, 3, H, W], as torchvision's networks take them."""
    mean, deviation = (torch.tensor(values, device=images.device)[:, None, None] for values in (MEAN, DEVIATION))
    return (images / 255 - mean) / deviation


def without_background(path: Path) -> Weights:
    """Inception-v4's published weights without the first row of the classifier.

    The file inceptionv4-8e4777a0 was ported from TensorFlow, whose class 0 of 1001 is "background".
    """
    weights = read_torch(path)
    rows = {name: value for name, value in weights.items() if name.startswith("last_linear.")}
    return weights | {name: value[1:] for name, value in rows.items() if len(value) == 1001}
