"""The training loop: what receives gradient, which epoch is kept, and when the rate falls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from avrepro.training import Fit, Optimisation, Validation, choose_device, device_name, fit, predict

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")


def mean_square(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return (model(inputs) - targets).square().mean()


def line(clips: int = 12) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    inputs = torch.randn(clips, 4, generator=rng)
    return inputs, inputs @ torch.tensor([[1.0], [-2.0], [0.5], [3.0]])


def scripted(losses: list[float], scores: list[float] | None = None) -> Callable[[nn.Module], Validation]:
    """A validation that gives these numbers, epoch by epoch."""
    given = iter(zip(losses, scores or [0.0] * len(losses), strict=True))

    def validate(model: nn.Module) -> Validation:
        assert not model.training and not torch.is_grad_enabled()
        return Validation(*next(given))

    return validate


def run(settings: Optimisation, validate: Callable[[nn.Module], Validation], seed: int = 0) -> tuple[nn.Linear, Fit]:
    torch.manual_seed(3)
    model = nn.Linear(4, 1)
    return model, fit(model, mean_square, line(), settings, seed, CPU, "line", validate=validate)


# --- which epoch is kept ----------------------------------------------------------------------------------


def test_the_best_epoch_is_restored() -> None:
    settings = Optimisation("sgd", learning_rate=0.05, batch=4, epochs=5)
    scores = [0.1, 0.5, 0.3, 0.5, 0.4]  # of two equally good epochs the first stays
    model, fitted = run(settings, scripted([1.0] * 5, scores))
    assert fitted.best_epoch == 2
    assert not model.training
    assert [row["validation_score"] for row in fitted.history] == scores
    assert [row["epoch"] for row in fitted.history] == [1, 2, 3, 4, 5]
    shorter, _ = run(Optimisation("sgd", learning_rate=0.05, batch=4, epochs=2), scripted([1.0] * 2, [0.1, 0.5]))
    assert torch.equal(model.weight, shorter.weight)  # an independent way to the weights of epoch 2


# --- the learning rate ------------------------------------------------------------------------------------


def literal_rates(losses: list[float], rate: float, factor: float, patience: int) -> list[float]:
    """Section 3.2 word by word: times ``factor`` when the loss has not fallen for ``patience`` epochs in a row."""
    rates, best, waited = [], float("inf"), 0
    for loss in losses:
        rates.append(rate)
        if loss < best:
            best, waited = loss, 0
        else:
            waited += 1
        if waited == patience:
            rate, waited = rate * factor, 0
    return rates


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 0.9, 0.9, 0.9, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8],
        [1.0, 1.1, 1.2, 0.9, 1.0, 1.0, 0.95, 0.5, 0.6, 0.6, 0.4, 0.4],
        [1.0 - 1e-5 * epoch for epoch in range(10)],  # ever so little is a fall
    ],
)
@pytest.mark.parametrize("patience", [1, 3])
def test_the_rate_falls_after_three_epochs_without_a_fall_of_the_loss(losses: list[float], patience: int) -> None:
    settings = Optimisation("sgd", 0.1, 12, epochs=len(losses), momentum=0.8, decay=0.8, patience=patience)
    _, fitted = run(settings, scripted(losses))
    found = [row["learning_rate"] for row in fitted.history]
    assert found == pytest.approx(literal_rates(losses, 0.1, 0.8, patience), rel=1e-12)


# --- the optimiser ----------------------------------------------------------------------------------------


def test_nesterov_steps_literally() -> None:
    """Weights after some epochs of the whole set as one batch, against the update written out in NumPy."""
    clip = 0.7
    settings = Optimisation("sgd", 0.1, batch=12, epochs=6, momentum=0.8, clip_norm=clip)
    inputs, targets = (array.numpy().astype(np.float64) for array in line())
    torch.manual_seed(3)
    start = nn.Linear(4, 1)
    w = np.append(start.weight.detach().numpy().ravel(), start.bias.item()).astype(np.float64)
    x, velocity, norms = np.c_[inputs, np.ones(12)], np.zeros(5), []
    for _ in range(6):
        gradient = 2 / 12 * x.T @ (x @ w - targets[:, 0])
        norms.append(np.linalg.norm(gradient))
        gradient *= min(1.0, clip / norms[-1])
        velocity = 0.8 * velocity + gradient
        w = w - 0.1 * (gradient + 0.8 * velocity)
    assert max(norms) > clip
    model, _ = run(settings, scripted([1.0] * 6, list(range(6))))
    found = np.append(model.weight.detach().numpy().ravel(), model.bias.item())
    np.testing.assert_allclose(found, w, rtol=1e-5, atol=1e-6)


def test_clipping_by_value_bounds_each_step() -> None:
    """Plain SGD at rate 1 moves the weights by the gradient itself."""
    torch.manual_seed(3)
    before = nn.Linear(4, 1)
    gradients = torch.autograd.grad(mean_square(before, *line()), list(before.parameters()))
    after, _ = run(Optimisation("sgd", 1.0, batch=12, epochs=1, clip_value=0.5), scripted([1.0]))
    for a, b, gradient in zip(before.parameters(), after.parameters(), gradients, strict=True):
        torch.testing.assert_close(a - b, gradient.clamp(-0.5, 0.5), rtol=1e-4, atol=1e-5)


def test_a_last_batch_of_one_clip_joins_the_one_before() -> None:
    sizes: list[int] = []

    def loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        sizes.append(len(inputs))
        return mean_square(model, inputs, targets)

    fit(nn.Linear(4, 1), loss, line(13), Optimisation("sgd", 0.1, batch=4, epochs=1), 0, CPU, "odd")
    assert sizes == [4, 4, 5]


def test_every_clip_is_seen_once_an_epoch_in_a_new_order() -> None:
    seen: list[list[int]] = []

    def loss(model: nn.Module, inputs: Tensor, numbers: Tensor) -> Tensor:
        assert inputs.dtype == numbers.dtype == torch.float32  # half precision and integers come as float32
        seen[-1] += numbers.int().tolist()
        return model(inputs).sum() * 0

    def validate(model: nn.Module) -> Validation:
        seen.append([])
        return Validation(1.0, 0.0)

    def orders(seed: int) -> list[list[int]]:
        seen[:] = [[]]
        inputs = line(7)[0].half()
        fit(nn.Linear(4, 1), loss, (inputs, np.arange(7)), settings, seed, CPU, "order", validate=validate)
        return [list(epoch) for epoch in seen[:-1]]

    settings = Optimisation("sgd", 0.1, batch=3, epochs=4)
    first = orders(0)
    assert [sorted(epoch) for epoch in first] == [list(range(7))] * 4
    assert len({tuple(epoch) for epoch in first}) > 1
    assert orders(0) == first and orders(1) != first


# --- devices and prediction -------------------------------------------------------------------------------


def test_prediction_is_the_same_in_any_batch_and_of_arrays_as_of_tensors() -> None:
    model = nn.Linear(4, 2).eval()
    inputs, factors = line(11)
    expected = (model(inputs) * factors).detach().numpy()
    for batch in (1, 4, 64):
        for given in ((inputs, factors), (inputs.numpy(), factors.numpy())):
            found = predict(lambda x, factor: model(x) * factor, given, CPU, batch)
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_devices() -> None:
    assert choose_device("cpu") == CPU and device_name(CPU) == "cpu"
    if torch.cuda.is_available():
        assert choose_device("auto").type == choose_device("cuda").type == "cuda"
        assert device_name(choose_device("cuda")) not in ("", "cpu")
    else:
        assert choose_device("auto") == CPU
        with pytest.raises(ValueError, match="torch sees no GPU; use device = 'cpu' or 'auto'"):
            choose_device("cuda")
