"""The networks and fusions of Fayek and Kumar (2020) against Table 1, sections 3.1 to 3.4 and equations 2 to 6."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.evaluation import average_precision, roc_auc
from avrepro.models.fayek2020 import (
    MLP,
    Attention,
    AudioConfig,
    AudioConvNet,
    Fusion,
    Regression,
    VisualConfig,
    VisualNetwork,
    clip_loss,
    co_supervised,
)

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


def randomise(network: nn.Module, weights: float = 0.7) -> None:
    """Other numbers than those a network starts with, so that none can be left out unnoticed."""
    for name, one in network.state_dict().items():
        if name.endswith(("running_var", "deviation", "moments")):
            one.uniform_(0.5, 2)
        elif one.is_floating_point():
            one.copy_(torch.randn_like(one) * (weights if one.ndim > 1 else 1))


# --- the audio model ---------------------------------------------------------------------------------------


def test_table_1_row_by_row() -> None:
    network = AudioConvNet(AudioConfig()).eval()
    rows, types = [], []
    for block, part in network.blocks.items():
        for layer in part:

            def note(layer: nn.Module, _: object, output: Tensor, block: str = block) -> None:
                types.append((block, type(layer).__name__))
                if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                    rows.append((block, type(layer).__name__, tuple(output.shape[1:]), layer.kernel_size))

            layer.register_forward_hook(note)
    with torch.inference_mode():
        clips = network(torch.randn(1, 1024, 64))
    assert tuple(rows) == TABLE_1
    assert clips.shape == (1, 527)
    for at, (block, kind) in enumerate(types):
        if kind == "Conv2d":
            after = [name for _, name in types[at + 1 : at + 3]]
            assert after == ([] if block == "B8" else ["BatchNorm2d", "ReLU"])
    # by hand: weights without a bias and two numbers a channel of batch normalisation; B8 has a bias instead
    kernels = [9 if kind == "Conv2d" and size == (3, 3) else 6 if size == (3, 2) else 1 for _, kind, _, size in rows]
    inputs, expected = 1, 0
    for (block, kind, (outputs, *_), _), kernel in zip(rows, kernels, strict=True):
        if kind == "Conv2d":
            expected += inputs * outputs * kernel + (outputs if block == "B8" else 2 * outputs)
            inputs = outputs
    assert sum(one.numel() for one in network.parameters()) == expected


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


@pytest.mark.parametrize("frames", [96, 127, 128, 250, 500, 998, 1000, 1024])
def test_segments_of_any_length(frames: int) -> None:
    network = AudioConvNet(TINY).eval()
    with torch.inference_mode():
        segments, within = network.segments(torch.randn(2, frames, 64))
    assert segments.shape == (2, frames // 32 - 2, 3) and within.shape == (2, frames // 32 - 2)


def test_a_segment_is_96_frames_at_least() -> None:
    """Three maps of 32 frames each; the padded convolutions of B1 to B4 look 58 frames further to both sides."""
    network = AudioConvNet(TINY).double().eval()
    with pytest.raises(RuntimeError):
        network.segments(torch.zeros(1, 95, 64, dtype=torch.double))
    log_mel = torch.randn(1, 1024, 64, dtype=torch.double)
    maps = log_mel[:, None].requires_grad_()
    view = maps
    for layer in (layer for block in network.blocks.values() for layer in block):
        if isinstance(layer, nn.MaxPool2d):  # a mean looks where a maximum may, and a ReLU hides nothing more
            view = F.avg_pool2d(view, layer.kernel_size)
        elif not isinstance(layer, nn.ReLU):
            view = layer(view)
    view[0, 0, 15].sum().backward()
    assert maps.grad is not None
    reached = maps.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
    assert (int(reached.min()), int(reached.max())) == (15 * 32 - 58, 18 * 32 + 57)


@pytest.mark.parametrize("frames", [96, 100, 250, 319, 512])
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


def test_it_is_prepared_by_training_clips() -> None:
    rng = np.random.default_rng(0)
    log_mel = rng.normal(3, rng.uniform(0.5, 4, 64), (5, 100, 64)) + rng.normal(0, 9, (5, 1, 64))
    log_mel[:, :, 7] = -4.0  # a band that never changes
    padded = np.concatenate([log_mel, np.full((5, 30, 64), -np.inf)], axis=1)
    labels = np.zeros((5, 3), np.float32)
    labels[:2, 0] = labels[:, 1] = 1
    network = AudioConvNet(TINY).double().eval()
    network.prepare(torch.from_numpy(padded), torch.from_numpy(labels))
    for band in (0, 1, 63):
        left = [log_mel[clip, frame, band] - log_mel[clip, :, band].mean() for clip in range(5) for frame in range(100)]
        expected = math.sqrt(sum(one**2 for one in left) / (len(left) - 1))
        assert network.deviation[band].item() == pytest.approx(expected, rel=1e-6)
    assert network.deviation[7].item() == pytest.approx(1e-3)
    bias = network.blocks["B8"][0].bias.detach()
    expected = [math.log(p / (1 - p)) for p in (0.4, 0.999, 0.001)]
    np.testing.assert_allclose(bias, expected, rtol=1e-5)
    with torch.inference_mode():  # microphone and steady background go
        clips = torch.from_numpy(log_mel)
        torch.testing.assert_close(network(clips + torch.randn(5, 1, 64)), network(clips))


# --- the visual model --------------------------------------------------------------------------------------


def test_the_visual_network_literally() -> None:
    shapes = [tuple(one.weight.shape) for one in VisualNetwork(VisualConfig()).layers if isinstance(one, nn.Linear)]
    assert shapes == [(2048, 2048), (2048, 2048), (1024, 2048), (1024, 1024), (527, 1024)]
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


def test_dropout_follows_the_first_two_layers_alone() -> None:
    """Of hidden units that are all one, 30 % fall out and the others are scaled."""
    network = VisualNetwork(VisualConfig(classes=2, inputs=4, hidden=(4000, 4000, 300, 300))).train()
    inputs = []
    for layer in (one for one in network.modules() if isinstance(one, nn.Linear)):
        nn.init.zeros_(layer.weight)
        nn.init.ones_(layer.bias)
        layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    network(torch.randn(2, 4))
    for units in inputs[1:3]:
        assert 0.27 < (units == 0).float().mean() < 0.33
        torch.testing.assert_close(units[units > 0], torch.full_like(units[units > 0], 1 / 0.7))
    assert all((units == 1).all() for units in inputs[3:]) and len(inputs) == 5


def test_the_visual_network_is_prepared_by_training_clips() -> None:
    network = VisualNetwork(VisualConfig(classes=2, inputs=3, hidden=(4, 4, 4, 4)))
    features = np.random.default_rng(0).normal((2, -3, 0), (1, 5, 0), (20, 3))
    network.prepare(torch.from_numpy(features).float(), torch.tensor([[1.0, 0], [0, 0], [0, 0], [0, 0]]))
    np.testing.assert_allclose(network.mean, features.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(network.deviation, [*features[:, :2].std(axis=0, ddof=1), 1e-3], rtol=1e-5)
    np.testing.assert_allclose(network.layers[-1].bias.detach(), [math.log(1 / 3), math.log(1e-3 / 0.999)], rtol=1e-4)


# --- what they learn from ----------------------------------------------------------------------------------


def test_equation_2() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.uniform(0.01, 0.99, (4, 3)), rng.integers(0, 2, (4, 3)).astype(float)
    y[3] = (0.3, 0.9, 0.0)  # of a student's targets
    clips = [
        sum(-y[i, c] * math.log(p[i, c]) - (1 - y[i, c]) * math.log(1 - p[i, c]) for c in range(3)) / 3
        for i in range(4)
    ]
    assert clip_loss(torch.from_numpy(p), torch.from_numpy(y)).item() == pytest.approx(sum(clips) / 4)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_co_supervision(weight: float) -> None:
    labels, teacher = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[0.2, 0.6], [0.4, 0.1]])
    found = co_supervised(labels, teacher, weight)
    for i in range(2):
        for c in range(2):
            expected = float(labels[i, c]) + weight * (float(teacher[i, c]) - float(labels[i, c]))
            assert found[i, c].item() == pytest.approx(expected)


# --- fusions -----------------------------------------------------------------------------------------------

CLASSES, UNITS = 3, 5
FUSIONS = {
    "regression": lambda classes, units: Regression(classes),
    "mlp": MLP,
    "attention": Attention,
    "self": partial(Attention, attends="self"),
    "cross": partial(Attention, attends="cross"),
    "without n_a, n_v": partial(Attention, transforms=False),
    "without n_av": partial(Attention, combines=False),
    "linear": partial(Attention, reading="linear"),
    "printed": partial(Attention, reading="printed"),
}
ATTENTIONS = tuple(FUSIONS)[2:]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Literally:
    """A fusion's output and weights for one clip, from the numbers of its state alone."""

    def __init__(self, state: dict[str, Tensor], name: str) -> None:
        self.state, self.name = {key: one.numpy() for key, one in state.items()}, name

    def linear(self, layer: str, x: np.ndarray) -> np.ndarray:
        return self.state[f"{layer}.weight"] @ x + self.state[f"{layer}.bias"]

    def perceptron(self, network: str, x: np.ndarray) -> np.ndarray:
        """Linear, batch normalisation, ReLU, (dropout,) linear: the logits."""
        hidden, norm = self.linear(f"{network}.0", x), f"{network}.1."
        hidden = (hidden - self.state[f"{norm}running_mean"]) / np.sqrt(self.state[f"{norm}running_var"] + 1e-5)
        hidden = np.maximum(hidden * self.state[f"{norm}weight"] + self.state[f"{norm}bias"], 0)
        return self.linear(f"{network}.4", hidden)

    def single(self, network: str, x: np.ndarray) -> np.ndarray:
        """512 units and sigmoid activations."""
        last = self.linear(f"{network}.2", sigmoid(self.linear(f"{network}.0", x)))
        return last if self.name == "linear" and network != "n_av" else sigmoid(last)

    def __call__(self, h_a: np.ndarray, h_v: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        (mean_a, deviation_a), (mean_v, deviation_v) = self.state["moments"]
        h_a, h_v = (h_a - mean_a) / deviation_a, (h_v - mean_v) / deviation_v
        both = np.concatenate([h_a, h_v])
        if self.name == "regression":
            return sigmoid(self.linear("linear", both)), None, None
        if self.name == "mlp":
            return sigmoid(self.perceptron("layers", both)), None, None
        if self.name in ("self", "cross"):
            reads = (h_a, h_v) if self.name == "self" else (h_v, h_a)
            a, v = (sigmoid(self.perceptron(f"n_attn_{m}", x)) for m, x in zip("av", reads, strict=True))
            alpha_a, alpha_v = a / (a + v), v / (a + v)
        else:
            alpha_a = sigmoid(self.perceptron("n_attn", both))  # equation 3
            alpha_v = 1 - alpha_a
        without = self.name == "without n_a, n_v"
        tilde_a, tilde_v = (h_a, h_v) if without else (self.single("n_a", h_a), self.single("n_v", h_v))  # equation 4
        tilde_av = alpha_a * tilde_a + alpha_v * tilde_v  # equation 5
        if self.name == "without n_av":
            return tilde_av, alpha_a, alpha_v
        return self.single("n_av", tilde_av), alpha_a, alpha_v  # equation 6


def made_up(name: str) -> Fusion:
    fusion = FUSIONS[name](CLASSES, UNITS).double().eval()
    randomise(fusion, weights=1.0)
    return fusion


def outputs(clips: int) -> tuple[Tensor, Tensor]:
    h_a, h_v = torch.rand(2, clips, CLASSES, dtype=torch.double)
    return h_a, h_v


@pytest.mark.parametrize("name", FUSIONS)
def test_equations_3_to_6(name: str) -> None:
    fusion, (h_a, h_v) = made_up(name), outputs(30)
    literal = Literally(fusion.state_dict(), name)
    expected = [literal(a, v) for a, v in zip(h_a.numpy(), h_v.numpy(), strict=True)]
    with torch.inference_mode():
        found = fusion(h_a, h_v).numpy()
        np.testing.assert_allclose(found, [one for one, _, _ in expected], atol=1e-9)
        assert found.std(axis=0).min() > 1e-4
        if isinstance(fusion, Attention):
            alpha = fusion.weights(*fusion.normalised(h_a, h_v))
            np.testing.assert_allclose(alpha, [one for _, one, _ in expected], atol=1e-9)
            np.testing.assert_allclose(1 - alpha, [one for _, _, one in expected], atol=1e-9)
            assert alpha.min() >= 0 and alpha.max() <= 1 and alpha.std(dim=0).min() > 0.01
            given = fusion.fused(*fusion.normalised(h_a, h_v), alpha[4])  # the same weights for all clips
            torch.testing.assert_close(torch.sigmoid(given[4]), torch.from_numpy(found[4]))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_weights_stay_in_bounds(name: str) -> None:
    """Also where an output is as far from those of training as it can be."""
    fusion = made_up(name)
    fusion.moments[:, 1] = 1e-6
    h = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.double)] * (2 * CLASSES))
    alpha = fusion.weights(*fusion.normalised(h[:, :CLASSES], h[:, CLASSES:]))
    assert alpha.isfinite().all() and alpha.min() >= 0 and alpha.max() <= 1
    assert fusion(h[:, :CLASSES], h[:, CLASSES:]).isfinite().all()


