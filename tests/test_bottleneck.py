"""Attention bottlenecks: what passes between the modalities, missing modalities, and what is learnt of weak labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import average_precision
from avrepro.features.store import Feature
from avrepro.models.bottleneck import BottleneckConfig, BottleneckNetwork
from avrepro.recipes import Recipe
from avrepro.systems import Checkpoint, CheckpointError, Condition, Data
from avrepro.systems.beyond import Bottleneck, Settings, frames_of
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = BottleneckConfig(
    classes=3, frame_features=6, segment_features=5, frames=4, segments=7,
    width=8, heads=2, hidden=12, layers=3, fusion_layer=1, bottlenecks=2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def grown(config: BottleneckConfig) -> BottleneckNetwork:
    """A network whose learned tokens and positions are no longer next to nothing, as after a training."""
    network = BottleneckNetwork(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("position", "class_token")) or name == "bottleneck":
                parameter.normal_()
    return network


def arguments(clips: int = 3, frames: int = 4, segments: int = 7) -> list[Tensor]:
    return [
        torch.randn(clips, frames, 6),
        torch.ones(clips, frames, dtype=torch.bool),
        torch.randn(clips, segments, 5),
        torch.ones(clips, segments, dtype=torch.bool),
    ]


# --- what passes between the modalities -----------------------------------------------------------------------------


def influence(network: BottleneckNetwork, of: int, on: int) -> float:
    """Largest gradient of one modality's logits (0 video, 1 audio) with respect to the features of one of them."""
    given = arguments()
    features = given[2 * of].requires_grad_()
    logits, _ = network.by_modality(*given)
    (logits[on] ** 2).sum().backward()
    return 0.0 if features.grad is None else float(features.grad.abs().max())


@pytest.mark.parametrize("fusion_layer", [0, 1, 3])
def test_modalities_influence_each_other_from_the_fusion_layer_on(fusion_layer: int) -> None:
    network = grown(replace(TINY, fusion_layer=fusion_layer))
    for own, other in ((0, 1), (1, 0)):
        assert influence(network, own, own) > 1e-4
        assert (influence(network, other, own) > 1e-6) == (fusion_layer < 3)


def test_nothing_passes_but_through_the_bottleneck() -> None:
    """Cut there, by a mask that hides the bottleneck's columns from all other tokens, the modalities are apart."""
    network = grown(TINY)
    for stream, tokens in ((network.frames, 5), (network.segments, 8)):
        for layer in stream.layers:

            def cut(module, given, options, tokens=tokens):
                size = given[0].shape[1]
                hidden = torch.zeros(size, size, dtype=torch.bool)
                hidden[:tokens, tokens:] = True
                return given, {**options, "src_mask": hidden}

            layer.register_forward_pre_hook(cut, with_kwargs=True)
    for own, other in ((0, 1), (1, 0)):
        assert influence(network, own, own) > 1e-4
        assert influence(network, other, own) == 0


def test_a_bottleneck_that_no_layer_reads_is_refused() -> None:
    for fusion_layer in (-1, 2, 4):
        with pytest.raises(ValueError, match=r"fusion_layer: expected 0\.\.1 or 3 of 3 layers"):
            BottleneckNetwork(replace(TINY, fusion_layer=fusion_layer))
    with pytest.raises(ValueError, match=r"at most 7 .* found 8"):
        BottleneckNetwork(TINY)(*arguments(segments=8))


def test_layers_are_those_of_a_clip_by_itself() -> None:
    """Clip by clip, without padding and masks: own tokens and bottleneck through a layer, the two then averaged."""
    network = grown(TINY)
    frames, _, segments, _ = arguments(5)
    sizes = [(4, 7), (2, 7), (3, 1), (4, 0), (0, 5)]  # with one modality alone, the bottleneck is that one's
    masks = [torch.arange(most) < torch.tensor([size[at] for size in sizes])[:, None] for at, most in ((0, 4), (1, 7))]
    found = network(frames, masks[0], segments, masks[1])
    for clip, size in enumerate(sizes):
        own = [
            torch.cat([stream.class_token[None], stream.project(x / stream.scale) + stream.position[: len(x)]])
            for stream, x in ((network.frames, frames[clip, : size[0]]), (network.segments, segments[clip, : size[1]]))
        ]
        shared = network.bottleneck
        for number in range(3):
            outs = []
            for at, stream in enumerate((network.frames, network.segments)):
                tokens = own[at] if number < 1 else torch.cat([own[at], shared])
                out = stream.layers[number](tokens[None])[0]
                outs.append(out[len(own[at]) :])
                own[at] = out[: len(own[at])]
            if number >= 1:
                outs = [out for out, count in zip(outs, size, strict=True) if count]
                shared = sum(outs) / len(outs)
        logits = [network.classify(tokens[0]) for tokens, count in zip(own, size, strict=True) if count]
        torch.testing.assert_close(found[clip], sum(logits) / len(logits), rtol=1e-4, atol=1e-5)


