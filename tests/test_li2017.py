"""The audio branch of Li et al. (2017), its checkpoint, and the fusion of both branches."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from avrepro.corpora.base import Clip
from avrepro.encode import write_clip
from avrepro.evaluation import tagging_scores, tune_thresholds
from avrepro.features.audio import log_mel as log_mel_feature
from avrepro.features.logmel import LogMel
from avrepro.models.audio import centred, mix_clips
from avrepro.models.li2017 import CRNN, CRNNConfig, fuse, fusion_weights, mil_loss, tuned_weights
from avrepro.report import published
from avrepro.systems.li2017 import PROFILES, by_better_branch_of_class

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = CRNNConfig(classes=4, mels=12, channels=(8, 8, 8), hidden=8)


# --- the network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PROFILES["paper"].crnn, PROFILES["demo"].crnn])
def test_ten_seconds_become_a_hundred_frames_of_seventeen_classes(config: CRNNConfig) -> None:
    """Section 3.2: 2000 x 60 at 200 Hz -> 10 Hz; a bidirectional GRU of 100 each way; 17 outputs."""
    model = CRNN(config).eval()
    log_mel = torch.randn(2, 2000, 60)
    with torch.inference_mode():
        logits, clip = model(log_mel), model.clip(log_mel)
    assert logits.shape == (2, 100, 17) and clip.shape == (2, 17)
    torch.testing.assert_close(torch.sigmoid(clip), torch.sigmoid(logits).max(dim=1).values)  # section 2.1
    assert (model.gru.hidden_size, model.gru.bidirectional) == (100, True)
    dropouts = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.2] * 4  # after each pooling and after the GRU


@pytest.mark.parametrize("stride", [1, 5])
def test_every_parameter_gets_a_gradient(stride: int) -> None:
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(channels=(4, 8, 8), stride_time=stride))
    labels = (torch.rand(4, 17) < 0.3).float()
    mil_loss(model.clip(torch.randn(4, 400, 60)), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_louder_recording_is_the_same_clip_to_the_network() -> None:
    """A gain adds a constant to each log-mel band; the network subtracts each band's mean over the clip."""
    model = CRNN(TINY).eval()
    log_mel = torch.randn(2, 200, 12)
    with torch.inference_mode():
        torch.testing.assert_close(model(log_mel), model(log_mel + torch.randn(2, 1, 12)), rtol=1e-4, atol=1e-5)


def test_preparation_sets_scale_and_first_guess() -> None:
    rng = np.random.default_rng(2)
    scale = rng.uniform(0.5, 20, 12)
    log_mel = torch.from_numpy(rng.normal(size=(40, 100, 12)) * scale + rng.normal(size=(40, 1, 12)) * 50).float()
    labels = torch.zeros(40, 4)
    labels[:10, 0], labels[:20, 1], labels[:, 3] = 1, 1, 1
    model = CRNN(TINY)
    model.prepare(log_mel, labels)
    np.testing.assert_allclose(model.deviation.numpy(), scale, rtol=0.1)
    guess = torch.sigmoid(model.classify.bias.detach()).numpy()
    np.testing.assert_allclose(guess, [0.25, 0.5, 0.001, 0.999], rtol=1e-4)


def test_the_loss_is_the_papers_formula() -> None:
    """Cross entropy averaged over clips and classes, written as two loops over P(e_k | x_i)."""
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(0, 3, (5, 7)), rng.random((5, 7)) < 0.4
    total = 0.0
    for clip in range(5):
        for label in range(7):
            p = 1 / (1 + math.exp(-logits[clip, label]))
            total -= math.log(p) if labels[clip, label] else math.log(1 - p)
    found = mil_loss(torch.from_numpy(logits), torch.from_numpy(labels).double())
    assert float(found) == pytest.approx(total / (5 * 7), rel=1e-12)


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
    """A clip cut to 7 s is scored by the sound that it has: bands' means and the maximum leave padding out."""
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(channels=(8, 8, 8))).eval()
    torch.nn.init.normal_(model.classify.weight, std=1.0)
    generator = torch.Generator().manual_seed(3)
    whole = torch.randn(8, 2000, 60, generator=generator) - 8
    cut = whole.clone()
    cut[:, 1400:] = -torch.inf
    torch.testing.assert_close(centred(cut)[:, :1400], whole[:, :1400] - whole[:, :1400].mean(dim=1, keepdim=True))
    assert (centred(cut)[:, 1400:] == 0).all()
    with torch.inference_mode():
        frames = model(cut)[:, :70]
        torch.testing.assert_close(model.clip(cut), frames.amax(dim=1))
        padded = whole.clone()
        padded[:, 1400:] = np.log(1e-10)  # what padding with zeros would give
        kept, zeros = (model(one)[:, :60] - model(whole)[:, :60] for one in (cut, padded))
    assert kept.abs().mean() < 0.2 * zeros.abs().mean()