def test_weights_of_two_modalities_that_are_hardly_trusted() -> None:
    """Divided by their sum, two equal weights are halves, however small they are."""
    fusion = Attention(CLASSES, UNITS, attends="self").eval()
    for network in (fusion.n_attn_a, fusion.n_attn_v):
        nn.init.zeros_(network[-1].weight)
        nn.init.constant_(network[-1].bias, -16.0)  # a sigmoid of 1e-7, well above the least of floats
    alpha = fusion.weights(torch.randn(2, CLASSES), torch.randn(2, CLASSES))
    torch.testing.assert_close(alpha, torch.full_like(alpha, 0.5))


def test_sizes_of_fusions_in_the_paper() -> None:
    classes, units = 527, 512
    mlp = 2 * classes * units + units + 2 * units + units * classes + classes  # two of batch normalisation
    unimodal = mlp - classes * units
    single = classes * units + units + units * classes + classes
    attention = mlp + 3 * single
    expected = {
        "regression": 2 * classes * classes + classes, "mlp": mlp, "attention": attention, "linear": attention,
        "printed": attention, "self": 2 * unimodal + 3 * single, "cross": 2 * unimodal + 3 * single,
        "without n_a, n_v": mlp + single, "without n_av": mlp + 2 * single,
    }  # fmt: skip
    for name, build in FUSIONS.items():
        fusion = build(classes, units)
        assert sum(one.numel() for one in fusion.parameters()) == expected[name], name
        rates = {one.p for one in fusion.modules() if isinstance(one, nn.Dropout)}
        assert rates == (set() if name == "regression" else {0.5}), name


