"""VGGish: a VGG network on log-mel patches (Hershey et al., 2017), the sound network of Parekh et al. (2018).

Weights are in the layout of the usual PyTorch port (features.0.weight, ..., embeddings.0.weight, ...).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.features.logmel import LogMel
from avrepro.fetch import fetch
from avrepro.models.weights import WeightsError, load_strictly, read_weights

PATCH = 96  # frames of 10 ms
PATCH_SAMPLES = 15_600  # of 16 kHz: 96 windows of 25 ms every 10 ms
SIZE = 128  # numbers of an embedding
LIMIT = 2.0  # post-processed embeddings are clipped to -2..2


class VGGish(nn.Module):
    """Embeddings of segments of 0.96 s.

    Calling it: waveform float32 at 16 kHz, amplitude -1..1, ``[samples]`` or ``[batch, samples]``, gives
    embeddings ``[segments, 128]``, with a leading ``batch`` where the waveform has one. They are what the last
    layer gives after its ReLU, as in the port. With ``pca`` they are whitened and clipped to -2..2, as the
    embeddings that AudioSet is published with.

    :param hop: s from one segment to the next, a multiple of 0.01; the original's 0.96 leaves no overlap.
    :param complete: complete the last segment with zeros, as Parekh et al. (2018) must have: 10 s every 0.48 s
        give their 20 segments. Otherwise, as in the original, what does not fill a segment is left out (10 s
        give 19, or 10 every 0.96 s); a waveform shorter than 0.975 s is completed in both cases.
    :raises ValueError: the waveform has other than one or two dimensions, or the hop is no multiple of 0.01 s.
    """

    eigenvectors: Tensor
    means: Tensor

    def __init__(self, hop: float = 0.96, complete: bool = False) -> None:
        super().__init__()
        self.hop = round(100 * hop)  # frames
        if self.hop < 1 or abs(self.hop - 100 * hop) > 1e-6:
            raise ValueError(f"hop: expected a multiple of 0.01 s, found {hop} s")
        self.complete = complete
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
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, SIZE), nn.ReLU()
        )
        self.whitened = False
        self.register_buffer("eigenvectors", torch.eye(SIZE), persistent=False)
        self.register_buffer("means", torch.zeros(SIZE), persistent=False)

    @classmethod
    def pretrained(
        cls, path: str | Path | None = None, pca: str | Path | None = None, hop: float = 0.96, complete: bool = False
    ) -> VGGish:
        """The network with its published weights, frozen, in evaluation mode.

        :param path: file of weights; by default it is fetched (source ``vggish``).
        :param pca: file of the post-processing (source ``vggish_pca``), with pca_eigen_vectors [128, 128] and
            pca_means [128]; None: raw embeddings.
        :raises avrepro.fetch.FetchError: the weights cannot be had. :raises WeightsError: a file does not fit.
        """
        network = load_strictly(cls(hop, complete), Path(path) if path is not None else fetch("vggish"))
        if pca is not None:
            network._load_pca(Path(pca))
        return network

    def forward(self, waveform: Tensor | np.ndarray) -> Tensor:
        waveform = torch.as_tensor(waveform, dtype=torch.float32, device=self.means.device)
        if waveform.dim() not in (1, 2):
            raise ValueError(f"waveform: expected [samples] or [batch, samples], found {list(waveform.shape)}")
        single = waveform.dim() == 1
        patches = self.patches(waveform[None] if single else waveform)  # (B, S, 96, 64)
        batch, count = patches.shape[:2]
        maps = self.features(patches.flatten(0, 1).unsqueeze(1))  # (B * S, 512, 6, 4)
        flat = maps.permute(0, 2, 3, 1).flatten(1)  # the weights come from TensorFlow, where channels are last
        embeddings = self.embeddings(flat).view(batch, count, SIZE)
        if self.whitened:
            embeddings = ((embeddings - self.means) @ self.eigenvectors.T).clamp(-LIMIT, LIMIT)
        return embeddings[0] if single else embeddings

    def patches(self, waveform: Tensor) -> Tensor:
        """Log-mel patches ``[batch, segments, 96, 64]`` of a waveform ``[batch, samples]``."""
        over = waveform.shape[1] - PATCH_SAMPLES  # samples after the first segment
        step = self.hop * self.log_mel.hop
        padding = max(-over, 0) if over <= 0 or not self.complete else -over % step
        log_mel = self.log_mel(F.pad(waveform, (0, padding)))  # (B, T, 64)
        return log_mel.unfold(1, PATCH, self.hop).transpose(2, 3)

    def _load_pca(self, path: Path) -> None:
        found = read_weights(path, "the post-processing of VGGish")
        eigenvectors, means = found.get("pca_eigen_vectors"), found.get("pca_means")
        if eigenvectors is None or means is None or eigenvectors.shape != (SIZE, SIZE) or means.numel() != SIZE:
            shapes = {name: list(value.shape) for name, value in found.items()}
            raise WeightsError(
                f"{path}: expected pca_eigen_vectors [{SIZE}, {SIZE}] and pca_means [{SIZE}]; found {shapes}"
            )
        self.eigenvectors.copy_(eigenvectors)
        self.means.copy_(means.flatten())
        self.whitened = True


def quantised(embeddings: Tensor) -> Tensor:
    """Post-processed embeddings (-2..2) in the 8 bits of AudioSet's published features: uint8, -2 -> 0, 2 -> 255."""
    return ((embeddings + LIMIT) * (255 / (2 * LIMIT))).round().to(torch.uint8)
