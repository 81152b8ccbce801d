"""The gated convolutional recurrent network: its front end, gates, attention over time, and padding."""

from __future__ import annotations

import itertools
import math

import librosa
import numpy as np
import pytest
import torch
from scipy.signal import spectrogram

from avrepro.features.audio import log_mel as log_mel_feature
from avrepro.features.logmel import LogMel
from avrepro.models.gated_crnn import SILENCE, GatedConvolution, GatedCRNN, GatedCRNNConfig

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


def test_attention_of_a_class_that_no_frame_is_about_stays_a_share_of_the_whole() -> None:
    """Also where another class takes all of the softmax in every frame, and gradients stay finite."""
    model = GatedCRNN(TINY)
    with torch.no_grad():
        model.localise.bias[0] += 200
    probabilities, attention = model.frames(torch.randn(4, 20, 8))
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(4, 3))
    (probabilities * attention).sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in model.parameters())


def test_padding_is_the_mean_and_not_attended_to() -> None:
    """Clips of 20, 13 and 0 recorded frames, pooled by 2; a clip without any sound counts as a recording of silence."""
    offset, scale = torch.randn(8) * 50, torch.rand(8) * 20 + 1
    log_mel = torch.randn(30, 20, 8) * scale + offset
    log_mel[1::2, 13:] = -torch.inf
    model = GatedCRNN(TINY).eval()
    model.prepare(log_mel, torch.ones(30, 3))
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


def test_weights_start_as_in_the_authors_framework() -> None:
    """Glorot's uniform distribution reaches sqrt(6 / (inputs + outputs)); an orthogonal matrix keeps lengths."""
    model = GatedCRNN(GatedCRNNConfig(channels=(32, 32), pool_time=(1, 1), pool_mel=(2, 2), features=64, hidden=48))
    convolution = model.convolutions[1].convolution.weight
    for weight, fans in ((convolution, 9 * (32 + 64)), (model.recurrent.weight_ih_l0[48:96], 64 + 48)):
        limit = math.sqrt(6 / fans)
        assert 0.95 * limit < float(weight.detach().abs().max()) <= limit
        assert float(weight.detach().std()) == pytest.approx(limit / math.sqrt(3), rel=0.1)
    own = model.recurrent_gate.weight_hh_l0_reverse[:48]
    torch.testing.assert_close(own @ own.T, torch.eye(48), atol=1e-5, rtol=0)
    biases = [values for name, values in model.named_parameters() if "bias" in name and "norm" not in name]
    assert len(biases) == 12 and not any(values.any() for values in biases)
