"""The gated convolutional recurrent network: its front end, gates, attention over time, and padding."""

from __future__ import annotations

import itertools
import math

import librosa
import numpy as np
import pytest
import torch
from scipy.signal import spectrogram
from torch import nn

from avrepro.features.audio import log_mel as log_mel_feature
from avrepro.features.logmel import LogMel
from avrepro.models.gated_crnn import SILENCE, GatedConvolution, GatedCRNN, GatedCRNNConfig
from avrepro.systems.parekh2018 import PROFILES

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = GatedCRNNConfig(classes=3, mels=8, channels=(4, 4), pool_time=(2, 1), pool_mel=(2, 2), features=12, hidden=6)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_log_mel_is_the_authors() -> None:
    """Their published front end is scipy's spectrogram and librosa's filters; ours ends in half precision."""
    rng, rate = np.random.default_rng(0), 16_000
    time = np.arange(10 * rate) / rate
    sound = (0.3 * np.sin(2 * np.pi * (150 * time + 300 * time**2)) + 0.05 * rng.standard_normal(time.size)) * 0.5
    sound[8 * rate :] *= 1e-4
    sound[9 * rate :] = 0
    window = np.hamming(1024)
    magnitude = spectrogram(sound, rate, window, noverlap=1024 - 664, detrend=False, mode="magnitude")[2]
    expected = np.log(librosa.filters.mel(sr=rate, n_fft=1024, n_mels=64, fmin=0, fmax=8000) @ magnitude + 1e-8).T
    feature = log_mel_feature(LogMel.xu2018(), "xu2018")
    found = feature.compute(sound.astype(np.float32))
    assert found.shape == expected.shape == (240, 64) and found.dtype == np.float16
    assert np.ptp(expected) > 10 and expected[-1, 0] == pytest.approx(SILENCE)
    np.testing.assert_allclose(found, expected, atol=0.01)  # half precision steps by 1/64 from 16 on, rounded
    short = feature.compute(sound[: 3 * rate].astype(np.float32))
    assert np.isneginf(short[73:]).all() and np.isfinite(short[:73]).all()  # frame 73 begins at 3.03 s


@pytest.mark.parametrize("name", PROFILES)
def test_the_profiles_sizes(name: str) -> None:
    model = GatedCRNN(PROFILES[name].gated_crnn).eval()
    with torch.inference_mode():
        probabilities, attention = model.frames(torch.randn(1, 240, 64))
    assert probabilities.shape == attention.shape == (1, 240 if name == "paper" else 30, 17)
    if name != "paper":
        return
    kernels = [tuple(one.weight.shape) for one in model.modules() if isinstance(one, nn.Conv2d)]
    assert kernels == [(128, 1, 3, 3)] + [(128, 64, 3, 3)] * 7 + [(256, 64, 3, 3)]
    for gru in (model.recurrent, model.recurrent_gate):
        assert (gru.input_size, gru.hidden_size, gru.bidirectional) == (256, 128, True)


def test_a_gated_convolution_is_a_product_of_two() -> None:
    """Each output is one convolution's value times the sigmoid of another's, computed here cell by cell."""
    block = GatedConvolution(2, 3).eval()
    with torch.no_grad():
        block.norm.running_mean.normal_()  # type: ignore[union-attr]
        block.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        block.norm.weight.normal_()
        block.norm.bias.normal_()
        maps = torch.randn(1, 2, 4, 5)
        found = block(maps)[0].numpy()
        weight = block.convolution.weight.double().numpy()
        norm = [values.double().numpy() for values in block.norm.state_dict().values() if values.ndim]
    x = np.pad(maps[0].double().numpy(), ((0, 0), (1, 1), (1, 1)))
    assert found.shape == (3, 4, 5)

    def convolved(channel: int, time: int, mel: int) -> float:
        value = (weight[channel] * x[:, time : time + 3, mel : mel + 3]).sum()
        scale, shift, mean, variance = (part[channel] for part in norm)  # the layer's own order
        return scale * (value - mean) / np.sqrt(variance + block.norm.eps) + shift

    for channel, time, mel in itertools.product(range(3), range(4), range(5)):
        expected = convolved(channel, time, mel) / (1 + np.exp(-convolved(3 + channel, time, mel)))
        assert found[channel, time, mel] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_clip_is_the_mean_of_frames_weighted_by_attention() -> None:
    """Xu et al.: sum of classification times localisation, over the sum of localisation, a softmax over classes."""
    model = GatedCRNN(TINY).eval()
    outputs: dict[str, torch.Tensor] = {}
    for name in ("classify", "localise"):
        getattr(model, name).register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    log_mel = torch.randn(2, 20, 8) * 3
    with torch.no_grad():
        clip, (probabilities, attention) = model(log_mel), model.frames(log_mel)
    for n, k in itertools.product(range(2), range(3)):
        above = below = 0.0
        for t in range(10):
            classified = 1 / (1 + math.exp(-float(outputs["classify"][n, t, k])))
            among = np.exp(outputs["localise"][n, t].double().numpy())
            located = float(among[k] / among.sum())
            above += classified * located
            below += located
            assert float(probabilities[n, t, k]) == pytest.approx(classified, rel=1e-5)
        assert float(clip[n, k]) == pytest.approx(above / below, rel=1e-5)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2, 3))
    assert (clip <= probabilities.amax(dim=1)).all() and (clip >= probabilities.amin(dim=1)).all()


