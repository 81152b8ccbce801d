"""Attention bottlenecks (Nagrani et al., NeurIPS 2021) on frozen features of frames and audio segments.

Each modality has a transformer of its own. From layer L_f on both also attend to B shared tokens, the bottleneck, which
is the only way from one modality to the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.features.bags import Bags, root_mean_square

SPREAD = 0.02  # standard deviation of the initial tokens and positions: the authors'


@dataclass(frozen=True)
class BottleneckConfig:
    """Sizes: small ones, as some hundred clips cannot train the paper's ViT-Base from scratch."""

    classes: int = 17
    frame_features: int = 1008
    segment_features: int = 1024
    frames: int = 10  # most of a clip, one a second
    segments: int = 20  # most of a clip
    width: int = 64  # units of a token
    heads: int = 4
    hidden: int = 128  # units of the layers' perceptrons
    layers: int = 3  # of each modality
    fusion_layer: int = 1  # layers before the bottleneck, L_f; equal to ``layers``: no fusion
    bottlenecks: int = 4  # B; the paper's
    dropout: float = 0.3  # ours, of tokens too; the authors drop whole layers, of which there are only three here


class Stream(nn.Module):
    """One modality: its tokens, class token first, and their transformer layers."""

    scale: Tensor  # root mean square of the features, by which they are divided

    def __init__(self, features: int, positions: int, config: BottleneckConfig) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.project = nn.Linear(features, config.width)
        self.position = nn.Parameter(torch.randn(positions, config.width) * SPREAD)
        self.class_token = nn.Parameter(torch.randn(config.width) * SPREAD)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width, config.heads, config.hidden, config.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.layers)
        )

    def tokens(self, features: Tensor) -> Tensor:
        """Features in order of time, float [clips, proposals, features] -> [clips, 1 + proposals, width]."""
        if features.shape[1] > len(self.position):
            raise ValueError(f"expected at most {len(self.position)} frames or segments, found {features.shape[1]}")
        tokens = self.project(features / self.scale) + self.position[: features.shape[1]]  # (clips, P, D)
        return torch.cat([self.class_token.expand(len(tokens), 1, -1), self.dropout(tokens)], dim=1)


class BottleneckNetwork(nn.Module):
    """Class scores of clips from frames and segments that are fused through a bottleneck."""

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        if config.fusion_layer not in (*range(config.layers - 1), config.layers):
            raise ValueError(
                f"fusion_layer: expected 0..{config.layers - 2} or {config.layers} of {config.layers} layers, found "
                f"{config.fusion_layer}: the bottleneck's tokens after a layer are read by the next one"
            )
        self.config = config
        self.frames = Stream(config.frame_features, config.frames, config)
        self.segments = Stream(config.segment_features, config.segments, config)
        self.bottleneck = nn.Parameter(torch.randn(config.bottlenecks, config.width) * SPREAD)
        # One for both modalities, as in the authors' code (google-research/scenic, projects/mbt).
        self.classify = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.classes))

    def forward(self, frames: Tensor, frame_mask: Tensor, segments: Tensor, segment_mask: Tensor) -> Tensor:
        """Logits of clips: the mean over the modalities that a clip has.

        :param frames: float [clips, F, frame_features]; ``segments``: float [clips, S, segment_features]; in order.
        :param frame_mask: [clips, F], and ``segment_mask`` [clips, S]: true (or 1) for proposals, 0 for padding.
        :returns: float32 [clips, classes]; 0 for a clip with neither frames nor segments.
        :raises ValueError: more frames or segments than there are positions.
        """
        logits, present = self.by_modality(frames, frame_mask, segments, segment_mask)
        return _mean(logits, present)

    def by_modality(
        self, frames: Tensor, frame_mask: Tensor, segments: Tensor, segment_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits of each modality's class token, float32 [2, clips, classes], and where clips have it, bool [2, clips].

        Video comes first. A modality that a clip lacks takes no part in its bottleneck; its logits mean nothing.
        """
        streams = (self.frames, self.segments)
        masks = (frame_mask.bool(), segment_mask.bool())
        present = torch.stack([mask.any(dim=1) for mask in masks])  # (2, clips)
        own = [self.frames.tokens(frames), self.segments.tokens(segments)]  # (clips, 1 + P, D) each
        padding = [F.pad(~mask, (1, 0)) for mask in masks]  # (clips, 1 + P); the class token is none
        shared = self.bottleneck.expand(len(frames), -1, -1)  # (clips, B, D)
        for number in range(self.config.layers):
            if number < self.config.fusion_layer:
                for at, stream in enumerate(streams):
                    own[at] = stream.layers[number](own[at], src_key_padding_mask=padding[at])
                continue
            written = []
            for at, stream in enumerate(streams):  # each attends to its own tokens and the bottleneck's
                size = own[at].shape[1]
                out = stream.layers[number](
                    torch.cat([own[at], shared], dim=1),
                    src_key_padding_mask=F.pad(padding[at], (0, self.config.bottlenecks)),
                )
                own[at] = out[:, :size]
                written.append(out[:, size:])
            shared = _mean(torch.stack(written), present)  # the paper's average over modalities
        return torch.stack([self.classify(tokens[:, 0]) for tokens in own]).float(), present

    def prepare(self, frames: Bags, segments: Bags) -> None:
        """Scale each modality by the root mean square of its features in some training clips."""
        self.frames.scale.fill_(root_mean_square(frames))
        self.segments.scale.fill_(root_mean_square(segments))


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """Over the modalities that a clip has: [2, clips, ...] and bool [2, clips] -> [clips, ...]; 0 where it has none."""
    weight = present.reshape(*present.shape, *[1] * (values.ndim - 2))
    return (values * weight).sum(dim=0) / weight.sum(dim=0).clamp(min=1)
