"""What the networks of all papers have in common: gradients, losses, first guesses, and how inputs are scaled."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from test_fayek2020_fusions import FUSIONS
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models.audio import mix_clips
from avrepro.models.bottleneck import BottleneckConfig, BottleneckNetwork
from avrepro.models.fayek2020 import AudioConfig, AudioConvNet, VisualConfig, VisualNetwork, clip_loss
from avrepro.models.fayek2020_others import (
    JointAudioVisual,
    ResidualAudio,
    ResidualAudioConfig,
    VideoR2Plus1D,
    VideoR2Plus1DConfig,
    blended_loss,
)
from avrepro.models.gated_crnn import GatedCRNN, GatedCRNNConfig
from avrepro.models.li2017 import CRNN, CRNNConfig, mil_loss
from avrepro.models.parekh2018 import MILConfig, MILNetwork, binary_log_loss, hinge_loss

pytestmark = pytest.mark.usefixtures("one_thread")

LABELS = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
LOG_MEL = torch.randn(4, 128, 64, generator=torch.Generator().manual_seed(0)) * 3 - 5
FRAMES = torch.rand(4, 6, 16, 24, 3, generator=torch.Generator().manual_seed(1)) * 255
RESIDUAL = ResidualAudioConfig(3, 64, "basic", (1, 1, 1, 1), (4, 4, 8, 8))
VIDEO = VideoR2Plus1DConfig(3, "basic", (1, 1), (8, 16))

# On log-mel, features or frames alone: the network, and what it reads.
SINGLE: dict[str, tuple[Callable[[], Any], Tensor]] = {
    "CRNN": (partial(CRNN, CRNNConfig(3, 64, (4, 8, 8))), LOG_MEL),
    "strided CRNN": (partial(CRNN, CRNNConfig(3, 64, (4, 8, 8), stride_time=5)), LOG_MEL),
    "gated CRNN": (partial(GatedCRNN, GatedCRNNConfig(3, 64, (4, 4), (2, 1), (8, 2), 12, 6)), LOG_MEL),
    "audio ConvNet": (partial(AudioConvNet, AudioConfig(3, 64, (2, 3, 4, 5), 6, 7)), LOG_MEL),
    "visual network": (partial(VisualNetwork, VisualConfig(3, 64, (9, 9, 9, 9))), LOG_MEL[:, 0]),
    "ResNet": (partial(ResidualAudio, RESIDUAL), LOG_MEL),
    "R(2+1)D": (partial(VideoR2Plus1D, VIDEO), FRAMES),
}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def probabilities(model: Any, inputs: Tensor) -> Tensor:
    if isinstance(model, CRNN):
        return torch.sigmoid(model.clip(inputs))
    return torch.sigmoid(model(inputs)) if isinstance(model, ResidualAudio | VideoR2Plus1D) else model(inputs)


def check_gradients(model: nn.Module, loss: Tensor, but: Callable[[str], bool] = lambda name: False) -> None:
    loss.backward()
    for name, one in model.named_parameters():
        if not but(name):  # and more than what rounding leaves of a sum that is zero
            assert one.grad is not None and one.grad.isfinite().all() and one.grad.abs().max() > 1e-8, name


def residual_branches_open(model: nn.Module) -> None:
    """timm's residual branches begin at 0, and nothing passes through."""
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)


@pytest.mark.parametrize("name", SINGLE)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    build, inputs = SINGLE[name]
    model = build().train()
    residual_branches_open(model)
    check_gradients(model, F.binary_cross_entropy(probabilities(model, inputs), LABELS))


@pytest.mark.parametrize("system", ["two_stream", "audio_only", "video_only", "wsddn", "one_stream"])
def test_every_parameter_of_mil_gets_a_gradient(system: Any) -> None:
    model = MILNetwork(MILConfig(system, 3, 7, 6, 9, 8))
    mask = torch.rand(4, 30) < 0.8
    scores = model(torch.randn(4, 30, 7) * 2, mask, torch.randn(4, 30, 6) * 2, mask)
    check_gradients(model, model.loss(scores, LABELS))


def test_every_parameter_of_fusing_networks_gets_a_gradient() -> None:
    joint = JointAudioVisual(RESIDUAL, VIDEO, 8)
    residual_branches_open(joint)
    logits = joint(LOG_MEL, FRAMES)
    check_gradients(joint, blended_loss(logits, LABELS, dict.fromkeys(logits, 1 / 3)))
    bottleneck = BottleneckNetwork(BottleneckConfig(3, 6, 5, 4, 7, 8, 2, 12))
    masks = torch.rand(4, 4) < 0.7, torch.rand(4, 7) < 0.7
    logits = bottleneck(torch.randn(4, 4, 6), masks[0], torch.randn(4, 7, 5), masks[1])
    check_gradients(bottleneck, (logits**2).sum())


@pytest.mark.parametrize("name", FUSIONS)
def test_every_parameter_of_fusions_gets_a_gradient(name: str) -> None:
    """After the first step: where attention starts at a half for all, its hidden layer has none in that."""
    model, (h_a, h_v) = FUSIONS[name](3, 5).train(), torch.rand(2, 4, 3)
    model.prepare(torch.stack([h_a.mean(0), h_a.std(0)]).repeat(2, 1, 1), torch.tensor([0.75, 0.25, 0.1]))
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(3):
        optimiser.zero_grad()
        model.loss(h_a, h_v, LABELS).backward()
        optimiser.step()
    before_norm = {f"{name}.0.bias" for name in ("layers", "n_attn", "n_attn_a", "n_attn_v")}  # which takes it out
    check_gradients(model, model.loss(h_a, h_v, LABELS), lambda name: name in before_norm)