# --- clips ------------------------------------------------------------------------------------------------------------


def test_padding_never_changes_a_score() -> None:
    network = grown(TINY)
    frames, frame_mask, segments, segment_mask = arguments(3, 2, 5)
    wider = [torch.full((3, 4, 6), 1e4), torch.zeros(3, 4, dtype=torch.bool)]
    wider += [torch.full((3, 7, 5), -1e4), torch.zeros(3, 7, dtype=torch.bool)]
    wider[0][:, :2], wider[1][:, :2], wider[2][:, :5], wider[3][:, :5] = frames, frame_mask, segments, segment_mask
    for mode in (torch.enable_grad, torch.inference_mode):  # torch takes another way through its layers
        with mode():
            expected = network(frames, frame_mask, segments, segment_mask)
            torch.testing.assert_close(network(*wider), expected, rtol=1e-4, atol=1e-5)


def test_clips_are_independent_and_frames_ordered_in_time() -> None:
    network, given = grown(TINY), arguments(4)
    given[1][2], given[3][0, 3:] = False, False
    order = torch.tensor([2, 0, 3, 1])
    with torch.inference_mode():
        scores = network(*given)
        torch.testing.assert_close(network(*[one[order] for one in given]), scores[order])
        assert (scores - network(given[0].roll(1, dims=1), *given[1:])).abs().max() > 1e-3


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_clip_without_a_modality_is_scored_by_the_other_alone(lacking: int) -> None:
    network, given = grown(TINY), arguments()
    given[2 * lacking + 1][1] = False
    with torch.inference_mode():
        scores = network(*given)
        logits, present = network.by_modality(*given)
        assert present[lacking].tolist() == [True, False, True] and present[1 - lacking].all()
        torch.testing.assert_close(scores[1], logits[1 - lacking, 1])
        torch.testing.assert_close(scores[[0, 2]], logits[:, [0, 2]].mean(dim=0))
        other = [one.clone() for one in given]
        other[2 * lacking][1] = torch.randn_like(other[2 * lacking][1]) * 50
        torch.testing.assert_close(network(*other), scores)
        network.classify[1].bias.add_(1)  # type: ignore[operator]
        given[2 * (1 - lacking) + 1][1] = False
        assert (network(*given)[1] == 0).all()  # neither


def test_every_parameter_gets_a_finite_gradient() -> None:
    network, given = grown(TINY), arguments(4)
    given[1][0], given[3][1] = False, False
    (network(*given) ** 2).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


# --- the system -------------------------------------------------------------------------------------------------------


class Planted(Bottleneck):
    """A region of some frame is red, a segment is a horn, or both; each is one of many, and in step by chance alone."""

    def __init__(self, rows: dict[str, dict[str, np.ndarray]]) -> None:
        super().__init__("beyond/planted", "", "")
        self.rows = rows

    def features(self, condition: Condition) -> dict[str, Feature]:
        def feature(name: str, stream: str, nothing: np.ndarray) -> Feature:
            def read(clip: Clip) -> np.ndarray:
                return self.rows[name][clip.id]

            return Feature(Recipe(name, 1), stream, read, lambda array: array, lambda: nothing)  # type: ignore[arg-type]

        return {
            "proposals": feature("proposals", "video", np.zeros((0, 3, 5), np.float32)),
            "regions": feature("regions", "video", np.zeros((0, 6), np.float16)),
            "segments": feature("segments", "audio", np.zeros((0, 5), np.float16)),
        }


