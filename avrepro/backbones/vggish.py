"""VGGish: a VGG network on log-mel patches (Hershey et al., 2017), the sound network of Parekh et al. (2018).

Weights are in the layout of the usual PyTorch port (features.0.weight, ..., embeddings.0.weight, ...).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from avrepro.backbones.patches import patches
from avrepro.backbones.weights import load_strictly
from avrepro.features.logmel import LogMel


class VGGish(nn.Module):
    """Embeddings of segments of 0.96 s, one every 0.48 s.

    Calling it: waveform float32 at 16 kHz, amplitude -1..1, ``[samples]`` or ``[batch, samples]``, gives embeddings
    ``[segments, 128]``, with a leading ``batch`` where the waveform has one. They are what the last layer gives
    after its ReLU, as in the port; not whitened. Zeros complete the last segment, as Parekh et al. (2018, section 4)
    must have it: 10 s have their 20 segments, where the original's have no overlap and the rest is left out.

    :raises ValueError: the waveform has other than one or two dimensions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_mel = LogMel.vggish()
        self.sample_rate = self.log_mel.sample_rate
        layers: list[nn.Module] = []
        channels = 1
        for widths in ((64,), (128,), (256, 256), (512, 512)):
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.embeddings = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128), nn.ReLU()
        )

    @classmethod
    def pretrained(cls, path: Path) -> VGGish:
        """The network with a file's weights, frozen; raises WeightsError where they do not fit."""
        return load_strictly(cls(), path)

    def forward(self, waveform: Tensor | np.ndarray) -> Tensor:
        x = patches(self.log_mel, waveform)  # ([B,] S, 96, 64)
        maps = self.features(x.reshape(-1, 1, *x.shape[-2:]))  # (B * S, 512, 6, 4)
        flat = maps.permute(0, 2, 3, 1).flatten(1)  # the weights come from TensorFlow, where channels are last
        return self.embeddings(flat).view(*x.shape[:-2], -1)