@pytest.mark.parametrize("name", FUSIONS)
def test_first_guesses_and_moments(name: str) -> None:
    fusion = FUSIONS[name](CLASSES, UNITS).eval()
    frequencies = torch.tensor([0.1, 0.25, 0.4])
    mean, deviation = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.0, 2.0])
    moments = torch.stack([torch.stack([mean, deviation]), torch.stack([mean + 1, deviation + 1])])
    fusion.prepare(moments, frequencies)
    h_a, h_v = fusion.normalised(mean[None] + deviation, mean[None])
    torch.testing.assert_close(h_a, torch.tensor([[1.0, 0.0, 1.0]]))  # a class that is always the same gives no NaN
    torch.testing.assert_close(h_v, -1 / (deviation[None] + 1))
    if name in ("regression", "mlp", "linear", "printed"):  # the others' are tested below
        for layer in fusion.outputs():
            nn.init.zeros_(layer.weight)
        torch.testing.assert_close(fusion(*torch.rand(2, 4, CLASSES)), frequencies.expand(4, CLASSES))


def planted_outputs(classes: int, clips: int = 400) -> tuple[np.ndarray, Tensor, Tensor, Tensor]:
    """Labels [clips, classes], outputs of two models that know something of them, and the moments of both."""
    rng = np.random.default_rng(0)
    labels = rng.random((clips, classes)) < 0.1
    logits = [-2.5 + 3 * labels + rng.normal(0, 1.5, labels.shape) for _ in range(2)]
    h_a, h_v = (torch.from_numpy(sigmoid(one)).float() for one in logits)
    moments = torch.stack([torch.stack([h.mean(dim=0), h.std(dim=0, correction=0)]) for h in (h_a, h_v)])
    return labels, h_a, h_v, moments


