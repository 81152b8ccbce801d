"""Weight files with random values in the published formats, and networks loaded from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avrepro import backbones

# (name, shape) of CaffeNet's layers as its published description gives them
CAFFENET = {
    "conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3), "fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096),
}  # fmt: skip
Arrays = dict[str, np.ndarray]


def loaded(name: str, **files: Path) -> Any:
    """A backbone by its name; ``files`` stand for its sources, whose hashes they cannot have."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbones, "fetch", files.__getitem__)
        return backbones.load.__wrapped__(name, torch.device("cpu"))  # past its cache


def random_weights(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """A value for every name of a network built without memory: small weights, norms near 1."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for name, like in network.state_dict().items():
        if not like.dtype.is_floating_point:
            weights[name] = torch.ones(like.shape, dtype=like.dtype)
        elif name.endswith("running_var") or (like.dim() == 1 and name.endswith("weight")):
            weights[name] = torch.rand(like.shape, generator=rng) + 0.5
        else:
            fan_in = like[0].numel() if like.dim() > 1 else 100
            weights[name] = torch.randn(like.shape, generator=rng) * (1.5 / fan_in**0.5)
    return weights


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    """A field of a protocol buffer message."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def caffe_layer(name: str, blobs: list[np.ndarray]) -> bytes:
    """Caffe's V1LayerParameter, and blobs of always four dimensions."""
    content = field(2, b"bottom") + field(3, b"top") + field(4, name.encode()) + field(5, 4)
    for blob in blobs:
        four = (1,) * (4 - blob.ndim) + blob.shape
        sides = b"".join(field(number, side) for number, side in enumerate(four, start=1))
        content += field(6, sides + field(5, blob.astype("<f4").tobytes()))
    return field(2, content)


def caffemodel(arrays: Arrays) -> bytes:
    """A network whose arrays are NAME.weight and NAME.bias, between layers without any."""
    names = dict.fromkeys(name.split(".")[0] for name in arrays)
    layers = [caffe_layer(name, [arrays[f"{name}.weight"], arrays[f"{name}.bias"]]) for name in names]
    return b"".join([field(1, b"CaffeNet"), caffe_layer("data", []), *layers, caffe_layer("relu", [])])


def caffenet_arrays() -> Arrays:
    """Random weights that keep activations in the hundreds, where the normalisation matters."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in CAFFENET.items():
        scale = np.float32((3 if name.startswith("conv") else 1) / np.prod(shape[1:]) ** 0.5)
        arrays[f"{name}.weight"] = rng.standard_normal(shape, np.float32) * scale
        arrays[f"{name}.bias"] = rng.standard_normal(shape[0], np.float32)
    return arrays
