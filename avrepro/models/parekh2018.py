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
        self,
        regions: Tensor | None,
        region_mask: Tensor | None,
        segments: Tensor | None,
        segment_mask: Tensor | None,
    ) -> Tensor:
        """phi(V; w): one score for each clip and class, higher meaning likelier.

        A modality that the system does not use may be None. A clip without proposals in a modality gets 0 from it
        and is scored by the other.

        :param regions: float [clips, R, region_features]; ``segments``: float [clips, S, segment_features].
        :param region_mask: [clips, R], and ``segment_mask`` [clips, S]: true (or 1) for proposals, 0 for padding.
        :returns: float32 [clips, classes]: within -1..1 a modality; probabilities for ``wsddn``.
        :raises ValueError: a modality that the system needs is missing, or features and mask do not fit.
        """
        parts = self._parts(regions, region_mask, segments, segment_mask)
        scores = [submodule(features, mask)[1] for _, submodule, features, mask in parts]  # (B, C) each
        if self.config.l2 and self.config.system != "wsddn":  # its scores stay probabilities
            scores = [F.normalize(score, dim=1) for score in scores]  # l2, section 3.2
        return torch.stack(scores).sum(dim=0)

    def localisation(
        self,
        regions: Tensor | None,
        region_mask: Tensor | None,
        segments: Tensor | None,
        segment_mask: Tensor | None,
    ) -> dict[str, Tensor]:
        """Scores that the classifiers assign to each proposal, by modality: what figures 3 and 4 show, unscaled.

        D = A * softmax(B), as in Bilen and Vedaldi (2016), where the paper only says "scores"; A for the one-stream
        system. :func:`scaled` brings them to 0..1 for display.

        :returns: ``regions`` [clips, R, classes] and ``segments`` [clips, S, classes], as far as the system has
            them, float32; NaN where the mask is False.
        """
        parts = self._parts(regions, region_mask, segments, segment_mask)
        return {
            name: submodule(features, mask)[0].masked_fill(~mask[..., None], torch.nan)
            for name, submodule, features, mask in parts
        }

    def fine_tune(self, caffenet: CaffeNet) -> None:
        """Start fc6 and fc7 from those of a network that was trained on ImageNet (section 3.1)."""
        assert self.regions is not None
        for name in ("fc6", "fc7"):
            getattr(self.regions.layers, name).load_state_dict(getattr(caffenet, name).state_dict())

    def scale_features(self, regions: float, segments: float) -> None:
        """Divide the features of each modality by a number before its first layer.

        Ours, for base networks whose features differ in size a hundredfold and layers that all start anew.
        """
        for submodule, scale in ((self.regions, regions), (self.segments, segments)):
            if submodule is not None:
                submodule.scale.fill_(scale)

    def loss(self, scores: Tensor, weak_labels: Tensor) -> Tensor:
        """What the system is trained with; scores of :meth:`forward` and labels 0 or 1, both [clips, classes]."""
        return (binary_log_loss if self.config.system == "wsddn" else hinge_loss)(scores, weak_labels)

    def _parts(
        self, regions: Tensor | None, region_mask: Tensor | None, segments: Tensor | None, segment_mask: Tensor | None
    ) -> list[tuple[str, Submodule, Tensor, Tensor]]:
        """Of each modality that the system uses: its name, submodule, features and bool mask."""
        parts = []
        for name, submodule, size, features, mask in (
            ("regions", self.regions, self.config.region_features, regions, region_mask),
            ("segments", self.segments, self.config.segment_features, segments, segment_mask),
        ):
            if submodule is None:
                continue
            if features is None or mask is None:
                raise ValueError(f"system {self.config.system!r} needs {name} and their mask, found None")
            if features.ndim != 3 or features.shape[2] != size or features.shape[:2] != mask.shape:
                raise ValueError(
                    f"{name}: expected features [clips, proposals, {size}] and a mask [clips, proposals], "
                    f"found {list(features.shape)} and {list(mask.shape)}"
                )
            parts.append((name, submodule, features, mask.bool()))
        return parts


def softmax_over_proposals(b: Tensor, mask: Tensor) -> Tensor:
    """Equation 1 for padded bags: each class's weights of a clip's proposals, which sum to 1.

    :param b: float [clips, proposals, classes]; ``mask``: bool [clips, proposals].
    :returns: like ``b``; 0 for padding, and all 0 in a clip without proposals.
    """
    there = mask[..., None]
    # The least number instead of -inf: a clip of padding alone would give 0 / 0, and NaN gradients even where masked.
    return b.masked_fill(~there, torch.finfo(b.dtype).min).softmax(dim=1) * there


def log_sum_exp(a: Tensor, mask: Tensor, sharpness: float = 1.0) -> Tensor:
    """Soft maximum over proposals, 1/r log sum_p exp(r a_p), at least the maximum and at most log(P)/r above it.

    The paper names the operator without r, and so does Bilen and Vedaldi's baseline: r = 1.

    :param a: float [clips, proposals, classes]; ``mask``: bool [clips, proposals].
    :returns: [clips, classes], 0 in a clip without proposals.
    """
    there = mask[..., None]
    lowest = torch.finfo(a.dtype).min
    pooled = (sharpness * a).masked_fill(~there, lowest).logsumexp(dim=1) / sharpness  # (B, C)
    return torch.where(there.any(dim=1), pooled, 0.0)


def hinge_loss(scores: Tensor, weak_labels: Tensor) -> Tensor:
    """Equation 2: max(0, 1 - y phi) averaged over clips and classes, y = +1 for a label and -1 for none.

    :param scores: float [clips, classes]; ``weak_labels``: 0 or 1, [clips, classes].
    """
    y = 2 * weak_labels - 1
    return (1 - y * scores).clamp(min=0).mean()


def binary_log_loss(probabilities: Tensor, weak_labels: Tensor) -> Tensor:
    """Bilen and Vedaldi (2016), equation 3, without weight decay: -log(y (phi - 1/2) + 1/2), averaged as equation 2.

    :param probabilities: float [clips, classes], 0..1; ``weak_labels``: 0 or 1, [clips, classes].
    """
    right = torch.where(weak_labels > 0, probabilities, 1 - probabilities)
    return -right.clamp(min=1e-7).log().mean()


def scaled(scores: np.ndarray) -> np.ndarray:
    """Each clip's and class's scores brought to 0..1 for display (figures 3 and 4: black is 0, white is 1).

    :param scores: float [..., proposals, classes], NaN for padding.
    :returns: of the same shape, NaN where ``scores`` is; all 0 where the scores of a bag do not differ.
    """
    padding = np.isnan(scores)
    low = np.where(padding, np.inf, scores).min(axis=-2, keepdims=True, initial=np.inf)
    high = np.where(padding, -np.inf, scores).max(axis=-2, keepdims=True, initial=-np.inf)
    span = np.where(high > low, high - low, 1.0)
    return np.where(padding, np.nan, (scores - np.where(padding, 0.0, low)) / span)


def _unpacked(packed: Tensor, mask: Tensor) -> Tensor:
    """[proposals of all clips, classes] -> [clips, proposals, classes], 0 for padding."""
    full = packed.new_zeros((*mask.shape, packed.shape[1]))
    full[mask] = packed
    return full