@pytest.mark.parametrize(("classes", "alike", "loss"), [(17, 0.98, 0.015), (527, 0.9, 0.03)])
@pytest.mark.parametrize("name", ["attention", "self", "cross", "without n_av"])
def test_attention_starts_as_the_average(name: str, classes: int, alike: float, loss: float) -> None:
    """At the paper's 512 units, with more classes than units too; whatever the seed is."""
    labels, h_a, h_v, moments = planted_outputs(classes)
    average = ((h_a + h_v) / 2).numpy()
    for seed in range(2):
        torch.manual_seed(seed)
        fusion = FUSIONS[name](classes, 512).eval()
        fusion.prepare(moments, torch.from_numpy(labels).float().mean(dim=0))
        with torch.inference_mode():
            alpha, found = fusion.weights(*fusion.normalised(h_a, h_v)), fusion(h_a, h_v).numpy()
        torch.testing.assert_close(alpha, torch.full_like(alpha, 0.5))
        same = [scipy.stats.spearmanr(*pair).statistic for pair in zip(found.T, average.T, strict=True)]
        assert np.mean(same) > alike
        for metric in (average_precision, roc_auc):
            assert np.nanmean(metric(labels, found)) == pytest.approx(np.nanmean(metric(labels, average)), abs=loss)
        assert np.abs(found - average).mean() < 0.05


