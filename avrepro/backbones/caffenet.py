"""CaffeNet, the Caffe reference network of ImageNet (Jia et al., 2014): the picture network of Parekh et al. (2018).

It is AlexNet (Krizhevsky et al., 2012) with pooling *before* local response normalisation, in the layout of two
GPUs: conv2, conv4 and conv5 each see half of the channels. The published ``bvlc_reference_caffenet.caffemodel`` has
its weights in torch's layout.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.backbones.images import device_of, in_batches, to_images
from avrepro.backbones.protobuf import read_caffemodel
from avrepro.backbones.weights import load_strictly

MEAN = (104.00698793, 116.66876762, 122.67891434)  # blue, green, red: mean of ImageNet's training pictures, 0..255


class CaffeNet(nn.Module):
    """Convolutional maps to pool regions from, and the layers fc6 and fc7 that go on from there."""

    name = "caffenet"

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4, padding=5)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)

    @classmethod
    def pretrained(cls, path: Path) -> CaffeNet:
        """The network with a .caffemodel's weights, frozen; raises WeightsError where they do not fit."""
        return load_strictly(cls(), path, read_caffemodel)

    def maps(self, frames: np.ndarray) -> np.ndarray:
        """conv5 of frames as large as they are, ``[n, 256, h, w]``, a cell every 16 px, to pool regions from.

        Frames are uint8 ``[n, H, W, 3]`` RGB, n >= 1; maps are float32. Cell (i, j) is centred on pixel
        (16 i, 16 j); Parekh et al. (2018, section 4) pool 6 x 6 of each region.
        """
        return in_batches(lambda part: self.convolutions(self.prepare(part)), frames)

    def prepare(self, frames: np.ndarray) -> Tensor:
        """Frames as the network's input: blue, green, red, 0..255 minus the mean, ``[n, 3, H, W]``."""
        device = device_of(self)
        return to_images(frames, device).flip(1) - torch.tensor(MEAN, device=device)[:, None, None]

    def convolutions(self, images: Tensor) -> Tensor:
        """conv5 after its ReLU, ``[n, 3, H, W]`` prepared -> ``[n, 256, h, w]``.

        Margins are those of Fast R-CNN (Girshick, 2015; its CaffeNet), which make cell i of a map look at the pixels
        around 16 i.
        """
        x = normalise(pool(F.relu(self.conv1(images))))
        x = normalise(pool(F.relu(self.conv2(x))))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        return F.relu(self.conv5(x))


def pool(x: Tensor) -> Tensor:
    """Maximum of 3 x 3 cells every 2. Caffe rounds sizes up: the last window may reach over the edge."""
    return F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)


def normalise(x: Tensor) -> Tensor:
    """Local response normalisation over 5 channels: x / (1 + 1e-4 / 5 x the sum of their squares)^0.75.

    Caffe and torch both divide alpha by the number of channels, which the formula of Krizhevsky et al. does not.
    """
    return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
