"""Log-mel patches of 0.96 s, one every 0.48 s: what YAMNet and VGGish take."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from avrepro.features.logmel import LogMel

PATCH, HOP = 96, 48  # frames of 10 ms
PATCH_SAMPLES, HOP_SAMPLES = 15_600, 7_680  # of 16 kHz: 96 windows of 25 ms every 10 ms; 48 hops


def patches(log_mel: LogMel, waveform: Tensor | np.ndarray) -> Tensor:
    """Waveform ``[samples]`` or ``[batch, samples]`` -> float32 ``[patches, 96, 64]``, with ``batch`` before if given.

    Zeros at the end complete the last patch: 10 s give 20, and a waveform of at most 0.975 s gives one.

    :param waveform: 16 kHz, amplitude -1..1. :raises ValueError: it has other than one or two dimensions.
    """
    waveform = torch.as_tensor(waveform, dtype=torch.float32, device=log_mel.window.device)
    if waveform.dim() not in (1, 2):
        raise ValueError(f"waveform: expected [samples] or [batch, samples], found {list(waveform.shape)}")
    missing = PATCH_SAMPLES - waveform.shape[-1]  # samples to the end of the first patch
    padding = missing if missing > 0 else missing % HOP_SAMPLES
    spectrogram = log_mel(F.pad(torch.atleast_2d(waveform), (0, padding)))  # (B, T, 64)
    found = spectrogram.unfold(1, PATCH, HOP).transpose(2, 3)  # (B, P, 96, 64)
    return found if waveform.dim() == 2 else found[0]