def test_without_transforms_it_starts_as_the_average_of_normalised_outputs() -> None:
    labels, h_a, h_v, moments = planted_outputs(17)
    fusion = FUSIONS["without n_a, n_v"](17, 512).eval()
    fusion.prepare(moments, torch.from_numpy(labels).float().mean(dim=0))
    with torch.inference_mode():
        average, found = sum(fusion.normalised(h_a, h_v)) / 2, fusion(h_a, h_v)
    for metric in (average_precision, roc_auc):
        np.testing.assert_allclose(metric(labels, found.numpy()), metric(labels, average.numpy()), atol=0.01)


def test_usual_initial_values_give_all_clips_nearly_the_same_logits() -> None:
    """Why ours: the same layers, with the initial values that layers have, hardly tell clips apart."""
    labels, h_a, h_v, moments = planted_outputs(17)
    spread = {}
    for reading in ("printed", "average"):
        fusion = Attention(17, 512, reading=reading).eval()
        fusion.prepare(moments, torch.from_numpy(labels).float().mean(dim=0))
        with torch.inference_mode():
            spread[reading] = float(fusion.logits(*fusion.normalised(h_a, h_v)).std(dim=0).mean())
    assert spread["printed"] < 0.02 and spread["average"] > 0.5


@pytest.mark.parametrize("name", FUSIONS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    """After the first step: where attention starts at a half for all, its hidden layer has none in that."""
    labels, h_a, h_v, moments = planted_outputs(CLASSES, 40)
    fusion = FUSIONS[name](CLASSES, UNITS).train()
    fusion.prepare(moments, torch.from_numpy(labels).float().mean(dim=0))
    optimiser = torch.optim.Adam(fusion.parameters(), 1e-2)
    for _ in range(2):
        optimiser.zero_grad()
        fusion.loss(h_a, h_v, torch.from_numpy(labels).float()).backward()
        optimiser.step()
    for parameter_name, one in fusion.named_parameters():
        normalised = parameter_name.endswith(".0.bias") and ("attn" in parameter_name or name == "mlp")
        if not normalised:  # batch normalisation takes out the bias before it
            assert one.grad is not None and one.grad.abs().max() > 1e-7, parameter_name


def test_every_parameter_of_both_models_gets_a_gradient() -> None:
    labels = torch.tensor([[1.0, 0, 0], [0, 1, 1], [1, 1, 0]])
    hearing, log_mel = AudioConvNet(TINY).train(), torch.randn(3, 128, 64)
    seeing, features = VisualNetwork(VisualConfig(3, 6, (9, 9, 9, 9))).train(), torch.randn(3, 6)
    hearing.prepare(log_mel, labels)
    seeing.prepare(features, labels)
    (clip_loss(hearing(log_mel), labels) + clip_loss(seeing(features), labels)).backward()
    for name, one in (*hearing.named_parameters(), *seeing.named_parameters()):
        assert one.grad is not None and one.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", FUSIONS)
def test_losses_literally(name: str) -> None:
    """Binary cross entropy in full; regression is penalised by lambda times the sum of its squared weights."""
    fusion, (h_a, h_v) = made_up(name), outputs(10)
    labels = torch.randint(0, 2, (10, CLASSES)).double()
    p = fusion(h_a, h_v)
    expected = (-labels * p.log() - (1 - labels) * (1 - p).log()).sum() / labels.numel()
    if isinstance(fusion, Regression):
        nn.init.constant_(fusion.linear.weight, 2.0)
        p = fusion(h_a, h_v)
        expected = (-labels * p.log() - (1 - labels) * (1 - p).log()).mean() + 1e-5 * 4 * 2 * CLASSES * CLASSES
    assert fusion.loss(h_a, h_v, labels).item() == pytest.approx(expected.item(), rel=1e-9)