def planted(clips: int, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> tuple[Planted, Data]:
    rng = np.random.default_rng(0)
    rows: dict[str, dict[str, np.ndarray]] = {"proposals": {}, "regions": {}, "segments": {}}
    made = []
    for number in range(clips):
        horn, red = rng.random(2) < 0.5
        per_frame = rng.integers(1, 4, 4)
        boxes = np.full((4, 3, 5), np.nan, np.float32)
        for frame, count in enumerate(per_frame):
            boxes[frame, :count] = 0.5
        regions = rng.normal(size=(per_frame.sum(), 6)).astype(np.float16)
        segments = rng.normal(size=(7, 5)).astype(np.float16)
        if red:
            regions[rng.integers(len(regions)), 2] += 7
        if horn:
            segments[rng.integers(7), 3] += 7
        present = {"horn": horn, "red": red, "both": horn and red}
        labels = tuple(name for name, holds in present.items() if holds)
        split = ("train", "train", "train", "validation", "test")[number % 5]
        made.append(Clip(f"{number}", Path(), split, labels))
        for name, array in (("proposals", boxes), ("regions", regions), ("segments", segments)):
            rows[name][f"{number}"] = array
    monkeypatch.setattr(Bottleneck, "profiles", {"ci": settings})
    corpus = Corpus("planted", ("horn", "red", "both"), tuple(made), (), "d")
    condition = Condition("planted", "ci", device="cpu")
    return Planted(rows), Data(corpus, condition, torch.device("cpu"), fresh=True)


BRIEF = Optimisation("adam", learning_rate=1e-2, batch=12, epochs=2, steps=3, clip_norm=1.0)
SMALL = Settings(replace(TINY, width=16, hidden=32, dropout=0.1), BRIEF, strengths=())


@pytest.mark.parametrize("delay", [0, 1, 3, 5])
def test_a_frame_is_the_maximum_over_its_regions(delay: int) -> None:
    rng = np.random.default_rng(0)
    boxes = np.full((4, 3, 5), np.nan)
    for frame, count in enumerate((3, 1, 2, 3)):
        boxes[frame, :count] = 0.5
    regions = rng.normal(size=(9, 6))
    found, rest = frames_of(regions, boxes, delay), iter(regions)
    for frame, count in enumerate((3, 1, 2, 3)):
        of_frame = [next(rest) for _ in range(count)]
        np.testing.assert_array_equal(
            found[(frame + delay) % 4], [max(column) for column in zip(*of_frame, strict=True)]
        )
    assert frames_of(np.zeros((0, 6)), np.zeros((0, 3, 5)), delay).shape == (0, 6)


def test_weak_labels_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """About half of the clips have each label, a quarter both; without sound, horns are a guess."""
    long = replace(SMALL, optimisation=replace(SMALL.optimisation, steps=40, epochs=6))
    system, data = planted(300, long, monkeypatch)
    checkpoint = system.fit(data, {}, 0, tmp_path / "state.partial")
    assert checkpoint.parameters == sum(one.numel() for name, one in checkpoint.state.items() if "scale" not in name)
    scores = {how: system.scores(checkpoint, data.with_impairment(how), {}) for how in ("", "silent", "black")}
    test, truth = data.rows("test"), data.targets
    quality = {how: average_precision(truth[test], found[test]) for how, found in scores.items()}
    assert (quality[""] > 0.85).all()
    assert quality["silent"][0] < 0.75 and quality["silent"][1] > 0.85
    assert quality["black"][1] < 0.75 and quality["black"][0] > 0.85


def test_impaired_clips_are_scored_as_clips_that_never_had_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, data = planted(40, SMALL, monkeypatch)
    checkpoint = system.fit(data, {}, 0, tmp_path / "state.partial")
    whole = system.scores(checkpoint, data, {})
    for how, names in (("silent", ["segments"]), ("black", ["proposals", "regions"])):
        impaired = system.scores(checkpoint, data.with_impairment(how), {})
        assert np.abs(impaired - whole).max() > 1e-4
        lacking = Planted(
            system.rows | {name: {id: array[:0] for id, array in system.rows[name].items()} for name in names}
        )
        np.testing.assert_allclose(lacking.scores(checkpoint, data, {}), impaired, atol=1e-6)
    late = system.scores(checkpoint, data.with_impairment("delay 1 s"), {})
    assert np.abs(late - whole).max() > 1e-5
    np.testing.assert_allclose(system.scores(checkpoint, data.with_impairment("delay 4 s"), {}), whole, atol=1e-6)
    other = Checkpoint(checkpoint.state, checkpoint.numbers | {"features": {}})
    with pytest.raises(CheckpointError, match="other features"):
        system.scores(other, data, {})
