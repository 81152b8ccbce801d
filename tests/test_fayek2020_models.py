"""The two networks of Fayek and Kumar (2020) against Table 1, sections 3.1 and 3.2 and equation 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy_clips import randomise

from avrepro.models.fayek2020 import AudioConfig, AudioConvNet, VisualConfig, VisualNetwork

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = AudioConfig(classes=3, channels=(2, 3, 4, 5), instance=6, units=7)
TABLE_1 = (  # block, layer, its output for an input of 1 x 1024 x 64, its kernel
    ("B1", "Conv2d", (64, 1024, 64), (3, 3)), ("B1", "Conv2d", (64, 1024, 64), (3, 3)),
    ("B1", "MaxPool2d", (64, 256, 16), 4),
    ("B2", "Conv2d", (128, 256, 16), (3, 3)), ("B2", "Conv2d", (128, 256, 16), (3, 3)),
    ("B2", "MaxPool2d", (128, 128, 8), 2),
    ("B3", "Conv2d", (256, 128, 8), (3, 3)), ("B3", "Conv2d", (256, 128, 8), (3, 3)),
    ("B3", "MaxPool2d", (256, 64, 4), 2),
    ("B4", "Conv2d", (512, 64, 4), (3, 3)), ("B4", "Conv2d", (512, 64, 4), (3, 3)),
    ("B4", "MaxPool2d", (512, 32, 2), 2),
    ("B5", "Conv2d", (2048, 30, 1), (3, 2)), ("B6", "Conv2d", (1024, 30, 1), (1, 1)),
    ("B7", "Conv2d", (1024, 30, 1), (1, 1)), ("B8", "Conv2d", (527, 30, 1), (1, 1)),
)  # fmt: skip


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- the audio model ---------------------------------------------------------------------------------------


def test_table_1_row_by_row() -> None:
    network = AudioConvNet(AudioConfig()).eval()
    rows = []
    for block, part in network.blocks.items():
        for layer in part:

            def note(layer: nn.Module, _: object, output: Tensor, block: str = block) -> None:
                if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                    rows.append((block, type(layer).__name__, tuple(output.shape[1:]), layer.kernel_size))

            layer.register_forward_hook(note)
    with torch.inference_mode():
        clips = network(torch.randn(1, 1024, 64))
    assert tuple(rows) == TABLE_1
    assert clips.shape == (1, 527)


def test_the_audio_model_literally() -> None:
    """Layer by layer from the state, with no layer of ours."""
    network = AudioConvNet(TINY).double().eval()
    randomise(network)
    state, log_mel = network.state_dict(), torch.randn(2, 200, 64, dtype=torch.double)
    maps = torch.zeros(2, 1, 200, 64, dtype=torch.double)
    for clip in range(2):
        for band in range(64):
            values = log_mel[clip, :, band]
            maps[clip, 0, :, band] = (values - values.sum() / 200) / state["deviation"][band]

    def layer(maps: Tensor, block: str, at: int, padding: int) -> Tensor:
        maps = F.conv2d(maps, state[f"blocks.{block}.{at}.weight"], padding=padding)
        of = {
            name: state[f"blocks.{block}.{at + 1}.{name}"][:, None, None]
            for name in ("running_mean", "running_var", "weight", "bias")
        }
        return ((maps - of["running_mean"]) / (of["running_var"] + 1e-5).sqrt() * of["weight"] + of["bias"]).clamp(0)

    for block, pool in (("B1", 4), ("B2", 2), ("B3", 2), ("B4", 2)):
        maps = F.max_pool2d(layer(layer(maps, block, 0, 1), block, 3, 1), pool, stride=pool)
    for block in ("B5", "B6", "B7"):
        maps = layer(maps, block, 0, 0)
    logits = F.conv2d(maps, state["blocks.B8.0.weight"], state["blocks.B8.0.bias"])[..., 0]
    expected = 1 / (1 + (-logits).exp())  # (clips, classes, segments)
    with torch.inference_mode():
        (segments, within), clips = network.segments(log_mel), network(log_mel)
    assert expected.std() > 0.05 and within.all()
    torch.testing.assert_close(segments, expected.transpose(1, 2))
    for clip in range(2):
        for k in range(3):
            assert clips[clip, k].item() == pytest.approx(sum(float(p) for p in expected[clip, k]) / 4)


@pytest.mark.parametrize("frames", [96, 127, 128, 319, 512])
def test_a_short_clip_scores_as_if_it_ended_there(frames: int) -> None:
    """Beside a long one, padded by -inf, and alone, cut to the frames that were recorded."""
    network = AudioConvNet(TINY).double().eval()
    randomise(network)
    long, short = torch.randn(2, 512, 64, dtype=torch.double)
    padded = short.clone()
    padded[frames:] = -torch.inf
    with torch.inference_mode():
        together = network(torch.stack([long, padded]))
        segments, within = network.segments(torch.stack([long, padded]))
        alone = network(short[None, :frames])
    torch.testing.assert_close(together, torch.cat([network(long[None]), alone]))
    torch.testing.assert_close(segments[1][within[1]], network.segments(short[None, :frames])[0][0])
    assert within[0].all() and within[1].sum() == frames // 32 - 2


def test_a_clip_shorter_than_a_segment_and_one_without_sound_have_scores() -> None:
    network = AudioConvNet(TINY).eval()
    randomise(network)
    log_mel = torch.full((2, 128, 64), -torch.inf)
    log_mel[0, :40] = torch.randn(40, 64)
    silence = torch.full((1, 128, 64), -23.0)
    with torch.inference_mode():
        found = network(log_mel)
        torch.testing.assert_close(found[1:], network(silence))  # nothing stands out of it, as of recorded silence
        torch.testing.assert_close(found[0], network.segments(log_mel)[0][0, 0])
    assert found.isfinite().all() and not torch.allclose(found[0], found[1])


# --- the visual model --------------------------------------------------------------------------------------


def test_the_visual_network_literally() -> None:
    dropouts = [layer.p if isinstance(layer, nn.Dropout) else None for layer in VisualNetwork(VisualConfig()).layers]
    assert dropouts == [None, None, 0.3, None, None, 0.3, *[None] * 5]  # after the first two layers' ReLU
    network = VisualNetwork(VisualConfig(classes=3, inputs=6, hidden=(5, 4, 4, 3))).double().eval()
    randomise(network)
    state = {name: one.numpy() for name, one in network.state_dict().items()}
    weights = [state[name] for name in state if name.endswith("weight")]
    biases = [state[name] for name in state if name.startswith("layers") and name.endswith("bias")]
    features = np.random.default_rng(0).normal(size=(4, 6))
    with torch.inference_mode():
        found = network(torch.from_numpy(features))
    for row, one in zip(found, features, strict=True):
        x = (one - state["mean"]) / state["deviation"]
        for weight, bias in list(zip(weights, biases, strict=True))[:4]:
            x = np.maximum(weight @ x + bias, 0)
        np.testing.assert_allclose(row, 1 / (1 + np.exp(-(weights[4] @ x + biases[4]))))
