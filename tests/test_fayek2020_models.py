"""The networks and fusions of Fayek and Kumar (2020) against Table 1, sections 3.1 to 3.4 and equations 2 to 6."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models.fayek2020 import (
    FUSIONS,
    Attention,
    AudioConfig,
    AudioConvNet,
    Fusions,
    VisualConfig,
    VisualNetwork,
    clip_loss,
    co_supervised,
)

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = AudioConfig(classes=3, channels=(2, 3, 4, 5), instance=6, units=7)
TABLE_1 = (  # block, layer, its output for an input of 1 x 1024 x 64, its kernel
    ("B1", "Conv2d", (64, 1024, 64), (3, 3)),
    ("B1", "Conv2d", (64, 1024, 64), (3, 3)),
    ("B1", "MaxPool2d", (64, 256, 16), 4),
    ("B2", "Conv2d", (128, 256, 16), (3, 3)),
    ("B2", "Conv2d", (128, 256, 16), (3, 3)),
    ("B2", "MaxPool2d", (128, 128, 8), 2),
    ("B3", "Conv2d", (256, 128, 8), (3, 3)),
    ("B3", "Conv2d", (256, 128, 8), (3, 3)),
    ("B3", "MaxPool2d", (256, 64, 4), 2),
    ("B4", "Conv2d", (512, 64, 4), (3, 3)),
    ("B4", "Conv2d", (512, 64, 4), (3, 3)),
    ("B4", "MaxPool2d", (512, 32, 2), 2),
    ("B5", "Conv2d", (2048, 30, 1), (3, 2)),
    ("B6", "Conv2d", (1024, 30, 1), (1, 1)),
    ("B7", "Conv2d", (1024, 30, 1), (1, 1)),
    ("B8", "Conv2d", (527, 30, 1), (1, 1)),
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def randomise(network: nn.Module, weights: float = 0.7) -> None:
    """Other numbers than those a network starts with, so that none can be left out unnoticed."""
    for name, one in network.state_dict().items():
        if name.endswith(("running_var", "deviation")):
            one.uniform_(0.5, 2)
        elif one.is_floating_point() and name != "best_scores":
            one.copy_(torch.randn_like(one) * (weights if one.ndim > 1 else 1))


# --- the audio model ---------------------------------------------------------------------------------------


def test_table_1_row_by_row() -> None:
    network = AudioConvNet(AudioConfig()).eval()
    rows, types, handles = [], [], []
    for block, part in network.blocks.items():
        for layer in part if isinstance(part, nn.Sequential) else [part]:

            def note(layer: nn.Module, _: object, output: Tensor, block: str = block) -> None:
                types.append((block, type(layer).__name__))
                if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
                    rows.append((block, type(layer).__name__, tuple(output.shape[1:]), layer.kernel_size))

            handles.append(layer.register_forward_hook(note))
    with torch.inference_mode():
        clips = network(torch.randn(1, 1024, 64))
    assert tuple(rows) == TABLE_1
    assert clips.shape == (1, 527)
    for at, (block, kind) in enumerate(types):
        if kind == "Conv2d":
            after = [name for _, name in types[at + 1 : at + 3]]
            assert after == ([] if block == "B8" else ["BatchNorm2d", "ReLU"])


def test_its_parameters_by_hand() -> None:
    """Weights without a bias and two numbers a channel of batch normalisation; B8 has a bias instead."""
    convolutions = [
        (1, 64, 9), (64, 64, 9), (64, 128, 9), (128, 128, 9), (128, 256, 9), (256, 256, 9), (256, 512, 9),
        (512, 512, 9), (512, 2048, 6), (2048, 1024, 1), (1024, 1024, 1),
    ]  # fmt: skip
    expected = sum(inputs * outputs * size + 2 * outputs for inputs, outputs, size in convolutions) + 1024 * 527 + 527
    assert sum(one.numel() for one in AudioConvNet(AudioConfig()).parameters()) == expected


def test_the_audio_model_literally() -> None:
    """Layer by layer from the state, with no layer of ours."""
    network = AudioConvNet(TINY).double().eval()
    randomise(network)
    state, log_mel = network.state_dict(), torch.randn(2, 200, 64, dtype=torch.double)
    maps = torch.zeros(2, 1, 200, 64, dtype=torch.double)
    for clip in range(2):
        for band in range(64):
            heard = log_mel[clip, :, band]
            maps[clip, 0, :, band] = (heard - heard.sum() / 200) / state["deviation"][band]

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
    logits = F.conv2d(maps, state["blocks.B8.weight"], state["blocks.B8.bias"])[..., 0]
    expected = 1 / (1 + (-logits).exp())  # (clips, classes, segments)
    with torch.inference_mode():
        segments, clips = network.segments(log_mel), network(log_mel)
    assert expected.std() > 0.05
    torch.testing.assert_close(segments, expected.transpose(1, 2))
    for clip in range(2):
        for k in range(3):
            assert clips[clip, k].item() == pytest.approx(sum(float(p) for p in expected[clip, k]) / 4)


@pytest.mark.parametrize("frames", [96, 127, 128, 250, 500, 998, 1000, 1024])
def test_segments_of_any_length(frames: int) -> None:
    network = AudioConvNet(TINY).eval()
    with torch.inference_mode():
        assert network.segments(torch.randn(2, frames, 64)).shape == (2, frames // 32 - 2, 3)


def test_a_segment_is_96_frames_at_least() -> None:
    """Three maps of 32 frames each; the padded convolutions of B1 to B4 look 58 frames further to both sides."""
    network = AudioConvNet(TINY).double().eval()
    with pytest.raises(RuntimeError):
        network.segments(torch.zeros(1, 95, 64, dtype=torch.double))
    log_mel = torch.randn(1, 1024, 64, dtype=torch.double)
    maps = log_mel[:, None].requires_grad_()
    view = maps
    for block in network.blocks.values():
        for layer in block if isinstance(block, nn.Sequential) else [block]:
            if isinstance(layer, nn.MaxPool2d):  # a mean looks where a maximum may, and a ReLU hides nothing more
                view = F.avg_pool2d(view, layer.kernel_size)
            elif not isinstance(layer, nn.ReLU):
                view = layer(view)
    view[0, 0, 15].sum().backward()
    assert maps.grad is not None
    seen = maps.grad.abs().sum(dim=(0, 1, 3)).nonzero()[:, 0]
    assert (int(seen.min()), int(seen.max())) == (15 * 32 - 58, 18 * 32 + 57)


def test_it_is_prepared_by_training_clips() -> None:
    rng = np.random.default_rng(0)
    log_mel = rng.normal(3, rng.uniform(0.5, 4, 64), (5, 100, 64)) + rng.normal(0, 9, (5, 1, 64))
    log_mel[:, :, 7] = -4.0  # a band that never changes
    labels = np.zeros((5, 3), np.float32)
    labels[:2, 0] = labels[:, 1] = 1
    network = AudioConvNet(TINY).double().eval()
    network.prepare(torch.from_numpy(log_mel), torch.from_numpy(labels))
    for band in (0, 1, 63):
        left = [log_mel[clip, frame, band] - log_mel[clip, :, band].mean() for clip in range(5) for frame in range(100)]
        expected = math.sqrt(sum(one**2 for one in left) / (len(left) - 1))
        assert network.deviation[band].item() == pytest.approx(expected, rel=1e-6)
    assert network.deviation[7].item() == pytest.approx(1e-3)
    bias = network.blocks["B8"].bias.detach()
    expected = [math.log(p / (1 - p)) for p in (0.4, 0.999, 0.001)]
    np.testing.assert_allclose(bias, expected, rtol=1e-5)
    with torch.inference_mode():  # microphone and steady background go
        heard = torch.from_numpy(log_mel)
        torch.testing.assert_close(network(heard + torch.randn(5, 1, 64)), network(heard))


# --- the visual model --------------------------------------------------------------------------------------


def test_sizes_of_the_visual_network() -> None:
    network = VisualNetwork(VisualConfig())
    shapes = [tuple(one.weight.shape) for one in network.modules() if isinstance(one, nn.Linear)]
    assert shapes == [(2048, 2048), (2048, 2048), (1024, 2048), (1024, 1024), (527, 1024)]
    assert sum(one.numel() for one in network.parameters()) == sum(a * b + a for a, b in shapes)


def test_the_visual_network_literally() -> None:
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
    """Of hidden units that all say one, 30 % fall out and the others are scaled."""
    network = VisualNetwork(VisualConfig(classes=2, inputs=4, hidden=(4000, 4000, 300, 300))).train()
    seen = []
    for layer in (one for one in network.modules() if isinstance(one, nn.Linear)):
        nn.init.zeros_(layer.weight)
        nn.init.ones_(layer.bias)
        layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    network(torch.randn(2, 4))
    for units in seen[1:3]:
        assert 0.27 < (units == 0).float().mean() < 0.33
        torch.testing.assert_close(units[units > 0], torch.full_like(units[units > 0], 1 / 0.7))
    assert all((units == 1).all() for units in seen[3:]) and len(seen) == 5


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
NAMES = tuple(FUSIONS)
ATTENTIONS = tuple(name for name in NAMES if name.startswith("attention"))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


class Literally:
    """One fusion's output and weights for one clip, from the numbers of its state alone."""

    def __init__(self, state: dict[str, Tensor], name: str) -> None:
        start = f"members.{name}."
        self.state = {key.removeprefix(start): one.numpy() for key, one in state.items() if key.startswith(start)}
        self.name, self.moments = name, state["moments"].numpy()

    def linear(self, layer: str, x: np.ndarray) -> np.ndarray:
        return self.state[f"{layer}.weight"] @ x + self.state[f"{layer}.bias"]

    def mlp(self, network: str, x: np.ndarray) -> np.ndarray:
        """Linear, batch normalisation, ReLU, (dropout,) linear: the logits."""
        hidden, norm = self.linear(f"{network}layers.0", x), f"{network}layers.1."
        hidden = (hidden - self.state[f"{norm}running_mean"]) / np.sqrt(self.state[f"{norm}running_var"] + 1e-5)
        hidden = np.maximum(hidden * self.state[f"{norm}weight"] + self.state[f"{norm}bias"], 0)
        return self.linear(f"{network}layers.4", hidden)

    def single(self, network: str, x: np.ndarray) -> np.ndarray:
        """512 units and sigmoid activations."""
        return sigmoid(self.linear(f"{network}.2", sigmoid(self.linear(f"{network}.0", x))))

    def __call__(self, h_a: np.ndarray, h_v: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        h_a = (h_a - self.moments[0, 0]) / self.moments[0, 1]
        h_v = (h_v - self.moments[1, 0]) / self.moments[1, 1]
        both = np.concatenate([h_a, h_v])
        if self.name == "regression":
            return sigmoid(self.linear("linear", both)), None, None
        if self.name == "mlp":
            return sigmoid(self.mlp("", both)), None, None
        if self.name in ("attention_self", "attention_cross"):
            reads = (h_a, h_v) if self.name == "attention_self" else (h_v, h_a)
            a, v = (sigmoid(self.mlp(f"n_attn_{m}.", x)) for m, x in zip("av", reads, strict=True))
            alpha_a, alpha_v = a / (a + v), v / (a + v)
        else:
            alpha_a = sigmoid(self.mlp("n_attn.", both))  # equation 3
            alpha_v = 1 - alpha_a
        without = self.name == "attention_without_na_nv"
        tilde_a, tilde_v = (h_a, h_v) if without else (self.single("n_a", h_a), self.single("n_v", h_v))  # equation 4
        tilde_av = alpha_a * tilde_a + alpha_v * tilde_v  # equation 5
        if self.name == "attention_without_nav":
            return tilde_av, alpha_a, alpha_v
        return self.single("n_av", tilde_av), alpha_a, alpha_v  # equation 6; its last sigmoid is outside of n_av


@pytest.fixture
def bank() -> Fusions:
    bank = Fusions(NAMES, CLASSES, UNITS).double().eval()
    randomise(bank, weights=1.0)
    bank.moments.copy_(torch.rand(2, 2, CLASSES) * 0.5 + 0.25)
    bank.keep_best(dict.fromkeys(NAMES, 0.5))
    return bank


def outputs(clips: int) -> tuple[Tensor, Tensor]:
    h_a, h_v = torch.rand(2, clips, CLASSES, dtype=torch.double)
    return h_a, h_v


@pytest.mark.parametrize("name", NAMES)
def test_equations_3_to_6(bank: Fusions, name: str) -> None:
    h_a, h_v = outputs(30)
    literal = Literally(bank.state_dict(), name)
    with torch.inference_mode():
        found = bank(h_a, h_v)[:, NAMES.index(name)].numpy()
        alpha = bank.weights(h_a, h_v, name).numpy() if name in ATTENTIONS else None
    told = [literal(a, v) for a, v in zip(h_a.numpy(), h_v.numpy(), strict=True)]
    np.testing.assert_allclose(found, [one for one, _, _ in told], atol=1e-9)
    assert found.std(axis=0).min() > 1e-4
    if alpha is not None:
        np.testing.assert_allclose(alpha, [one for _, one, _ in told], atol=1e-9)
        np.testing.assert_allclose(1 - alpha, [one for _, _, one in told], atol=1e-9)
        assert alpha.min() >= 0 and alpha.max() <= 1 and alpha.std(axis=0).min() > 0.01


@pytest.mark.parametrize("name", ATTENTIONS)
def test_weights_stay_in_bounds(bank: Fusions, name: str) -> None:
    """Also where an output is as far from those of training as it can be."""
    bank.moments[:, 1] = 1e-6
    h = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.double)] * (2 * CLASSES))
    alpha = bank.weights(h[:, :CLASSES], h[:, CLASSES:], name)
    assert alpha.isfinite().all() and alpha.min() >= 0 and alpha.max() <= 1
    assert bank(h[:, :CLASSES], h[:, CLASSES:]).isfinite().all()


