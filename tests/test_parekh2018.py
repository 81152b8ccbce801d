"""Parekh et al. (2018): the network's equations against loops, padded bags, gradients, and planted proposals."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from avrepro.backbones.caffenet import CaffeNet
from avrepro.features.bags import Bags
from avrepro.models.parekh2018 import (
    MILConfig,
    MILNetwork,
    binary_log_loss,
    hinge_loss,
    log_sum_exp,
    scaled,
)
from avrepro.training import Optimisation, fit

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SIZES = MILConfig(classes=5, region_features=7, segment_features=6, region_units=9, segment_units=8)
SYSTEMS = ("two_stream", "audio_only", "video_only", "wsddn", "one_stream")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def network(system: str, **changes: float) -> MILNetwork:
    torch.manual_seed(3)
    return MILNetwork(replace(SIZES, system=system, **changes)).eval()  # type: ignore[arg-type]


def planes(regions: list[int], segments: list[int], seed: int = 0) -> list[np.ndarray]:
    """Bags of these sizes: regions of all clips, then segments of all clips, float64 [proposals, features]."""
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 2, (size, 7)) for size in regions] + [rng.normal(0, 2, (size, 6)) for size in segments]


def batch(bags: list[np.ndarray]) -> list[Tensor]:
    halves = bags[: len(bags) // 2], bags[len(bags) // 2 :]
    padded = [Bags.of([bag.astype(np.float32) for bag in half]) for half in halves]
    return [torch.from_numpy(one[:]) for bags in padded for one in (bags, bags.mask)]


def literal_submodule(weights: dict[str, np.ndarray], z: np.ndarray, system: str, sharpness: float) -> tuple:
    """Section 3.2 for one clip: matrix D (or A) and the class scores before normalisation."""
    proposals, classes = len(z), len(weights["classify.weight"])
    a, b, d = np.zeros((3, proposals, classes))
    for p, c in itertools.product(range(proposals), range(classes)):
        a[p, c] = sum(weights["classify.weight"][c] * z[p]) + weights["classify.bias"][c]
        if system != "one_stream":
            b[p, c] = sum(weights["localise.weight"][c] * z[p])
    if system == "one_stream":
        pooled = [math.log(sum(math.exp(sharpness * a[p, c]) for p in range(proposals))) / sharpness
                  for c in range(classes)]  # fmt: skip
        return a, np.array(pooled)
    for p, c in itertools.product(range(proposals), range(classes)):
        sigma = math.exp(b[p, c]) / sum(math.exp(b[q, c]) for q in range(proposals))  # equation 1
        classified = a[p, c]
        if system == "wsddn":
            classified = math.exp(a[p, c]) / sum(math.exp(a[p, k]) for k in range(classes))
        d[p, c] = classified * sigma
    return d, np.array([sum(d[p, c] for p in range(proposals)) for c in range(classes)])


def literal(model: MILNetwork, regions: np.ndarray, segments: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """phi(V; w) of one clip, and the scores of its proposals."""
    weights = {name: value.double().numpy() for name, value in model.state_dict().items()}
    phi, located = np.zeros(model.config.classes), {}
    for name, x, dense in (("regions", regions, ("fc6", "fc7")), ("segments", segments, ("0",))):
        if getattr(model, name) is None:
            continue
        z = x / float(weights[f"{name}.scale"])
        for layer in dense:
            w, bias = (weights[f"{name}.layers.{layer}.{part}"] for part in ("weight", "bias"))
            z = np.array([[max(0.0, sum(w[unit] * row) + bias[unit]) for unit in range(len(w))] for row in z])
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(name)}
        located[name], scores = literal_submodule(own, z, model.config.system, model.config.sharpness)
        length = math.sqrt(sum(s * s for s in scores)) if model.config.l2 and model.config.system != "wsddn" else 1.0
        phi += scores / length
    return phi, located


@pytest.mark.parametrize(("system", "l2"), [*((system, True) for system in SYSTEMS), ("two_stream", False)])
def test_scores_are_the_papers_formulas(system: str, l2: bool) -> None:
    model = network(system, sharpness=2.5, l2=l2)
    model.scale_features(1.5, 0.7)
    bags = planes([4, 1, 6], [3, 5, 2])
    arguments = batch(bags)
    with torch.no_grad():
        found, by_modality = model(*arguments), model.by_modality(*arguments)
    assert found.dtype == torch.float32 and found.shape == (3, 5)
    assert set(by_modality) == {name for name in ("regions", "segments") if getattr(model, name)}
    for clip in range(3):
        phi, expected = literal(model, bags[clip], bags[3 + clip])
        np.testing.assert_allclose(found[clip].numpy(), phi, rtol=1e-4, atol=1e-5)
        for name, scores in expected.items():
            located = by_modality[name][0][clip]
            np.testing.assert_allclose(located[: len(scores)].numpy(), scores, rtol=1e-4, atol=1e-5)
            assert (located[len(scores) :] == 0).all()
    labels = (torch.rand(3, 5) < 0.4).float()
    assert model.loss(found, labels) == (binary_log_loss if system == "wsddn" else hinge_loss)(found, labels)


def test_log_sum_exp_lies_between_the_maximum_and_its_bound() -> None:
    a = torch.randn(6, 12, 4, dtype=torch.float64) * 3
    mask = torch.rand(6, 12) < 0.7
    mask[:, 0], mask[5] = True, False
    for clip, sharpness in itertools.product(range(5), (0.5, 1.0, 10.0, 1e6)):
        highest = a[clip][mask[clip]].amax(dim=0)
        above = log_sum_exp(a, mask, sharpness)[clip] - highest
        assert (above >= -1e-9).all() and (above <= math.log(int(mask[clip].sum())) / sharpness + 1e-9).all()
    assert (log_sum_exp(a, mask)[5] == 0).all()


def test_the_losses_are_equation_2_and_binary_cross_entropy() -> None:
    rng = np.random.default_rng(1)
    phi, labels = rng.normal(0, 1.2, (4, 6)), rng.random((4, 6)) < 0.3
    total = 0.0
    for n, c in itertools.product(range(4), range(6)):
        total += max(0.0, 1 - (1 if labels[n, c] else -1) * phi[n, c])
    weak_labels = torch.from_numpy(labels).double()
    assert float(hinge_loss(torch.from_numpy(phi), weak_labels)) == pytest.approx(total / (6 * 4), rel=1e-12)
    probabilities = torch.from_numpy(rng.uniform(0.01, 0.99, (4, 6)))
    expected = torch.nn.functional.binary_cross_entropy(probabilities, weak_labels)
    torch.testing.assert_close(binary_log_loss(probabilities, weak_labels), expected)
    extremes = torch.tensor([[0.0, 1.0]], requires_grad=True)
    binary_log_loss(extremes, torch.tensor([[1.0, 0.0]])).backward()
    assert extremes.grad is not None and extremes.grad.isfinite().all()


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(system: str, training: bool) -> None:
    """Neither scores nor gradients, whatever the padding holds; not even the draws of dropout."""
    arguments = batch(planes([4, 1, 6], [3, 5, 2]))
    longer = []
    for features, mask in (arguments[:2], arguments[2:]):
        garbage = torch.full((3, 4, features.shape[2]), torch.nan)
        longer += [torch.cat([features.masked_fill(~mask[..., None], 1e30), garbage], dim=1),
                   torch.cat([mask, torch.zeros(3, 4, dtype=torch.bool)], dim=1)]  # fmt: skip
    labels = torch.eye(5)[:3]
    results = []
    for bags in (arguments, longer, [one.float() if one.dtype == torch.bool else one for one in longer]):
        model = network(system).train(training)
        torch.manual_seed(0)
        scores = model(*bags)
        model.loss(scores, labels).backward()
        results.append([scores.detach(), *(parameter.grad for parameter in model.parameters())])
    for other in results[1:]:
        for one, two in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_clip_without_a_modality_is_scored_by_the_other(system: str) -> None:
    """Clip 0 has both, clip 1 no regions, clip 2 no segments, clip 3 nothing at all."""
    model, arguments = network(system), batch(planes([4, 0, 3, 0], [2, 5, 0, 0]))
    with torch.no_grad():
        scores = model(*arguments)
        alone = model.by_modality(*arguments)
    for clip, modalities in enumerate([("regions", "segments"), ("segments",), ("regions",), ()]):
        of_clip = [alone[name][1][clip] for name in modalities if name in alone]
        if system != "wsddn":
            of_clip = [one / one.norm() for one in of_clip]
        torch.testing.assert_close(scores[clip], sum(of_clip, torch.zeros(5)))
        assert all((one != 0).all() for one in of_clip)

    labels = torch.eye(5)[:4]
    model.loss(model(*arguments), labels).backward()
    without = network(system)  # the clip with nothing pulls at nothing: it only counts in the mean, 4 for 3
    without.loss(without(*(one[:3] for one in arguments)), labels[:3]).backward()
    for one, two in zip(model.parameters(), without.parameters(), strict=True):
        assert one.grad is not None and two.grad is not None and one.grad.isfinite().all()
        torch.testing.assert_close(one.grad * 4 / 3, two.grad, rtol=1e-4, atol=1e-7)


def test_the_fully_connected_layers_start_from_caffenets() -> None:
    with torch.device("meta"):  # shapes without memory: fc6 and fc7 alone are 55 million numbers
        model, caffenet = MILNetwork(MILConfig()), CaffeNet()
    assert model.regions is not None
    for name in ("fc6", "fc7"):
        assert not any(model.regions.layers.get_submodule(name).load_state_dict(getattr(caffenet, name).state_dict()))
    dropouts = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts == [0.5, 0.5]


def test_scores_are_scaled_to_0_and_1_within_each_class() -> None:
    scores = np.array([[-3.0, 5.0, 0.0], [1.0, 5.0, 1.0], [-1.0, 5.0, 0.25]])
    np.testing.assert_allclose(scaled(scores), [[0, 0, 0], [1, 0, 1], [0.5, 0, 0.25]])
    assert scaled(np.zeros((0, 2))).shape == (0, 2)


def planted(clips: int, seed: int) -> tuple[Bags, Bags, np.ndarray, dict[str, np.ndarray]]:
    """Bags of 4 to 12 noisy proposals; each class of a clip is in one region and one segment, at unrelated places.

    :returns: regions, segments, weak labels bool [clips, 4], and by modality the planted places, int [clips, 4].
    """
    rng = np.random.default_rng(seed)
    labels = rng.random((clips, 4)) < 0.35
    modalities, places = {}, {}
    for name, features in (("regions", 12), ("segments", 8)):
        bags, place = [], np.full((clips, 4), -1)
        for clip in range(clips):
            bag = rng.normal(0, 0.5, (int(rng.integers(4, 13)), features)).astype(np.float32)
            chosen = np.flatnonzero(labels[clip])
            place[clip, chosen] = rng.permutation(len(bag))[: len(chosen)]
            for k in chosen:
                bag[place[clip, k], k] += 4  # 8 standard deviations
            bags.append(bag)
        modalities[name], places[name] = Bags.of(bags), place
    return modalities["regions"], modalities["segments"], labels, places


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_planted_proposals_are_found(system: str) -> None:
    """Labels are of clips alone. A proposal 8 deviations high cannot be missed by a system that has learnt its class.

    1 is what can be reached, and chance is one over the bag's size. Asked for is more than half of the way from chance
    to 1, in each modality and on other clips.
    """
    regions, segments, labels, _ = planted(120, 0)
    model = MILNetwork(MILConfig(system, 4, 12, 8, 32, 32, dropout=0.2))  # type: ignore[arg-type]
    fit(
        model,
        lambda net, r, rm, s, sm, y: net.loss(net(r, rm, s, sm), y),
        (regions, regions.mask, segments, segments.mask, torch.from_numpy(labels).float()),
        Optimisation("adam", 3e-3, batch=24, epochs=40),
        0,
        CPU,
        "planted bags",
    )
    regions, segments, labels, places = planted(80, 1)
    inputs = [torch.from_numpy(one[:]) for bags in (regions, segments) for one in (bags, bags.mask)]
    with torch.no_grad():
        found = model.by_modality(*inputs)
    for name, (located, _) in found.items():
        place, sizes = places[name], {"regions": regions, "segments": segments}[name].sizes
        asked = np.argwhere(labels)
        hits = np.mean([located[clip, : sizes[clip], k].argmax() == place[clip, k] for clip, k in asked])
        chance = np.mean([1 / sizes[clip] for clip, _ in asked])
        assert hits > (1 + chance) / 2, name
