"""The audio branch of Li et al. (2017), its checkpoint, and the fusion of both branches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from avrepro.evaluation import tagging_scores, tune_thresholds
from avrepro.models.li2017 import (
    CRNN,
    CRNNConfig,
    by_better_branch_of_class,
    fuse,
    fusion_weights,
    mil_loss,
    tuned_weights,
)
from avrepro.systems.li2017 import PROFILES

pytestmark = pytest.mark.usefixtures("one_thread")


# --- the network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PROFILES["paper"].crnn, PROFILES["demo"].crnn])
def test_ten_seconds_become_a_hundred_frames_of_seventeen_classes(config: CRNNConfig) -> None:
    """Section 3.2: 2000 x 60 at 200 Hz -> 10 Hz; a bidirectional GRU of 100 each way; 17 outputs."""
    model = CRNN(config).eval()
    with torch.inference_mode():
        assert model(torch.randn(2, 2000, 60)).shape == (2, 100, 17)
    assert (model.gru.hidden_size, model.gru.bidirectional) == (100, True)
    dropouts = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.2] * 4  # after each pooling and after the GRU


def literal_crnn(model: CRNN, log_mel: np.ndarray) -> np.ndarray:
    """P(e_k | x_i) of one clip, equation by equation in NumPy; log_mel float64 [frames, mels], all of them recorded."""
    state = {name: value.double().numpy() for name, value in model.state_dict().items()}
    config = model.config
    maps = ((log_mel - log_mel.mean(axis=0)) / state["deviation"])[None]  # (C, T, M)
    stride = config.stride_time
    for block, (time, mel) in enumerate(zip(config.pool_time, config.pool_mel, strict=True)):
        weight, name = state[f"convolutions.{5 * block}.weight"], f"convolutions.{5 * block + 1}"
        padded = np.pad(maps, ((0, 0), (1, 1), (1, 1)))
        out = np.zeros((len(weight), -(-maps.shape[1] // stride), maps.shape[2]))
        for channel, t, m in np.ndindex(*out.shape):
            out[channel, t, m] = (weight[channel] * padded[:, stride * t : stride * t + 3, m : m + 3]).sum()
        mean, variance = (state[f"{name}.running_{of}"][:, None, None] for of in ("mean", "var"))
        gain, shift = (state[f"{name}.{of}"][:, None, None] for of in ("weight", "bias"))
        out = np.maximum((out - mean) / np.sqrt(variance + 1e-5) * gain + shift, 0)
        t, m = out.shape[1] // (time // stride), out.shape[2] // mel
        out = out[:, : t * (time // stride), : m * mel]
        maps = out.reshape(len(out), t, time // stride, m, mel).max(axis=(2, 4))
        stride = 1
    sequence = maps.transpose(1, 0, 2).reshape(maps.shape[1], -1)
    hidden = np.concatenate([_gru(state, "", sequence), _gru(state, "_reverse", sequence[::-1])[::-1]], axis=1)
    logits = hidden @ state["classify.weight"].T + state["classify.bias"]
    return (1 / (1 + np.exp(-logits))).max(axis=0)


def _gru(state: dict, way: str, sequence: np.ndarray) -> np.ndarray:
    wi, wh, bi, bh = (state[f"gru.{name}_l0{way}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h, outputs = np.zeros(wh.shape[1]), []
    for x in sequence:
        (ri, zi, ni), (rh, zh, nh) = np.split(wi @ x + bi, 3), np.split(wh @ h + bh, 3)
        r, z = 1 / (1 + np.exp(-(ri + rh))), 1 / (1 + np.exp(-(zi + zh)))
        h = (1 - z) * np.tanh(ni + r * nh) + z * h
        outputs.append(h)
    return np.array(outputs)


@pytest.mark.parametrize("stride", [1, 5])
def test_the_network_is_its_equations(stride: int) -> None:
    torch.manual_seed(1)
    config = CRNNConfig(classes=4, mels=12, channels=(3, 4, 5), hidden=6, stride_time=stride)
    model = CRNN(config)
    model.prepare(torch.randn(5, 100, 12) * 3, (torch.rand(5, 4) < 0.4).float())
    model.train()
    model.clip(torch.randn(5, 100, 12))  # so that batch normalisation has means of its own
    model.eval()
    clip = torch.randn(1, 100, 12) * 2 - 5
    with torch.inference_mode():
        found = torch.sigmoid(model.clip(clip))[0].numpy()
    np.testing.assert_allclose(found, literal_crnn(model, clip[0].double().numpy()), rtol=1e-4)


def test_padding_is_no_silence() -> None:
    """A clip cut to 7 s is scored by the frames that it has, which hardly differ from those of the whole clip."""
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(channels=(8, 8, 8))).eval()
    torch.nn.init.normal_(model.classify.weight, std=1.0)
    whole = torch.randn(8, 2000, 60) - 8
    cut, padded = whole.clone(), whole.clone()
    cut[:, 1400:], padded[:, 1400:] = -torch.inf, np.log(1e-10)  # which padding with zeros would give
    with torch.inference_mode():
        torch.testing.assert_close(model.clip(cut), model(cut)[:, :70].amax(dim=1))
        change, of_zeros = (model(one)[:, :60] - model(whole)[:, :60] for one in (cut, padded))
    assert change.abs().mean() < 0.2 * of_zeros.abs().mean()


def test_only_the_maximal_frame_receives_gradient() -> None:
    """Section 2.1: for each clip and class, one frame's logit has a gradient, that of the largest."""
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(classes=3, mels=12, channels=(4, 4, 4), hidden=5))
    frames: list[torch.Tensor] = []
    model.register_forward_hook(lambda _, __, logits: logits.retain_grad() or frames.append(logits))
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]).float()
    mil_loss(model.clip(torch.randn(4, 200, 12)), labels).backward()
    (logits,) = frames
    expected = torch.zeros_like(logits)
    for clip, label in itertools.product(range(4), range(3)):  # (sigmoid - label) / (clips x classes)
        frame = logits[clip, :, label].argmax()
        expected[clip, frame, label] = (torch.sigmoid(logits[clip, frame, label]) - labels[clip, label]) / 12
    torch.testing.assert_close(logits.grad, expected)