def test_weights_of_two_modalities_that_are_hardly_believed() -> None:
    """Divided by their sum, two equal weights are halves, however small they are."""
    fusion = Attention(CLASSES, UNITS, attends="self").eval()
    for network in (fusion.n_attn_a, fusion.n_attn_v):
        nn.init.zeros_(network.layers[-1].weight)
        nn.init.constant_(network.layers[-1].bias, -16.0)  # a sigmoid of 1e-7, well above the least of floats
    alpha = fusion.weights(torch.randn(2, CLASSES), torch.randn(2, CLASSES))
    torch.testing.assert_close(alpha, torch.full_like(alpha, 0.5))


def test_sizes_of_fusions_in_the_paper() -> None:
    classes, units = 527, 512
    mlp = 2 * classes * units + units + 2 * units + units * classes + classes  # two of batch normalisation
    unimodal = mlp - classes * units
    single = classes * units + units + units * classes + classes
    expected = {
        "regression": 2 * classes * classes + classes,
        "mlp": mlp,
        "attention": mlp + 3 * single,
        "attention_self": 2 * unimodal + 3 * single,
        "attention_cross": 2 * unimodal + 3 * single,
        "attention_without_na_nv": mlp + single,
        "attention_without_nav": mlp + 2 * single,
    }
    built = {name: FUSIONS[name](classes, units) for name in NAMES}
    assert {name: sum(one.numel() for one in fusion.parameters()) for name, fusion in built.items()} == expected
    rates = {name: {one.p for one in fusion.modules() if isinstance(one, nn.Dropout)} for name, fusion in built.items()}
    assert rates == {name: set() if name == "regression" else {0.5} for name in NAMES}


