"""Parekh et al. (2018): the network's equations against loops, padded bags, and seconds by the clock."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avrepro.backbones.caffenet import CaffeNet
from avrepro.features.bags import Bags, root_mean_square
from avrepro.features.segments import Seconds
from avrepro.features.store import ClipArrays
from avrepro.models.parekh2018 import MILConfig, MILNetwork, binary_log_loss, hinge_loss, scaled

pytestmark = pytest.mark.usefixtures("one_thread")

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


# --- bags and seconds --------------------------------------------------------------------------------------


def test_bags_are_padded_to_the_longest_of_the_batch(tmp_path: Path) -> None:
    arrays = [np.full((size, 3), size, np.float16) for size in (2, 0, 5, 1)]
    paths = [tmp_path / f"{number}.npy" for number in range(4)]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    files = ClipArrays((paths[0], arrays[1], *paths[2:]), np.array([True, False, True, True]))
    for bags in (Bags.of(arrays), Bags.of(files)):
        assert len(bags) == len(bags.mask) == 4 and bags.sizes.tolist() == [2, 0, 5, 1] and bags.features == 3
        for chosen, rows in ((bags, np.array([3, 0])), (bags.select(np.array([0, 1, 3])), np.array([2, 0]))):
            features, mask = chosen[rows], chosen.mask[rows]
            assert features.shape == (2, 2, 3) and features.dtype == np.float16
            assert features[:, :, 0].tolist() == [[1, 0], [2, 2]] and mask.tolist() == [[True, False], [True, True]]
        assert bags[1:3].shape == (2, 5, 3) and bags.mask[1:3].sum(axis=1).tolist() == [0, 5]
        assert bags[np.array([1])].shape == (1, 1, 3) and bags.mask[np.array([1])].tolist() == [[False]]


def test_root_mean_square_is_that_of_all_numbers() -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(3, 40, (size, 6)).astype(np.float16) for size in (4, 0, 1, 9)]
    everything = np.concatenate(arrays).astype(np.float64)
    assert root_mean_square(Bags.of(arrays)) == pytest.approx(np.sqrt(np.mean(everything**2)), rel=1e-12)
    assert root_mean_square(Bags.of([np.zeros((0, 6), np.float16)] * 3)) == 1.0
    many = Bags.of([np.full((2, 3), number, np.float32) for number in range(1001)])  # 200 of them stand for all
    assert root_mean_square(many) == pytest.approx(np.sqrt(np.mean(np.arange(1001.0) ** 2)), rel=0.01)


def literal_seconds(frames: list[list[np.ndarray]], segments: np.ndarray, scales: tuple[float, float]) -> list:
    """By the clock, in hundredths of a second: segment n lasts from 48 n to 48 n + 96.

    :param frames: of each frame, in the order in which they are shown, the features of its regions.
    """
    if len(segments):  # their sound ended after the last but one did, at the latest with the last: halfway, then
        count = math.ceil((48 * (len(segments) - 1) + 96 - 24) / 100)
    else:
        count = len(frames)
    seconds = []
    for second in range(count):
        seen = np.zeros(5)
        if frames:
            seen = np.max(frames[min(second, len(frames) - 1)], axis=0) / scales[1]
        overlapping = [
            segment
            for number, segment in enumerate(segments)
            if any(100 * second <= tick < 100 * (second + 1) for tick in range(48 * number, 48 * number + 96))
        ]
        sound = np.mean(overlapping, axis=0) / scales[0] if overlapping else np.zeros(4)
        seconds.append(np.concatenate([seen, sound]))
    return seconds


@pytest.mark.parametrize("delay", [0, 3])
def test_seconds_hold_the_frame_and_the_sound_of_then(delay: int) -> None:
    rng = np.random.default_rng(2)
    clips: dict[str, tuple[list[int], int, int]] = {  # regions of each frame, segments, seconds
        "whole": ([3, 1, 2, 3, 3, 1, 1, 2, 3, 3], 20, 10),
        "still": ([2], 20, 10),
        "pictures end first": ([1, 3, 2], 12, 6),
        "sound ends first": ([2] * 10, 5, 3),
        "one segment": ([1, 2], 1, 1),
        "no pictures": ([], 9, 5),
        "no sound": ([3, 1, 3, 2], 0, 4),
        "nothing": ([], 0, 0),
    }
    scales, frames, boxes, regions, segments = (0.03125, 2.5), [], [], [], []
    for counts, sound, _ in clips.values():
        own = [rng.normal(0, 3, (count, 5)).astype(np.float16) for count in counts]
        rows = np.full((len(counts), 3, 5), np.nan, np.float32)
        for frame, count in enumerate(counts):
            rows[frame, :count] = rng.random((count, 5))
        frames.append([own[(frame - delay) % len(own)].astype(float) for frame in range(len(own))])
        boxes.append(rows)
        regions.append(np.concatenate(own) if own else np.zeros((0, 5), np.float16))
        segments.append(rng.normal(0, 0.05, (sound, 4)).astype(np.float16))
    bags = Bags.of(segments)
    seconds = Seconds(bags, Bags.of(regions), Bags.of(boxes), scales, delay)
    alone = Seconds(bags, None, None, scales[:1], delay)
    assert seconds.features == 9 and alone.features == 4 and len(seconds) == len(alone) == len(clips)
    assert seconds.sizes.tolist() == [size for *_, size in clips.values()]
    for row, name in enumerate(clips):
        expected = np.array(literal_seconds(frames[row], segments[row].astype(float), scales)).reshape(-1, 9)
        np.testing.assert_allclose(seconds[row], expected, rtol=2e-3, atol=1e-6, err_msg=name)
        if len(segments[row]):
            np.testing.assert_array_equal(alone[row], seconds[row][:, 5:])
    assert alone.sizes.tolist() == [10, 10, 6, 3, 1, 5, 0, 0]
