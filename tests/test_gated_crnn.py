"""The gated convolutional recurrent network: its gates, its attention over time, and what it learns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from avrepro.models.gated_crnn import GatedConvolution, GatedCRNN, GatedCRNNConfig, fuse
from avrepro.training import Optimisation, Verdict, fit

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = GatedCRNNConfig(classes=3, mels=8, channels=(4, 4), pool_time=(2, 1), pool_mel=(2, 2), features=12, hidden=6)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_the_authors_sizes_keep_every_frame() -> None:
    model = GatedCRNN(GatedCRNNConfig()).eval()
    with torch.inference_mode():
        probabilities, attention = model.frames(torch.randn(1, 240, 64))
    assert probabilities.shape == attention.shape == (1, 240, 17)
    kernels = [tuple(one.weight.shape) for one in model.modules() if isinstance(one, nn.Conv2d)]
    assert kernels == [(128, 1, 3, 3)] + [(128, 64, 3, 3)] * 7 + [(256, 64, 3, 3)]
    for gru in (model.recurrent, model.recurrent_gate):
        assert (gru.input_size, gru.hidden_size, gru.bidirectional) == (256, 128, True)


def test_pooling_over_time_shortens_the_sequence() -> None:
    probabilities, attention = GatedCRNN(TINY).frames(torch.randn(2, 50, 8))
    assert probabilities.shape == attention.shape == (2, 25, 3)


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
    heard: dict[str, torch.Tensor] = {}
    for name in ("classify", "localise"):
        getattr(model, name).register_forward_hook(lambda _, __, output, name=name: heard.update({name: output}))
    log_mel = torch.randn(2, 20, 8) * 3
    with torch.no_grad():
        clip, (probabilities, attention) = model(log_mel), model.frames(log_mel)
    for n, k in itertools.product(range(2), range(3)):
        above = below = 0.0
        for t in range(10):
            classified = 1 / (1 + math.exp(-float(heard["classify"][n, t, k])))
            among = np.exp(heard["localise"][n, t].double().numpy())
            located = float(among[k] / among.sum())
            above += classified * located
            below += located
            assert float(probabilities[n, t, k]) == pytest.approx(classified, rel=1e-5)
        assert float(clip[n, k]) == pytest.approx(above / below, rel=1e-5)
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2, 3))
    assert (clip <= probabilities.amax(dim=1)).all() and (clip >= probabilities.amin(dim=1)).all()


def test_attention_stays_finite_where_a_class_has_next_to_none() -> None:
    """One class takes all of the softmax in every frame; the others' weights are still shares of the whole."""
    model = GatedCRNN(TINY)
    with torch.no_grad():
        model.localise.bias[0] += 200
    probabilities, attention = model.frames(torch.randn(2, 20, 8))
    torch.testing.assert_close(attention.sum(dim=1), torch.ones(2, 3))
    model.loss((probabilities * attention).sum(dim=1), torch.eye(3)[:2]).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_every_parameter_gets_a_gradient() -> None:
    model = GatedCRNN(TINY)
    model.loss(model(torch.randn(4, 20, 8)), (torch.rand(4, 3) < 0.5).float()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_loss_is_binary_cross_entropy() -> None:
    probabilities, labels = torch.rand(4, 3, dtype=torch.float64), (torch.rand(4, 3) < 0.5).double()
    expected = nn.functional.binary_cross_entropy(probabilities, labels)
    torch.testing.assert_close(GatedCRNN(TINY).loss(probabilities, labels), expected)


def test_bands_are_scaled_as_in_training() -> None:
    scale, offset = torch.rand(8) * 20 + 1, torch.randn(8) * 50
    log_mel = torch.randn(30, 40, 8) * scale + offset
    model = GatedCRNN(TINY).eval()
    model.prepare(log_mel, torch.ones(30, 3))
    torch.testing.assert_close(model.mean, offset, rtol=0.05, atol=2.0)
    torch.testing.assert_close(model.deviation, scale, rtol=0.1, atol=0)
    plain = GatedCRNN(TINY).eval()
    plain.load_state_dict({**model.state_dict(), "mean": torch.zeros(8), "deviation": torch.ones(8)})
    with torch.inference_mode():
        scaled = (log_mel[:2] - model.mean) / model.deviation
        torch.testing.assert_close(model(log_mel[:2]), plain(scaled))


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


@pytest.mark.parametrize("kind", ["cpu bfloat16", "cuda float16"])
def test_half_precision(kind: str) -> None:
    device, dtype = kind.split()
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here: float16 is checked where there is one")
    model, log_mel = GatedCRNN(TINY).eval().to(device), torch.randn(2, 20, 8).to(device)
    with torch.no_grad():
        expected = model(log_mel)
    with torch.autocast(device, dtype=getattr(torch, dtype)):
        model.loss(found := model(log_mel), torch.eye(3)[:2].to(device)).backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.detach(), expected, rtol=0.05, atol=0.02)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_fusion_is_the_mean_of_several_networks() -> None:
    one, two, three = np.random.default_rng(0).random((3, 4, 5))
    np.testing.assert_allclose(fuse([one, two, three]), (one + two + three) / 3)
    np.testing.assert_array_equal(fuse([one]), one)
    with pytest.raises(ValueError, match="at least one"):
        fuse([])
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5,\)"):
        fuse([one, two[0]])


def test_bursts_are_learnt() -> None:
    """Class k is a burst in a band of its own for a tenth of the clip; only clip labels are told.

    A burst of 6 deviations is plain, so that all tags of other clips could be right; labels are as often 0 as 1, so
    that half are right by chance. Asked for is more than half of the way. Nothing is asked of where the attention
    lies: a recurrent layer can carry what it heard to any frame.
    """

    def bursts(seed: int, clips: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(seed)
        log_mel, labels = rng.normal(0, 1, (clips, 40, 8)), rng.random((clips, 3)) < 0.5
        for clip, k in np.argwhere(labels):
            start = rng.integers(0, 37)
            log_mel[clip, start : start + 4, 2 * k : 2 * k + 2] += 6
        return torch.from_numpy(log_mel).float(), torch.from_numpy(labels).float()

    log_mel, labels = bursts(0)
    model = GatedCRNN(TINY)
    model.prepare(log_mel, labels)
    epochs = itertools.count(1)
    fit(
        model,
        lambda network, x, y: network.loss(network(x), y),
        (log_mel, labels),
        lambda network: Verdict(0.0, next(epochs), {}),  # each epoch is better: the last one stays
        Optimisation("adam", 1e-2, batch=16, epochs=25),
        0,
        torch.device("cpu"),
        "bursts",
    )
    log_mel, labels = bursts(1)
    with torch.inference_mode():
        assert ((model(log_mel) > 0.5) == labels.bool()).float().mean() > 0.75
