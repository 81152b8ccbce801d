"""Parekh et al. (2018): the network's equations against loops, its bags, and what it finds in planted bags."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from avrepro.models.caffenet import CaffeNet
from avrepro.models.parekh2018 import (
    BagFiles,
    Bags,
    MILConfig,
    MILNetwork,
    System,
    binary_log_loss,
    hinge_loss,
    locate,
    log_sum_exp,
    scaled,
    score,
    softmax_over_proposals,
)
from avrepro.training import Optimisation, Verdict, fit

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
SYSTEMS: tuple[System, ...] = get_args(System)
SIZES = {"classes": 5, "region_features": 7, "segment_features": 6, "region_units": 9, "segment_units": 8}


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def network(system: System, **changes: float) -> MILNetwork:
    torch.manual_seed(3)
    return MILNetwork(MILConfig(system, **{**SIZES, **changes})).eval()  # type: ignore[arg-type]


def planes(regions: list[int], segments: list[int], seed: int = 0) -> list[np.ndarray]:
    """Bags of these sizes: regions of all clips, then segments of all clips, float64 [proposals, features]."""
    rng = np.random.default_rng(seed)
    return [rng.normal(0, 2, (size, 7)) for size in regions] + [rng.normal(0, 2, (size, 6)) for size in segments]


def batch(bags: list[np.ndarray]) -> list[Tensor]:
    halves = bags[: len(bags) // 2], bags[len(bags) // 2 :]
    padded = [Bags.of([bag.astype(np.float32) for bag in half]) for half in halves]
    return [torch.from_numpy(one[:]) for bags in padded for one in (bags, bags.mask)]


# --- the equations, against loops over the paper's symbols ------------------------------------------------


def literal_submodule(weights: dict[str, np.ndarray], z: np.ndarray, system: System, sharpness: float) -> tuple:
    """Section 3.2 for one clip: matrix D (or A) and the class scores before normalisation."""
    proposals, classes = len(z), len(weights["classify.weight"])
    a = np.zeros((proposals, classes))
    b = np.zeros((proposals, classes))
    for p in range(proposals):
        for c in range(classes):
            a[p, c] = sum(weights["classify.weight"][c] * z[p]) + weights["classify.bias"][c]
            if system != "one_stream":
                b[p, c] = sum(weights["localise.weight"][c] * z[p])
    if system == "one_stream":
        pooled = [math.log(sum(math.exp(sharpness * a[p, c]) for p in range(proposals))) / sharpness
                  for c in range(classes)]  # fmt: skip
        return a, np.array(pooled)
    d = np.zeros((proposals, classes))
    for p in range(proposals):
        for c in range(classes):
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
        z = x
        for layer in dense:
            w, bias = (weights[f"{name}.layers.{layer}.{part}"] for part in ("weight", "bias"))
            z = np.array([[max(0.0, sum(w[unit] * row) + bias[unit]) for unit in range(len(w))] for row in z])
        own = {key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(name)}
        located[name], scores = literal_submodule(own, z, model.config.system, model.config.sharpness)
        phi += scores if model.config.system == "wsddn" else scores / math.sqrt(sum(s * s for s in scores))
    return phi, located


@pytest.mark.parametrize("system", SYSTEMS)
def test_scores_are_the_papers_formulas(system: System) -> None:
    model = network(system, sharpness=2.5)
    bags = planes([4, 1, 6], [3, 5, 2])
    arguments = batch(bags)
    with torch.no_grad():
        found, located = model(*arguments), model.localisation(*arguments)
    assert found.dtype == torch.float32 and found.shape == (3, 5)
    assert set(located) == {name for name in ("regions", "segments") if getattr(model, name) is not None}
    for clip in range(3):
        phi, expected = literal(model, bags[clip], bags[3 + clip])
        np.testing.assert_allclose(found[clip].numpy(), phi, rtol=1e-4, atol=1e-5)
        for name, scores in expected.items():
            size = len(scores)
            np.testing.assert_allclose(located[name][clip, :size].numpy(), scores, rtol=1e-4, atol=1e-5)
            assert located[name][clip, size:].isnan().all()


def test_the_scores_of_each_modality_have_length_one() -> None:
    """Section 3.2: l2 normalised and added. Baselines (b) and (c) are normalised too, (d) is not: its are 0..1."""
    arguments = batch(planes([4, 1, 6], [3, 5, 2]))
    with torch.no_grad():
        for system in ("audio_only", "video_only"):
            torch.testing.assert_close(network(system)(*arguments).norm(dim=1), torch.ones(3))
        probabilities = network("wsddn")(*arguments)
    assert ((probabilities > 0) & (probabilities < 1)).all() and (probabilities.norm(dim=1) < 0.9).all()


def test_the_softmax_is_over_proposals_not_classes() -> None:
    b = torch.randn(2, 4, 3) * 3
    b[:, 0] += 12  # the first proposal matters for every class
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    weights = softmax_over_proposals(b, mask)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(2, 3))
    assert (weights.sum(dim=2)[:, 0] > 1.5).all()  # more than a softmax over classes could give one proposal
    assert (weights[1, 2:] == 0).all()
    torch.testing.assert_close(weights[1, :2], b[1, :2].softmax(dim=0))
    shifted = softmax_over_proposals(b + torch.randn(1, 1, 3) * 5, mask)  # one number a class: nothing changes
    torch.testing.assert_close(shifted, weights, rtol=1e-4, atol=1e-6)
    assert (softmax_over_proposals(b, torch.zeros_like(mask)) == 0).all()


def test_log_sum_exp_lies_between_the_maximum_and_its_bound() -> None:
    a = torch.randn(6, 12, 4, dtype=torch.float64) * 3
    mask = torch.rand(6, 12) < 0.7
    mask[:, 0], mask[5] = True, False
    for clip in range(5):
        highest = a[clip][mask[clip]].max(dim=0).values
        count = int(mask[clip].sum())
        for sharpness in (0.5, 1.0, 10.0):
            pooled = log_sum_exp(a, mask, sharpness)[clip]
            assert (pooled >= highest - 1e-12).all() and (pooled <= highest + math.log(count) / sharpness + 1e-12).all()
        torch.testing.assert_close(log_sum_exp(a, mask, 1e6)[clip], highest, rtol=0, atol=1e-5)  # r -> inf: max
        # r -> 0: the mean, plus log(P) / r, which the operator without 1/P adds to every class alike
        flat = log_sum_exp(a, mask, 1e-6)[clip] - math.log(count) / 1e-6
        torch.testing.assert_close(flat, a[clip][mask[clip]].mean(dim=0), rtol=0, atol=1e-4)
    assert (log_sum_exp(a, mask)[5] == 0).all()


def test_the_hinge_loss_is_equation_2_with_labels_of_both_signs() -> None:
    rng = np.random.default_rng(1)
    phi, labels = rng.normal(0, 1.2, (4, 6)), rng.random((4, 6)) < 0.3
    total = 0.0
    for n in range(4):
        for c in range(6):
            y = 1 if labels[n, c] else -1
            total += max(0.0, 1 - y * phi[n, c])
    found = hinge_loss(torch.from_numpy(phi), torch.from_numpy(labels).double())
    assert float(found) == pytest.approx(total / (6 * 4), rel=1e-12)
    one = torch.tensor([[2.0, -2.0]])
    assert float(hinge_loss(one, torch.tensor([[1.0, 0.0]]))) == 0.0  # beyond the margin on both sides
    assert float(hinge_loss(one, torch.tensor([[0.0, 1.0]]))) == 3.0


def test_the_log_loss_of_the_wsddn_type() -> None:
    rng = np.random.default_rng(2)
    phi, labels = rng.uniform(0.01, 0.99, (4, 6)), rng.random((4, 6)) < 0.3
    total = 0.0
    for n in range(4):
        for c in range(6):
            y = 1 if labels[n, c] else -1
            total -= math.log(y * (phi[n, c] - 0.5) + 0.5)  # Bilen and Vedaldi's form
    found = binary_log_loss(torch.from_numpy(phi), torch.from_numpy(labels).double())
    assert float(found) == pytest.approx(total / (6 * 4), rel=1e-9)
    extremes = torch.tensor([[0.0, 1.0]], requires_grad=True)
    binary_log_loss(extremes, torch.tensor([[1.0, 0.0]])).backward()
    assert extremes.grad is not None and extremes.grad.isfinite().all()


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_system_is_trained_with_its_loss(system: System) -> None:
    scores, labels = torch.rand(3, 5), (torch.rand(3, 5) < 0.4).float()
    expected = (binary_log_loss if system == "wsddn" else hinge_loss)(scores, labels)
    assert network(system).loss(scores, labels) == expected


# --- bags -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_nothing(system: System, training: bool) -> None:
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
def test_the_order_of_proposals_changes_nothing(system: System) -> None:
    model = network(system)
    bags = planes([6, 6], [5, 5])
    rng = np.random.default_rng(5)
    orders = [rng.permutation(len(bag)) for bag in bags]
    shuffled = [bag[order] for bag, order in zip(bags, orders, strict=True)]
    with torch.no_grad():
        torch.testing.assert_close(model(*batch(shuffled)), model(*batch(bags)), rtol=1e-4, atol=1e-6)
        before, after = model.localisation(*batch(bags)), model.localisation(*batch(shuffled))
    for name, first in (("regions", 0), ("segments", 2)):
        for clip in range(2 if name in before else 0):
            torch.testing.assert_close(after[name][clip], before[name][clip][orders[first + clip]])


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_bag_of_one_and_a_bag_of_300(system: System) -> None:
    model = network(system)
    one, many = planes([1], [1]), planes([300], [300])
    repeated = [np.repeat(bag, 300, axis=0) for bag in one]
    with torch.no_grad():
        alone, same, large = (model(*batch(bags)) for bags in (one, repeated, many))
        if system not in ("one_stream", "wsddn"):  # of one proposal the weight is 1: the score is A itself
            a = sum((s.classify(s.layers(batch(one)[i][0])) / s.classify(s.layers(batch(one)[i][0])).norm())
                    for i, s in ((0, model.regions), (2, model.segments)) if s is not None)  # fmt: skip
            torch.testing.assert_close(alone, a)
    if system != "one_stream":  # 300 times the same proposal says what it says once; log-sum-exp adds log 300
        torch.testing.assert_close(same, alone, rtol=1e-4, atol=1e-5)
    phi, _ = literal(model, many[0], many[1])
    np.testing.assert_allclose(large[0].numpy(), phi, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_clip_without_a_modality_is_scored_by_the_other(system: System) -> None:
    """Clip 0 has both, clip 1 no regions, clip 2 no segments, clip 3 nothing at all."""
    bags = planes([4, 0, 3, 0], [2, 5, 0, 0])
    model, arguments = network(system), batch(bags)
    with torch.no_grad():
        scores = model(*arguments)
    for clip, (sees, hears) in enumerate([(True, True), (False, True), (True, False), (False, False)]):
        told = (sees and model.regions is not None) or (hears and model.segments is not None)
        assert (scores[clip] != 0).all() if told else (scores[clip] == 0).all()
        if told and not (sees and hears) and system != "wsddn":  # one modality alone: its scores have length 1
            assert float(scores[clip].norm()) == pytest.approx(1, abs=1e-5)
    if model.regions is not None and model.segments is not None:  # and are what that modality says by itself
        seen, heard = network(system), network(system)
        seen.segments, heard.regions = None, None
        with torch.no_grad():
            torch.testing.assert_close(scores[1], heard(None, None, *arguments[2:])[1])
            torch.testing.assert_close(scores[2], seen(*arguments[:2], None, None)[2])

    labels = torch.eye(5)[:4]
    model.loss(model(*arguments), labels).backward()
    gradients = [parameter.grad for parameter in model.parameters()]
    assert all(one is not None and one.isfinite().all() for one in gradients)
    without = network(system)  # the clip with nothing pulls at nothing: it only counts in the mean, 4 for 3
    without.loss(without(*(one[:3] for one in arguments)), labels[:3]).backward()
    for one, parameter in zip(gradients, without.parameters(), strict=True):
        assert one is not None and parameter.grad is not None
        torch.testing.assert_close(one * 4 / 3, parameter.grad, rtol=1e-4, atol=1e-7)


def test_bags_are_padded_to_the_longest_of_the_batch(tmp_path: Path) -> None:
    arrays = [np.full((size, 3), size, np.float16) for size in (2, 0, 5, 1)]
    paths: list[Path | None] = []
    for number, array in enumerate(arrays):
        path = tmp_path / f"{number}.npy"
        np.save(path, array)
        paths.append(path if len(array) else None)  # None: the clip lacks this modality
    for bags in (Bags.of(arrays), Bags.of(BagFiles(tuple(paths), 3))):
        assert len(bags) == len(bags.mask) == 4 and bags.sizes.tolist() == [2, 0, 5, 1]
        features, mask = bags[np.array([3, 0])], bags.mask[np.array([3, 0])]
        assert features.shape == (2, 2, 3) and features.dtype == np.float16
        assert features[:, :, 0].tolist() == [[1, 0], [2, 2]] and mask.tolist() == [[True, False], [True, True]]
        assert bags[1:3].shape == (2, 5, 3) and bags.mask[1:3].sum(axis=1).tolist() == [0, 5]
        assert bags[np.array([1])].shape == (1, 1, 3) and bags.mask[np.array([1])].tolist() == [[False]]


def test_scores_of_many_clips_do_not_depend_on_the_batch() -> None:
    bags = planes([4, 0, 6, 3, 1], [3, 5, 2, 0, 7])
    regions, segments = (Bags.of([bag.astype(np.float32) for bag in half]) for half in (bags[:5], bags[5:]))
    model = network("two_stream").train()
    together = score(model, regions, segments, CPU)
    assert together.shape == (5, 5) and together.dtype == np.float32
    np.testing.assert_allclose(score(model, regions, segments, CPU, batch=2), together, rtol=1e-4, atol=1e-6)
    found = locate(model, regions, segments, CPU, batch=2)
    assert [len(one) for one in found["regions"]] == [4, 0, 6, 3, 1]
    assert [one.shape for one in found["segments"]] == [(3, 5), (5, 5), (2, 5), (0, 5), (7, 5)]
    assert all(np.isfinite(one).all() for one in found["regions"] + found["segments"])
    heard = network("audio_only")
    assert set(locate(heard, None, segments, CPU)) == {"segments"} and score(heard, None, segments, CPU).shape == (5, 5)


def test_errors_say_what_does_not_fit() -> None:
    regions, region_mask, segments, segment_mask = batch(planes([4], [3]))
    model = network("two_stream")
    with pytest.raises(ValueError, match=r"'two_stream' needs segments"):
        model(regions, region_mask, None, None)
    with pytest.raises(ValueError, match=r"regions: expected features \[clips, proposals, 7\].*\[1, 3, 6\]"):
        model(segments, segment_mask, segments, segment_mask)
    with pytest.raises(ValueError, match=r"segments: .*found \[1, 3, 6\] and \[1, 4\]"):
        model(regions, region_mask, segments, region_mask)
    one, two = Bags.of([np.zeros((1, 7), np.float32)]), Bags.of([np.zeros((1, 6), np.float32)] * 2)
    with pytest.raises(ValueError, match=r"same clips, found \[1, 2\]"):
        score(model, one, two, CPU)


# --- parameters and precision -----------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_gradients_reach_every_trained_parameter_and_no_frozen_one(system: System) -> None:
    model = network(system)
    frozen = {id(p) for s in (model.regions, model.segments) if s is not None for p in s.layers[0].parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in frozen)
    arguments = batch(planes([40, 30], [30, 40]))
    model.loss(model(*arguments), torch.tensor([[1.0, 0, 0, 0, 1], [0, 1, 0, 0, 0]])).backward()
    for name, parameter in model.named_parameters():
        if id(parameter) in frozen:
            assert parameter.grad is None, name
        else:  # and more than what rounding leaves of a sum that is zero
            assert parameter.grad is not None and parameter.grad.abs().max() > 1e-5, name
    assert all(one.grad is None for one in arguments)  # the base features are frozen


def test_the_papers_sizes() -> None:
    with torch.device("meta"):  # shapes without memory: fc6 and fc7 alone are 55 million numbers
        model, caffenet = MILNetwork(MILConfig()), CaffeNet()
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert shapes["regions.layers.fc6.weight"] == (4096, 9216) and shapes["regions.layers.fc7.weight"] == (4096, 4096)
    assert shapes["segments.layers.0.weight"] == (128, 128)
    assert shapes["regions.classify.weight"] == shapes["regions.localise.weight"] == (17, 4096)
    assert shapes["segments.classify.weight"] == shapes["segments.localise.weight"] == (17, 128)
    assert model.regions is not None
    for name in ("fc6", "fc7"):  # which start from CaffeNet's
        assert not any(model.regions.layers.get_submodule(name).load_state_dict(getattr(caffenet, name).state_dict()))
    dropouts = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts == [0.5, 0.5]


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("kind", ["cpu bfloat16", "cuda float16"])
def test_half_precision(system: System, kind: str) -> None:
    device, dtype = kind.split()
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here: float16 is checked where there is one")
    model = network(system)
    arguments = batch(planes([40, 3, 0], [30, 0, 2]))
    with torch.no_grad():
        expected = model(*arguments)
    model.to(device)
    with torch.autocast(device, dtype=getattr(torch, dtype)):
        scores = model(*(one.to(device) for one in arguments))
        loss = model.loss(scores, torch.eye(5)[:3].to(device))
    loss.backward()
    assert scores.dtype == torch.float32
    torch.testing.assert_close(scores.detach().cpu(), expected, rtol=0.1, atol=0.05)
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


# --- display ----------------------------------------------------------------------------------------------


def test_scores_are_scaled_to_0_and_1_within_each_clip_and_class() -> None:
    scores = np.array([[[-3.0, 5.0], [1.0, 5.0], [np.nan, np.nan]], [[2.0, 0.0], [4.0, 1.0], [3.0, 0.25]]])
    expected = np.array([[[0, 0], [1, 0], [np.nan, np.nan]], [[0, 0], [1, 1], [0.5, 0.25]]])
    np.testing.assert_allclose(scaled(scores), expected)
    np.testing.assert_allclose(scaled(scores[1]), expected[1])
    assert scaled(np.zeros((0, 2))).shape == (0, 2)


# --- learning ---------------------------------------------------------------------------------------------


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
                bag[place[clip, k], k] += 4  # 8 standard deviations: one look at the proposal tells
            bags.append(bag)
        modalities[name], places[name] = Bags.of(bags), place
    return modalities["regions"], modalities["segments"], labels, places


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_planted_proposals_are_found(system: System) -> None:
    """Only clip labels are told. A system that has learnt what each class looks and sounds like cannot miss it, 8
    deviations high: 1 is what can be reached, and chance is one over the bag's size. Asked for is more than half of
    the way from chance to 1, in each modality and on other clips."""
    regions, segments, labels, _ = planted(120, 0)
    model = MILNetwork(MILConfig(system, 4, 12, 8, region_units=32, segment_units=32, dropout=0.2))
    epochs = itertools.count(1)
    fit(
        model,
        lambda net, r, rm, s, sm, y: net.loss(net(r, rm, s, sm), y),
        (regions, regions.mask, segments, segments.mask, torch.from_numpy(labels).float()),
        lambda net: Verdict(0.0, next(epochs), {}),  # each epoch is better: the last one stays
        Optimisation("adam", 3e-3, batch=24, epochs=40),
        0,
        CPU,
        "planted bags",
    )
    regions, segments, labels, places = planted(80, 1)
    for name, located in locate(model, regions, segments, CPU).items():
        place, sizes = places[name], {"regions": regions, "segments": segments}[name].sizes
        asked = np.argwhere(labels)
        hits = np.mean([located[clip][:, k].argmax() == place[clip, k] for clip, k in asked])
        chance = np.mean([1 / sizes[clip] for clip, _ in asked])
        assert hits > (1 + chance) / 2, name