def test_first_guesses_and_moments() -> None:
    bank = Fusions(NAMES, CLASSES, UNITS).eval()
    frequencies = torch.tensor([0.1, 0.5, 0.9])
    mean, deviation = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.0, 2.0])
    bank.prepare((mean, deviation), (mean + 1, deviation + 1), frequencies)
    h_a, h_v = bank.normalised(mean[None] + deviation, mean[None])
    torch.testing.assert_close(h_a, torch.tensor([[1.0, 0.0, 1.0]]))  # a class that is always the same gives no NaN
    torch.testing.assert_close(h_v, -1 / (deviation[None] + 1))
    torch.testing.assert_close(bank(h_a, h_v), bank(h_a, h_v, best=False))
    for group in (bank.members, bank.best):
        for fusion in group.values():
            for layer in fusion.ends():
                nn.init.zeros_(layer.weight)
    torch.testing.assert_close(bank(*torch.rand(2, 4, CLASSES)), frequencies.expand(4, len(NAMES), 3))


# --- trained together --------------------------------------------------------------------------------------


def own_loss(bank: Fusions, name: str, h_a: Tensor, h_v: Tensor, labels: Tensor) -> Tensor:
    """Binary cross entropy in full, and regression's penalty: lambda times the sum of squared weights."""
    (mean_a, deviation_a), (mean_v, deviation_v) = bank.moments
    p = torch.sigmoid(bank.members[name]((h_a - mean_a) / deviation_a, (h_v - mean_v) / deviation_v))
    loss = (-labels * p.log() - (1 - labels) * (1 - p).log()).sum() / labels.numel()
    return loss + (1e-5 * (bank.members[name].linear.weight ** 2).sum() if name == "regression" else 0)