def test_losses_are_means_over_clips_and_classes() -> None:
    """Three cross entropies, that of Fayek and Kumar for a student's targets, and the hinge loss."""
    rng = np.random.default_rng(4)
    logits, labels, targets = rng.normal(0, 2, (5, 7)), rng.integers(0, 2, (5, 7)).astype(float), rng.random((5, 7))
    p = 1 / (1 + np.exp(-logits))

    def mean(of: Callable[[float, float], float], scores: np.ndarray, y: np.ndarray) -> float:
        return sum(of(scores[n, c], y[n, c]) for n in range(5) for c in range(7)) / 35

    def entropy(p: float, y: float) -> float:
        return -y * math.log(p) - (1 - y) * math.log(1 - p)

    def hinge(phi: float, y: float) -> float:
        return max(0.0, 1 - (1 if y else -1) * phi)

    for loss, of, given, scores, y in (
        (mil_loss, entropy, logits, p, labels),
        (clip_loss, entropy, p, p, targets),
        (binary_log_loss, entropy, p, p, labels),
        (hinge_loss, hinge, logits, logits, labels),
    ):
        found = float(loss(torch.from_numpy(given), torch.from_numpy(y)))
        assert found == pytest.approx(mean(of, scores, y), rel=1e-12), loss.__name__
    extremes = torch.tensor([[0.0, 1.0]], requires_grad=True)
    binary_log_loss(extremes, torch.tensor([[1.0, 0.0]])).backward()
    assert extremes.grad is not None and extremes.grad.isfinite().all()


@pytest.mark.parametrize("name", SINGLE)
def test_the_first_guess_is_how_common_a_class_is(name: str) -> None:
    build, inputs = SINGLE[name]
    model = build().eval()
    model.prepare(inputs, LABELS)
    last = {"AudioConvNet": "blocks.B8.0", "VisualNetwork": "layers.10"}.get(type(model).__name__, "classify")
    nn.init.zeros_(model.get_submodule(last).weight if last != "classify" else model.classify.weight)
    with torch.inference_mode():
        found = probabilities(model, inputs)
    torch.testing.assert_close(found, torch.tensor([[0.75, 0.25, 1e-3]]).expand(4, 3), rtol=1e-4, atol=1e-6)


def test_the_first_guess_of_all_heads_is_the_same() -> None:
    model = JointAudioVisual(RESIDUAL, VIDEO, 8).eval()
    model.prepare(LOG_MEL, FRAMES, LABELS)
    with torch.inference_mode():
        for logits in model(LOG_MEL, FRAMES).values():
            torch.testing.assert_close(torch.sigmoid(logits), torch.tensor([[0.75, 0.25, 1e-3]]).expand(4, 3))


@pytest.mark.parametrize("name", ["gated CRNN", "visual network", "ResNet", "R(2+1)D"])
def test_inputs_are_scaled_by_what_is_recorded_of_training_clips(name: str) -> None:
    """By mean and deviation of each band, feature or colour; one that is always the same gives no division by 0."""
    build, inputs = SINGLE[name]
    inputs = inputs * torch.linspace(0.2, 1, inputs.shape[-1])
    inputs[..., 0] = 2
    values = inputs.flatten(0, -2) / (255 if name == "R(2+1)D" else 1)
    if inputs.ndim == 3:
        inputs[::2, 90:] = -torch.inf
        values = inputs[inputs[..., 0] > -torch.inf]
    model = build()
    model.prepare(inputs, LABELS)
    torch.testing.assert_close(model.mean, values.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.deviation, values.std(dim=0).clamp(min=1e-3), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["CRNN", "audio ConvNet"])
def test_a_gain_changes_no_score(name: str) -> None:
    """It adds a constant to each log-mel band; bands are scaled by their deviations over the recorded frames."""
    model = SINGLE[name][0]().double().eval()
    scale, log_mel = torch.rand(64, dtype=torch.double) * 9 + 1, torch.randn(4, 128, 64, dtype=torch.double)
    log_mel = log_mel * scale
    log_mel[:, 100:] = -torch.inf
    model.prepare(log_mel, LABELS)
    left = log_mel[:, :100] - log_mel[:, :100].mean(dim=1, keepdim=True)
    torch.testing.assert_close(model.deviation, left.flatten(0, 1).std(dim=0), check_dtype=False)
    with torch.inference_mode():
        torch.testing.assert_close(model(log_mel + torch.randn(4, 1, 64)), model(log_mel))


def test_a_mixture_holds_both_clips() -> None:
    log_mel, labels = torch.randn(6, 20, 4), torch.eye(6)
    mixed, united = mix_clips(log_mel, labels, 0.5)
    changed = (mixed != log_mel).any(dim=(1, 2))
    assert 0 < changed.sum() < 6
    for row in range(6):
        parts = united[row].nonzero()[:, 0].tolist()
        assert row in parts
        if changed[row]:  # a clip may also be laid over itself, and is then twice as loud
            energy = log_mel.exp()[parts].sum(dim=0) * (2 if len(parts) == 1 else 1)
            torch.testing.assert_close(mixed[row].exp(), energy, rtol=1e-4, atol=1e-5)
        else:
            assert parts == [row]
    assert all(torch.equal(a, b) for a, b in zip(mix_clips(log_mel, labels, 0.0), (log_mel, labels), strict=True))
