"""Attention bottlenecks: the layers of each clip by itself, missing modalities, and frames."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from avrepro.models.bottleneck import BottleneckConfig, BottleneckNetwork
from avrepro.systems.beyond import frames_of

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = BottleneckConfig(
    classes=3, frame_features=6, segment_features=5, frames=4, segments=7,
    width=8, heads=2, hidden=12, layers=3, fusion_layer=1, bottlenecks=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def grown(config: BottleneckConfig) -> BottleneckNetwork:
    """A network whose learned tokens and positions are no longer next to nothing, as after a training."""
    network = BottleneckNetwork(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("position", "class_token")) or name == "bottleneck":
                parameter.normal_()
    return network


def arguments(clips: int = 3, frames: int = 4, segments: int = 7) -> list[Tensor]:
    return [
        torch.randn(clips, frames, 6),
        torch.ones(clips, frames, dtype=torch.bool),
        torch.randn(clips, segments, 5),
        torch.ones(clips, segments, dtype=torch.bool),
    ]


def test_a_bottleneck_that_no_layer_reads_is_refused() -> None:
    for fusion_layer in (-1, 2, 4):
        with pytest.raises(ValueError, match=r"fusion_layer: expected 0\.\.1 or 3 of 3 layers"):
            BottleneckNetwork(replace(TINY, fusion_layer=fusion_layer))
    with pytest.raises(ValueError, match=r"at most 7 .* found 8"):
        BottleneckNetwork(TINY)(*arguments(segments=8))


@pytest.mark.parametrize("fusion_layer", [0, 1, 3])
def test_layers_are_those_of_a_clip_by_itself(fusion_layer: int) -> None:
    """Clip by clip, without padding and masks: own tokens and bottleneck through a layer, the two then averaged."""
    network = grown(replace(TINY, fusion_layer=fusion_layer))
    frames, _, segments, _ = arguments(6)
    sizes = [(4, 7), (2, 7), (3, 1), (4, 0), (0, 5), (0, 0)]  # of one modality alone, the bottleneck is that one's
    masks = [torch.arange(most) < torch.tensor([size[at] for size in sizes])[:, None] for at, most in ((0, 4), (1, 7))]
    found = network(frames, masks[0], segments, masks[1])
    for clip, size in enumerate(sizes):
        own = [
            torch.cat([stream.class_token[None], stream.project(x / stream.scale) + stream.position[: len(x)]])
            for stream, x in ((network.frames, frames[clip, : size[0]]), (network.segments, segments[clip, : size[1]]))
        ]
        shared = network.bottleneck
        for number in range(3):
            outs = []
            for at, stream in enumerate((network.frames, network.segments)):
                tokens = own[at] if number < fusion_layer else torch.cat([own[at], shared])
                out = stream.layers[number](tokens[None])[0]
                outs.append(out[len(own[at]) :])
                own[at] = out[: len(own[at])]
            outs = [out for out, count in zip(outs, size, strict=True) if count]
            if number >= fusion_layer and outs:
                shared = sum(outs) / len(outs)
        logits = [network.classify(tokens[0]) for tokens, count in zip(own, size, strict=True) if count]
        expected = sum(logits, torch.zeros(3)) / max(1, len(logits))
        torch.testing.assert_close(found[clip], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("delay", [0, 1, 3, 5])
def test_a_frame_is_the_maximum_over_its_regions(delay: int) -> None:
    rng = np.random.default_rng(0)
    boxes = np.full((4, 3, 5), np.nan)
    for frame, count in enumerate((3, 1, 2, 3)):
        boxes[frame, :count] = 0.5
    regions = rng.normal(size=(9, 6))
    found, rest = frames_of(regions, boxes, delay), iter(regions)
    for frame, count in enumerate((3, 1, 2, 3)):
        of_frame = [next(rest) for _ in range(count)]
        np.testing.assert_array_equal(found[(frame + delay) % 4], np.max(of_frame, axis=0))
    assert frames_of(np.zeros((0, 6)), np.zeros((0, 3, 5)), delay).shape == (0, 6)
