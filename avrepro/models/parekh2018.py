"""Parekh et al. (2018): multiple-instance learning over image regions and audio segments that need not be in step."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.backbones.caffenet import CaffeNet


@dataclass(frozen=True)
class MILConfig:
    """Which system, and its sizes; the defaults are the paper's (section 4, implementation details)."""

    # (a), (b), (c), (d), (e) of Table 1
    system: Literal["two_stream", "audio_only", "video_only", "wsddn", "one_stream"] = "two_stream"
    classes: int = 17
    region_features: int = 9216  # conv5 of CaffeNet in 6 x 6 cells of each region, 256 x 6 x 6
    segment_features: int = 128  # VGGish; YAMNet has 1024
    region_units: int = 4096  # fc6 and fc7, each
    segment_units: int = 128
    dropout: float = 0.5  # after fc6 and after fc7
    sharpness: float = 1.0  # r of the one-stream system's log-sum-exp; the plain operator has 1
    l2: bool = True  # whether the scores of each modality are normalised before they are added


class Submodule(nn.Module):
    """One modality of figure 2: fully connected layers, then the proposal scoring network (section 3.2)."""

    scale: Tensor  # features are divided by it; 1 in the paper

    def __init__(self, layers: nn.Sequential, units: int, config: MILConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("scale", torch.ones(()))
        self.layers = layers
        self.classify = nn.Linear(units, config.classes)  # W_cls
        # W_loc. A bias would add the same to all proposals of a class, which the softmax over proposals undoes.
        self.localise = None if config.system == "one_stream" else nn.Linear(units, config.classes, bias=False)

    def forward(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of proposals and of clips, before l2 normalisation.

        :param features: float [clips, proposals, features]; ``mask``: bool [clips, proposals], False for padding.
        :returns: D = A * softmax(B) of each proposal and its sum over proposals (two streams), or A and its
            log-sum-exp (one stream); float32 [clips, proposals, classes] and [clips, classes], 0 where the mask is
            False and in clips without a proposal.
        """
        z = self.layers(features[mask] / self.scale)  # (N, d), Z of all clips: padding never reaches a layer
        a = _unpacked(self.classify(z), mask)  # (B, P, C)
        if self.localise is None:
            return a, log_sum_exp(a, mask, self.config.sharpness)
        if self.config.system == "wsddn":
            a = a.softmax(dim=2)  # Bilen and Vedaldi (2016): what is this proposal, one of the classes?
        weights = softmax_over_proposals(_unpacked(self.localise(z), mask), mask)  # (B, P, C)
        d = a * weights
        return d, d.sum(dim=1)


class MILNetwork(nn.Module):
    """Class scores of clips from bags of proposals: systems (a) to (e) of Table 1.

    ReLU after each fully connected layer: CaffeNet's, and ours for the audio layer, of which the paper says nothing.
    """

    def __init__(self, config: MILConfig) -> None:
        super().__init__()
        self.config = config
        self.regions: Submodule | None = None
        self.segments: Submodule | None = None
        if config.system != "audio_only":
            layers = [
                ("fc6", nn.Linear(config.region_features, config.region_units)),
                ("relu6", nn.ReLU()),
                ("dropout6", nn.Dropout(config.dropout)),
                ("fc7", nn.Linear(config.region_units, config.region_units)),
                ("relu7", nn.ReLU()),
                ("dropout7", nn.Dropout(config.dropout)),
            ]
            self.regions = Submodule(nn.Sequential(OrderedDict(layers)), config.region_units, config)
        if config.system not in ("video_only", "wsddn"):
            dense = nn.Sequential(nn.Linear(config.segment_features, config.segment_units), nn.ReLU())
            self.segments = Submodule(dense, config.segment_units, config)

    def forward(
        self, regions: Tensor | None, region_mask: Tensor | None, segments: Tensor | None, segment_mask: Tensor | None
    ) -> Tensor:
        """phi(V; w): one score for each clip and class, higher meaning likelier.

        A modality that the system does not use may be None. A clip without proposals in a modality gets 0 from it
        and is scored by the other.

        :param regions: float [clips, R, region_features]; ``segments``: float [clips, S, segment_features].
        :param region_mask: [clips, R], and ``segment_mask`` [clips, S]: true (or 1) for proposals, 0 for padding.
        :returns: float32 [clips, classes]: within -1..1 a modality; probabilities for ``wsddn``.
        """
        found = self.by_modality(regions, region_mask, segments, segment_mask)
        scores = [of_clips for _, of_clips in found.values()]  # (B, C) each
        if self.config.l2 and self.config.system != "wsddn":  # its scores stay probabilities
            scores = [F.normalize(score, dim=1) for score in scores]  # l2, section 3.2
        return torch.stack(scores).sum(dim=0)

    def by_modality(
        self, regions: Tensor | None, region_mask: Tensor | None, segments: Tensor | None, segment_mask: Tensor | None
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Scores of proposals and of clips as of :class:`Submodule`: of ``regions`` and ``segments``, as far as used.

        Those of proposals are what figures 3 and 4 show: D = A * softmax(B), as in Bilen and Vedaldi (2016), where the
        paper only says "scores"; A for the one-stream system. :func:`scaled` brings them to 0..1 for display.
        """
        found = {}
        if self.regions is not None:
            found["regions"] = self.regions(regions, region_mask.bool())  # type: ignore[union-attr]
        if self.segments is not None:
            found["segments"] = self.segments(segments, segment_mask.bool())  # type: ignore[union-attr]
        return found

    def fine_tune(self, caffenet: CaffeNet) -> None:
        """Start fc6 and fc7 from those of a network that was trained on ImageNet (section 3.1)."""
        assert self.regions is not None
        for name in ("fc6", "fc7"):
            getattr(self.regions.layers, name).load_state_dict(getattr(caffenet, name).state_dict())

    def scale_features(self, regions: float, segments: float) -> None:
        """Divide features before the first layer; ours, for base networks whose features differ a hundredfold."""
        for submodule, scale in ((self.regions, regions), (self.segments, segments)):
            if submodule is not None:
                submodule.scale.fill_(scale)

    def loss(self, scores: Tensor, weak_labels: Tensor) -> Tensor:
        """What the system is trained with; scores of :meth:`forward` and labels 0 or 1, both [clips, classes]."""
        return (binary_log_loss if self.config.system == "wsddn" else hinge_loss)(scores, weak_labels)


def softmax_over_proposals(b: Tensor, mask: Tensor) -> Tensor:
    """Equation 1 for padded bags: each class's weights of a clip's proposals sum to 1; 0 for padding.

    :param b: float [clips, proposals, classes]; ``mask``: bool [clips, proposals].
    """
    there = mask[..., None]
    # The least number instead of -inf: a clip of padding alone would give 0 / 0, and NaN gradients even where masked.
    return b.masked_fill(~there, torch.finfo(b.dtype).min).softmax(dim=1) * there


def log_sum_exp(a: Tensor, mask: Tensor, sharpness: float = 1.0) -> Tensor:
    """Soft maximum over proposals, 1/r log sum_p exp(r a_p), 0 in a clip without any; the paper names no r, here 1.

    :param a: float [clips, proposals, classes]; ``mask``: bool [clips, proposals].
    """
    there = mask[..., None]
    lowest = torch.finfo(a.dtype).min
    pooled = (sharpness * a).masked_fill(~there, lowest).logsumexp(dim=1) / sharpness  # (B, C)
    return torch.where(there.any(dim=1), pooled, 0.0)


def hinge_loss(scores: Tensor, weak_labels: Tensor) -> Tensor:
    """Equation 2: max(0, 1 - y phi) averaged over [clips, classes], y = +1 for a label (1) and -1 for none (0)."""
    y = 2 * weak_labels - 1
    return (1 - y * scores).clamp(min=0).mean()


def binary_log_loss(probabilities: Tensor, weak_labels: Tensor) -> Tensor:
    """Bilen and Vedaldi (2016), equation 3, without weight decay: -log(y (phi - 1/2) + 1/2), averaged as equation 2."""
    right = torch.where(weak_labels > 0, probabilities, 1 - probabilities)
    return -right.clamp(min=1e-7).log().mean()


def scaled(scores: np.ndarray) -> np.ndarray:
    """Scores of a clip's proposals, float [proposals, classes], brought to 0..1 (figures 3 and 4: 1 is white).

    0 in a class whose scores do not differ.
    """
    low, high = scores.min(axis=0, initial=np.inf), scores.max(axis=0, initial=-np.inf)
    return (scores - low) / np.where(high > low, high - low, 1)


def _unpacked(packed: Tensor, mask: Tensor) -> Tensor:
    """[proposals of all clips, classes] -> [clips, proposals, classes], 0 for padding."""
    full = packed.new_zeros((*mask.shape, packed.shape[1]))
    full[mask] = packed
    return full