def draw(clips: int) -> tuple[Tensor, Tensor, Tensor]:
    return *outputs(clips), torch.randint(0, 2, (clips, CLASSES)).double()


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_the_sum_are_each_fusions_own(training: bool) -> None:
    bank = Fusions(NAMES, CLASSES, UNITS).double().train(training)
    for one in bank.modules():
        if isinstance(one, nn.Dropout):
            one.p = 0.0  # two passes would draw other units
    bank.moments.uniform_(0.2, 1)
    h_a, h_v, labels = draw(20)
    before = {name: one.clone() for name, one in bank.best.state_dict().items()}
    total = bank.loss(h_a, h_v, labels)
    total.backward()
    assert total.item() == pytest.approx(sum(own_loss(bank, name, h_a, h_v, labels).item() for name in NAMES))
    for name in NAMES:
        own = torch.autograd.grad(own_loss(bank, name, h_a, h_v, labels), list(bank.members[name].parameters()))
        for one, expected in zip(bank.members[name].parameters(), own, strict=True):
            torch.testing.assert_close(one.grad, expected)
            if not training:  # batch normalisation of a batch takes out the bias before it
                assert one.grad is not None and one.grad.abs().max() > 1e-9
    assert all(one.grad is None and not one.requires_grad for one in bank.best.parameters())
    assert all(torch.equal(one, before[name]) for name, one in bank.best.state_dict().items())