# --- fusion -----------------------------------------------------------------------------------------------


def test_the_weighted_average_and_its_weights() -> None:
    """Section 3.4: 0.8 where the video branch performs better; where both are the same it does not."""
    weights = fusion_weights(np.array([0.5, 0.1, 0.3, 0.0]), np.array([0.4, 0.2, 0.3, 0.0]))
    assert weights.tolist() == [0.2, 0.8, 0.2, 0.2]
    audio, video = np.array([[0.2, 1.0], [0.0, 0.4]]), np.array([[0.8, 0.0], [0.5, 0.4]])
    expected = [[0.8 * 0.8 + 0.2 * 0.2, 0.8], [0.8 * 0.5, 0.4]]
    np.testing.assert_allclose(fuse(audio, video, np.array([0.8, 0.2])), expected)


def best_f1(y_true: np.ndarray, scores: np.ndarray) -> float:
    return f1_score(y_true, scores >= tune_thresholds(y_true, scores), average="micro", zero_division=0)


@pytest.mark.parametrize("seed", range(4))
def test_tuned_weights_are_an_optimum_along_each_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y_true = rng.random((14, 3)) < 0.4
    audio, video = (np.clip(y_true * shift + rng.random((14, 3)), 0, 1) for shift in (0.2, 0.15))
    tuned = tuned_weights(y_true, audio, video)
    class_f1 = [tagging_scores(y_true, one >= tune_thresholds(y_true, one)).class_f1 for one in (audio, video)]
    reached = best_f1(y_true, fuse(audio, video, tuned))
    assert reached >= best_f1(y_true, fuse(audio, video, fusion_weights(*class_f1)))
    for column, weight in itertools.product(range(3), np.linspace(0, 1, 11)):
        trial = tuned.copy()
        trial[column] = weight
        assert best_f1(y_true, fuse(audio, video, trial)) <= reached + 1e-12


def test_weights_by_the_better_branch_at_each_classs_own_thresholds() -> None:
    """Step 1 of section 3.3 alone: the best F1 of each class by trying every score, then 0.8 for the better branch."""
    rng = np.random.default_rng(6)
    y_true = rng.random((30, 4)) < 0.3
    audio, video = (np.clip(y_true * 0.3 + rng.random((30, 4)), 0, 1) for _ in range(2))
    for k, weight in enumerate(by_better_branch_of_class(y_true, audio, video, 0)):
        best = [max(f1_score(y_true[:, k], one[:, k] >= cut) for cut in one[:, k]) for one in (audio, video)]
        assert weight == (0.8 if best[1] > best[0] else 0.2)
