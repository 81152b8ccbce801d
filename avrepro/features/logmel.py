"""Log-mel spectrograms of the three papers, as batched torch modules."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LogMel(nn.Module):
    """Waveform to log-mel spectrogram; choose a constructor: `li2017`, `vggish`, `yamnet`, `xu2018`,
    `fayek2020`.

    Calling it: waveform float32 ``[batch, samples]`` at ``sample_rate`` Hz, amplitude -1..1, gives float32
    ``[batch, frames, mels]``, natural logarithm. It has no parameters; its window and filters move with
    ``.to(device)`` and are not part of a ``state_dict``.

    Raises:
        ValueError: the waveform is not ``[batch, samples]`` of floats, or too short for one frame.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int,  # Hz
        window: Tensor,  # [samples]
        hop: int,  # samples
        fft: int,  # points; frames are padded with zeros to this length
        filters: np.ndarray,  # [fft // 2 + 1, mels]
        power: int,  # 1: filters add up magnitudes, 2: energies
        offset: float = 0.0,  # added before the logarithm
        floor: float = 0.0,  # least value that reaches the logarithm
        centred: bool = False,  # frame t on sample t x hop, zeros beyond both ends; else only whole windows count
    ) -> None:
        super().__init__()
        self.sample_rate, self.hop, self.fft, self.power = sample_rate, hop, fft, power
        self.offset, self.floor, self.centred = offset, floor, centred
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("filters", torch.from_numpy(filters.astype(np.float32)), persistent=False)

    @classmethod
    def li2017(cls) -> LogMel:
        """Li et al. (2017), section 3.1: 20 kHz, 480 samples (24 ms) every 100 (5 ms), 1024 points, 60 mel.

        10 s give 2000 x 60. The paper leaves open, and librosa's defaults decide here: a periodic Hann window
        centred in the 1024 points; zeros beyond both ends of the clip, frame t centred on sample 100 t (so
        200,000 samples give 2001 frames, of which the last, centred on the clip's very end, is dropped);
        energies, not magnitudes; Slaney's mel scale from 0 Hz to 10 kHz with filters of equal area; natural
        logarithm of at least 1e-10.
        """
        return cls._as_librosa(20_000, window=480, hop=100, fft=1024, mels=60)

    @classmethod
    def fayek2020(cls) -> LogMel:
        """Fayek and Kumar (2020), section 3.1: 16 kHz, windows of 16 ms every 10 ms, 64 mel.

        10 s give 1000 x 64, the paper's 100 frames a second. The rest, which the paper leaves open, is as in
        `li2017` (range 0 Hz to 8 kHz), with 512 points: with the 256 of the window itself the lowest mel
        filters would fall between two frequencies and stay empty.
        """
        return cls._as_librosa(16_000, window=256, hop=160, fft=512, mels=64)

    @classmethod
    def _as_librosa(cls, rate: int, window: int, hop: int, fft: int, mels: int) -> LogMel:
        filters = slaney_filters(mels, fft, rate)
        return cls(rate, torch.hann_window(window), hop, fft, filters, power=2, floor=1e-10, centred=True)

    @classmethod
    def xu2018(cls) -> LogMel:
        """Input of the CVSSP team's gated CRNN (Xu et al., 2018): 16 kHz, 1024 samples every 664, 64 mel.

        As their public code has it: Hamming windows, none of them beyond the clip's ends, so that 10 s give 240 x 64;
        magnitudes, scaled so that their squares are a power density; 64 filters on Slaney's mel scale from 0 Hz to
        8 kHz; log(mel + 1e-8).
        """
        hamming = np.hamming(1024)
        window = torch.from_numpy(hamming / np.sqrt(16_000 * (hamming**2).sum())).float()
        return cls(16_000, window, 664, 1024, slaney_filters(64, 1024, 16_000), power=1, offset=1e-8)

    @classmethod
    def vggish(cls, offset: float = 0.01) -> LogMel:
        """Input of VGGish (Hershey et al., 2017, section 3.1): 16 kHz, 25 ms every 10 ms, 64 mel.

        Magnitudes of 512 points under a periodic Hann window, triangular filters from 125 to 7500 Hz on the
        HTK mel scale, log(mel + ``offset``). No padding: 10 s give 998 x 64.
        """
        filters = htk_filters(64, 512, 16_000, 125.0, 7500.0)
        return cls(16_000, torch.hann_window(400), 160, 512, filters, power=1, offset=offset)

    @classmethod
    def yamnet(cls) -> LogMel:
        """Input of YAMNet: as `vggish`, but log(mel + 0.001)."""
        return cls.vggish(offset=0.001)

    @property
    def mels(self) -> int:
        """Number of mel bands."""
        return self.filters.shape[1]

    def frames(self, samples: int) -> int:
        """Frames that a waveform of so many samples gives."""
        if self.centred:
            return samples // self.hop
        return max(0, 1 + (samples - self.window.shape[0]) // self.hop)

    def forward(self, waveform: Tensor) -> Tensor:
        if waveform.dim() != 2 or not waveform.is_floating_point():
            raise ValueError(
                f"waveform: expected floats [batch, samples], found {waveform.dtype} {list(waveform.shape)}"
            )
        samples, length = waveform.shape[1], self.window.shape[0]
        frames = self.frames(samples)
        if frames < 1:
            least = self.hop if self.centred else length
            raise ValueError(f"waveform of {samples} samples is too short for one frame: expected at least {least}")
        waveform = waveform.to(self.window.dtype)
        if self.centred:
            waveform = F.pad(waveform, (length // 2, length // 2))
        windowed = waveform.unfold(1, length, self.hop)[:, :frames] * self.window  # (B, T, window)
        spectrum = torch.fft.rfft(windowed, n=self.fft)  # (B, T, fft / 2 + 1)
        magnitude = spectrum.abs()
        mel = (magnitude if self.power == 1 else magnitude.square()) @ self.filters  # (B, T, mels)
        return torch.log((mel + self.offset).clamp(min=self.floor))


def slaney_filters(mels: int, fft: int, sample_rate: int) -> np.ndarray:
    """Triangular filters of equal area, 0 Hz to half the sample rate, float64 ``[fft // 2 + 1, mels]``.

    The mel scale of Slaney's Auditory Toolbox (1998): linear below 1 kHz (3 mel per 200 Hz), above it 27 mel
    for a factor of 6.4. The triangles are straight in Hz.
    """
    knee, step = 1000.0, np.log(6.4) / 27.0
    top = 15.0 + np.log(sample_rate / 2 / knee) / step
    points = np.linspace(0.0, top, mels + 2)
    edges = np.where(points < 15.0, points * 200.0 / 3.0, knee * np.exp(step * (points - 15.0)))  # Hz
    frequencies = np.linspace(0.0, sample_rate / 2, fft // 2 + 1)
    return _triangles(frequencies, edges) * (2.0 / (edges[2:] - edges[:-2]))


def htk_filters(mels: int, fft: int, sample_rate: int, low: float, high: float) -> np.ndarray:
    """Triangular filters of equal height from ``low`` to ``high`` Hz, float64 ``[fft // 2 + 1, mels]``.

    HTK's mel scale, 1127 ln(1 + f / 700). As in the VGGish and YAMNet releases the triangles are straight in
    mel, not in Hz, and the constant component (0 Hz) counts nowhere.
    """
    frequencies = 1127.0 * np.log1p(np.linspace(0.0, sample_rate / 2, fft // 2 + 1) / 700.0)  # mel
    low, high = (1127.0 * np.log1p(edge / 700.0) for edge in (low, high))
    filters = _triangles(frequencies, np.linspace(low, high, mels + 2))
    filters[0] = 0.0
    return filters


def _triangles(axis: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Filter m rises from edges[m] to 1 at edges[m + 1] and falls to 0 at edges[m + 2]; [axis, mels]."""
    rising = (axis[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - axis[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rising, falling))
