"""Attention bottlenecks (Nagrani et al., NeurIPS 2021) on frozen features of frames and audio segments.

A transformer looks at the frames, another one listens to the segments. From some layer on both also attend to a few
shared tokens, the bottleneck, through which alone they tell each other what they found.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models.parekh2018 import Bags, root_mean_square

SPREAD = 0.02  # standard deviation that learned tokens and positions start with: the authors'


@dataclass(frozen=True)
class BottleneckConfig:
    """Sizes.

    The paper's are those of ViT-Base (12 layers of 12 heads, 768 units, 3072 hidden ones, fusion after layer 8), which
    begin with weights of ImageNet-21k and see patches. Some hundred clips cannot train as many anew, so ours are small.
    """

    classes: int = 17
    frame_features: int = 1008
    segment_features: int = 1024
    frames: int = 10  # most of a clip, one a second
    segments: int = 20  # most of a clip
    width: int = 64  # units of a token
    heads: int = 4
    hidden: int = 128  # units of the layers' perceptrons
    layers: int = 3  # of each modality
    fusion_layer: int = 1  # layers before the bottleneck joins, L_f; as many as ``layers``: it never does
    bottlenecks: int = 4  # B; the paper's
    dropout: float = 0.3  # ours, of tokens too; the authors drop whole layers, and here there are only three

    def values(self) -> dict:
        return asdict(self)


class Stream(nn.Module):
    """One modality: its tokens, class token first, and the layers that they pass."""

    scale: Tensor  # that features are divided by

    def __init__(self, features: int, positions: int, config: BottleneckConfig) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(()))
        self.project = nn.Linear(features, config.width)
        self.position = nn.Parameter(torch.randn(positions, config.width) * SPREAD)
        self.class_token = nn.Parameter(torch.randn(config.width) * SPREAD)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.width,
                config.heads,
                config.hidden,
                config.dropout,
                activation="gelu",
                batch_first=True,
                norm_first=True,  # as in ViT
            )
            for _ in range(config.layers)
        )

    def tokens(self, features: Tensor) -> Tensor:
        """float [clips, proposals, features], in their order in time -> [clips, 1 + proposals, width]."""
        if features.shape[1] > len(self.position):
            raise ValueError(f"expected at most {len(self.position)} frames or segments, found {features.shape[1]}")
        found = self.project(features / self.scale) + self.position[: features.shape[1]]  # (B, P, D)
        return torch.cat([self.class_token.expand(len(found), 1, -1), self.dropout(found)], dim=1)


class BottleneckNetwork(nn.Module):
    """Class scores of clips from bags of frames and segments that exchange what they know through a bottleneck."""

    def __init__(self, config: BottleneckConfig) -> None:
        super().__init__()
        if config.fusion_layer not in (*range(config.layers - 1), config.layers):
            raise ValueError(
                f"fusion_layer: expected 0..{config.layers - 2} or {config.layers} of {config.layers} layers, found "
                f"{config.fusion_layer}: what a layer writes to the bottleneck is read by the next one"
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
        :param frame_mask: [clips, F], and ``segment_mask`` [clips, S]: true (or 1) for what is there, 0 for padding.
        :returns: float32 [clips, classes]; 0 for a clip with neither frames nor segments.
        :raises ValueError: more frames or segments than there are positions.
        """
        logits, present = self.by_modality(frames, frame_mask, segments, segment_mask)
        return _mean(logits, present)

    def by_modality(
        self, frames: Tensor, frame_mask: Tensor, segments: Tensor, segment_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What each modality's class token says, float32 [2, clips, classes], and which clips have it, bool [2, clips].

        Arguments as of :meth:`forward`; pictures come first. Nothing is to be read from logits of a modality that a
        clip lacks: it takes no part in the bottleneck.
        """
        streams = (self.frames, self.segments)
        masks = (frame_mask.bool(), segment_mask.bool())
        present = torch.stack([mask.any(dim=1) for mask in masks])  # (2, B)
        own = [self.frames.tokens(frames), self.segments.tokens(segments)]  # (B, 1 + P, D) each
        hidden = [F.pad(~mask, (1, 0)) for mask in masks]  # from attention: padding; the class token never is
        shared = self.bottleneck.expand(len(frames), -1, -1)  # (B, bottlenecks, D)
        for number in range(self.config.layers):
            if number < self.config.fusion_layer:
                for at, stream in enumerate(streams):
                    own[at] = stream.layers[number](own[at], src_key_padding_mask=hidden[at])
                continue
            told = []
            for at, stream in enumerate(streams):  # each attends to its own tokens and the bottleneck's
                size = own[at].shape[1]
                out = stream.layers[number](
                    torch.cat([own[at], shared], dim=1),
                    src_key_padding_mask=F.pad(hidden[at], (0, self.config.bottlenecks)),
                )
                own[at] = out[:, :size]
                told.append(out[:, size:])
            shared = _mean(torch.stack(told), present)  # all that one learns of the other
        return torch.stack([self.classify(tokens[:, 0]) for tokens in own]).float(), present

    def prepare(self, frames: Bags, segments: Bags) -> None:
        """Scale each modality by the root mean square of its features in some training clips."""
        self.frames.scale.fill_(root_mean_square(frames))
        self.segments.scale.fill_(root_mean_square(segments))


def _mean(values: Tensor, present: Tensor) -> Tensor:
    """Over the modalities that a clip has: [2, clips, ...] and bool [2, clips] -> [clips, ...]; 0 where it has none."""
    kept = present.reshape(*present.shape, *[1] * (values.ndim - 2))
    return (values * kept).sum(dim=0) / kept.sum(dim=0).clamp(min=1)
