"""The fusions of Fayek and Kumar (2020) against sections 3.3 and 3.4 and equations 3 to 6."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from toy_clips import randomise

from avrepro.models.fayek2020 import MLP, Attention, Fusion, Regression

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


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


@pytest.mark.parametrize(("classes", "alike"), [(17, 0.98), (527, 0.9)])
@pytest.mark.parametrize("name", ["attention", "self", "cross", "without n_av", "without n_a, n_v"])
def test_attention_starts_as_the_average(name: str, classes: int, alike: float) -> None:
    """At the paper's 512 units, with more classes than units too; without n_a and n_v of normalised outputs."""
    labels, h_a, h_v, moments = planted_outputs(classes)
    fusion = FUSIONS[name](classes, 512).eval()
    fusion.prepare(moments, torch.from_numpy(labels).float().mean(dim=0))
    with torch.inference_mode():
        alpha, found = fusion.weights(*fusion.normalised(h_a, h_v)), fusion(h_a, h_v).numpy()
        mixed = fusion.normalised(h_a, h_v) if name == "without n_a, n_v" else (h_a, h_v)
    average = (sum(mixed) / 2).numpy()
    torch.testing.assert_close(alpha, torch.full_like(alpha, 0.5))
    same = [scipy.stats.spearmanr(*pair).statistic for pair in zip(found.T, average.T, strict=True)]
    assert np.mean(same) > alike
    if name != "without n_a, n_v":
        assert np.abs(found - average).mean() < 0.05


@pytest.mark.parametrize("name", ["regression", "attention"])
def test_losses_literally(name: str) -> None:
    """Binary cross entropy in full; regression is penalised by lambda times the sum of its squared weights."""
    fusion, (h_a, h_v) = made_up(name), outputs(10)
    labels = torch.randint(0, 2, (10, CLASSES)).double()
    p = fusion(h_a, h_v)
    expected = (-labels * p.log() - (1 - labels) * (1 - p).log()).mean()
    if isinstance(fusion, Regression):
        expected += 1e-5 * sum(weight**2 for weight in fusion.linear.weight.flatten())
    assert fusion.loss(h_a, h_v, labels).item() == pytest.approx(expected.item(), rel=1e-9)