# --- fusion -----------------------------------------------------------------------------------------------


def test_the_weighted_average() -> None:
    audio, video = np.array([[0.2, 1.0], [0.0, 0.4]]), np.array([[0.8, 0.0], [0.5, 0.4]])
    expected = [[0.8 * 0.8 + 0.2 * 0.2, 0.8], [0.8 * 0.5, 0.4]]
    np.testing.assert_allclose(fuse(audio, video, np.array([0.8, 0.2])), expected)
    np.testing.assert_array_equal(fuse(audio, video, np.zeros(2)), audio)
    np.testing.assert_array_equal(fuse(audio, video, np.ones(2)), video)


def test_the_fusion_weights() -> None:
    """Section 3.4: 0.8 where the video branch performs better; where both are the same it does not."""
    weights = fusion_weights(np.array([0.5, 0.1, 0.3, 0.0]), np.array([0.4, 0.2, 0.3, 0.0]))
    assert weights.tolist() == [0.2, 0.8, 0.2, 0.2]


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
    assert set(np.round(tuned * 10, 9) % 1) == {0.0}


def test_tuned_weights_find_the_better_branch() -> None:
    """One class that only sound tells, one that only pictures tell: each goes to its branch, without a mistake."""
    rng = np.random.default_rng(1)
    y_true = rng.random((40, 2)) < 0.4
    noise = rng.random((40, 2))
    audio = np.where([True, False], y_true * 0.9, noise)
    video = np.where([True, False], noise, y_true * 0.9)
    tuned = tuned_weights(y_true, audio, video)
    assert best_f1(y_true, fuse(audio, video, tuned)) == 1.0
    assert tuned[0] < 0.5 < tuned[1]


def test_weights_by_the_better_branch_at_each_classs_own_thresholds() -> None:
    """Step 1 of section 3.3 alone: the best F1 of each class by trying every score, then 0.8 for the better branch."""
    rng = np.random.default_rng(6)
    y_true = rng.random((30, 4)) < 0.3
    audio, video = (np.clip(y_true * 0.3 + rng.random((30, 4)), 0, 1) for _ in range(2))
    for k, weight in enumerate(by_better_branch_of_class(y_true, audio, video, 0)):
        best = [max(f1_score(y_true[:, k], one[:, k] >= cut) for cut in one[:, k]) for one in (audio, video)]
        assert weight == (0.8 if best[1] > best[0] else 0.2)


def test_profile_paper_is_the_papers() -> None:
    """Sections 2.2.1 and 3.2 to 3.4, typed from the text."""
    paper = PROFILES["paper"]
    assert (paper.key_frames, paper.frames_per_second * 10, paper.words) == (4, 240, "glove.840B.300d")
    assert (paper.crnn.hidden, paper.crnn.dropout, paper.crnn.mels, paper.crnn.classes) == (100, 0.2, 60, 17)
    assert math.prod(paper.crnn.pool_time) == 200 // 10 and paper.mixing == 0
    hours = published("li2017")["claims"]["audio_training_hours"]["value"]
    assert paper.optimisation.epochs == hours * 60 / 20


# --- the input --------------------------------------------------------------------------------------------


def test_log_mel_of_a_short_clip(tmp_path: Path) -> None:
    """The tone lies in one band; frames beyond the end of the recording are -inf, not the level of silence."""
    path = tmp_path / "tone.mp4"
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * 32000) / 32000).astype(np.float32)
    write_clip(path, np.zeros((4, 32, 48, 3), np.uint8), 2, tone, 32000)
    feature = log_mel_feature(LogMel.li2017(), "li2017")
    array = feature.of(Clip("tone", path, "train", ()))
    assert array.shape == feature.nothing().shape == (2000, 60) and array.dtype == np.float16
    recorded = np.isfinite(array.astype(float)).all(axis=1)
    assert recorded[:400].all() and not recorded[440:].any() and (feature.nothing() == -np.inf).all()
    assert len(np.unique(array[100:300].astype(float).argmax(axis=1))) == 1


def test_a_mixture_holds_both_clips() -> None:
    generator = np.random.default_rng(0)
    log_mel = torch.from_numpy(generator.normal(size=(6, 20, 4)).astype(np.float32))
    labels = torch.eye(6)
    torch.manual_seed(0)
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