def test_regression_is_penalised_by_its_squared_weights(bank: Fusions) -> None:
    alone = Fusions(("regression",), CLASSES, UNITS).double()
    h_a, h_v, labels = draw(10)
    weight = nn.init.constant_(alone.members["regression"].linear.weight, 40.0)
    nn.init.constant_(alone.members["regression"].linear.bias, 7.0)
    logits = 40 * (h_a.sum(dim=1) + h_v.sum(dim=1))[:, None] + 7
    data = F.binary_cross_entropy_with_logits(logits.expand(-1, CLASSES), labels)
    assert alone.loss(h_a, h_v, labels).item() - data.item() == pytest.approx(1e-5 * weight.numel() * 1600)


def test_each_fusion_keeps_its_own_best_epoch() -> None:
    names = ("regression", "mlp", "attention")
    bank = Fusions(names, CLASSES, UNITS).double().eval()
    scores = ((0.2, 0.5, 0.0), (0.4, 0.4, 0.3), (0.3, 0.6, 0.3), (0.1, 0.6, 0.2))
    states = []
    for given in scores:
        randomise(bank.members)
        states.append({name: bank.members[name].state_dict() for name in names})
        states[-1] = {name: {key: one.clone() for key, one in state.items()} for name, state in states[-1].items()}
        bank.keep_best(dict(zip(names, given, strict=True)))
    assert bank.best_scores.tolist() == [0.4, 0.6, 0.3]
    h_a, h_v = outputs(4)
    for name, epoch in zip(names, (1, 2, 1), strict=True):  # of equal ones the first
        kept = bank.best[name].state_dict()
        assert all(torch.equal(one, states[epoch][name][key]) for key, one in kept.items())
        at = names.index(name)
        assert not torch.equal(bank(h_a, h_v)[:, at], bank(h_a, h_v, best=False)[:, at])


@pytest.mark.parametrize("name", NAMES)
def test_other_fusions_in_the_bank_change_nothing(bank: Fusions, name: str) -> None:
    alone = Fusions((name,), CLASSES, UNITS).double().eval()
    alone.members[name].load_state_dict(bank.members[name].state_dict())
    alone.moments.copy_(bank.moments)
    h_a, h_v = outputs(6)
    torch.testing.assert_close(alone(h_a, h_v, best=False)[:, 0], bank(h_a, h_v, best=False)[:, NAMES.index(name)])