@pytest.mark.parametrize("favoured", [0, 200])
def test_every_parameter_gets_a_gradient(favoured: float) -> None:
    """Also where one class takes all of the softmax in every frame: the others' weights stay shares of the whole."""
    model = GatedCRNN(TINY)
    with torch.no_grad():
        model.localise.bias[0] += favoured
    probabilities, attention = model.frames(torch.randn(4, 20, 8))
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(4, 3))
    model.loss((probabilities * attention).sum(dim=1), (torch.rand(4, 3) < 0.5).float()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or favoured, name


def test_padding_is_neither_scaled_by_nor_attended_to() -> None:
    """Clips of 20, 13 and 0 recorded frames, pooled by 2; a clip without any sound counts as a recording of silence."""
    offset, scale = torch.randn(8) * 50, torch.rand(8) * 20 + 1
    log_mel = torch.randn(30, 20, 8) * scale + offset
    log_mel[1::2, 13:] = -torch.inf
    model = GatedCRNN(TINY).eval()
    model.prepare(log_mel, torch.ones(30, 3))
    frames = torch.cat([log_mel[0::2].flatten(0, 1), log_mel[1::2, :13].flatten(0, 1)])
    torch.testing.assert_close(model.mean, frames.mean(dim=0))
    torch.testing.assert_close(model.deviation, frames.std(dim=0))
    silent = torch.full((1, 20, 8), -torch.inf)
    with torch.no_grad():
        probabilities, attention = model.frames(torch.cat([log_mel[:2], silent]))
        plain = GatedCRNN(TINY).eval()  # the same weights, on inputs that are scaled by hand
        plain.load_state_dict({**model.state_dict(), "mean": torch.zeros(8), "deviation": torch.ones(8)})
        scaled = (log_mel[:2] - model.mean) / model.deviation
        scaled[1, 13:] = 0
        expected, weights = plain.frames(scaled)
        as_silence, _ = model.frames(torch.full((1, 20, 8), SILENCE))
    torch.testing.assert_close(probabilities[:2], expected)
    torch.testing.assert_close(probabilities[2], as_silence[0])
    torch.testing.assert_close(attention[0], weights[0])
    assert (attention[1, 7:] == 0).all() and (attention[1, :7] > 0).all() and attention[2].isfinite().all()
    torch.testing.assert_close(attention[1, :7], weights[1, :7] / weights[1, :7].sum(dim=0))


def test_the_loss_is_binary_cross_entropy() -> None:
    probabilities, labels = torch.rand(4, 3, dtype=torch.float64), (torch.rand(4, 3) < 0.5).double()
    expected = nn.functional.binary_cross_entropy(probabilities, labels)
    torch.testing.assert_close(GatedCRNN(TINY).loss(probabilities, labels), expected)


def test_the_first_guess_is_how_common_a_class_is() -> None:
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 0]])
    model = GatedCRNN(TINY).eval()
    model.prepare(torch.randn(4, 20, 8), labels)
    with torch.no_grad():
        model.classify.weight.zero_()  # nothing is known but the labels
        probabilities = model(torch.randn(2, 20, 8))
    torch.testing.assert_close(probabilities, torch.tensor([[0.75, 0.25, 1e-3]]).expand(2, 3))


def test_weights_start_as_in_the_authors_framework() -> None:
    """Glorot's uniform distribution reaches sqrt(6 / (inputs + outputs)); an orthogonal matrix keeps lengths."""
    model = GatedCRNN(GatedCRNNConfig(channels=(32, 32), pool_time=(1, 1), pool_mel=(2, 2), features=64, hidden=48))

    def check_glorot(weight: torch.Tensor, inputs: int, outputs: int) -> None:
        limit = math.sqrt(6 / (inputs + outputs))
        assert 0.95 * limit < float(weight.detach().abs().max()) <= limit
        assert float(weight.detach().std()) == pytest.approx(limit / math.sqrt(3), rel=0.1)

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            check_glorot(layer.weight, 9 * layer.in_channels, 9 * layer.out_channels)
        elif isinstance(layer, nn.Linear) and layer is not model.open:
            check_glorot(layer.weight, layer.in_features, layer.out_features)
    for gru in (model.recurrent, model.recurrent_gate):
        for direction in ("", "_reverse"):
            for gate in range(3):
                rows = slice(48 * gate, 48 * (gate + 1))
                check_glorot(getattr(gru, f"weight_ih_l0{direction}")[rows], 64, 48)
                own = getattr(gru, f"weight_hh_l0{direction}")[rows]
                torch.testing.assert_close(own @ own.T, torch.eye(48), atol=1e-5, rtol=0)
    biases = [values for name, values in model.named_parameters() if "bias" in name and "norm" not in name]
    assert len(biases) == 12 and not any(values.any() for values in biases)
