"""What the networks on log-mel spectrograms of all three papers share."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def recorded(log_mel: Tensor) -> Tensor:
    """Frames that hold a recording, bool [clips, frames]; beyond the end of a short clip log-mel is -inf.

    A clip without any recorded frame counts as a recording of silence.
    """
    frames = log_mel[..., 0] > -torch.inf
    return frames | ~frames.any(dim=1, keepdim=True)


def centred(log_mel: Tensor) -> Tensor:
    """Log-mel minus each band's mean over the recorded frames, and 0 in frames beyond them; [clips, frames, mels].

    Ours, as none of the papers says how spectrograms are scaled: microphone and steady background go, events stay.
    """
    here = recorded(log_mel).unsqueeze(2)  # (B, T, 1)
    known = torch.where(here & (log_mel > -torch.inf), log_mel, 0.0)
    mean = known.sum(dim=1, keepdim=True) / here.sum(dim=1, keepdim=True)
    return torch.where(here, known - mean, 0.0)


def band_deviation(log_mel: Tensor) -> Tensor:
    """Deviation of each band's :func:`centred` values over the recorded frames of some clips, [mels]."""
    return centred(log_mel)[recorded(log_mel)].std(dim=0).clamp(min=1e-3)


def start_at_frequencies(layer: nn.Module, frequencies: Tensor) -> None:
    """Set an output's bias to the log odds of each class's share of the clips; ours: a half need not be unlearnt."""
    with torch.no_grad():
        layer.bias.copy_(torch.logit(frequencies, eps=1e-3))  # type: ignore[operator]


def mix_clips(log_mel: Tensor, weak_labels: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Lay another clip of the batch over a random ``share`` of the clips; ours, for corpora of few clips.

    Energies add, and so do bags: the mixture holds the instances of both clips and therefore the labels of both.

    :param log_mel: float [clips, frames, mels]; ``weak_labels``: 0 or 1, [clips, classes].
    """
    if share == 0:  # and no random number is drawn
        return log_mel, weak_labels
    rows = (torch.rand(len(log_mel)) < share).nonzero()[:, 0].to(log_mel.device)
    others = torch.randperm(len(log_mel)).to(log_mel.device)[rows]
    mixed, united = log_mel.clone(), weak_labels.clone()
    mixed[rows] = torch.logaddexp(log_mel[rows], log_mel[others])
    united[rows] = torch.maximum(weak_labels[rows], weak_labels[others])
    return mixed, united
