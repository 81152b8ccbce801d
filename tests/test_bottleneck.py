"""Attention bottlenecks: what passes between sound and pictures, what is left out, what is learnt and kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from avrepro.corpora.base import Clip, Corpus
from avrepro.evaluation import average_precision
from avrepro.experiments import bottleneck
from avrepro.experiments.bottleneck import PROFILES, Profile, Tokens, scores_with, train_bottleneck
from avrepro.experiments.parekh2018 import Inputs
from avrepro.models.bottleneck import BottleneckConfig, BottleneckNetwork
from avrepro.models.parekh2018 import Bags
from avrepro.parameters import UnsynchronizedMIL

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
TINY = BottleneckConfig(
    classes=3, frame_features=6, segment_features=5, frames=4, segments=7,
    width=8, heads=2, hidden=12, layers=3, fusion_layer=1, bottlenecks=2,
)  # fmt: skip
SHORT = Profile(replace(TINY, width=16, hidden=32, dropout=0.1), 1e-2, clip_norm=1.0, batch=12, steps=3, epochs=2)
CLASSES = ("horn", "red", "both")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(PROFILES, "ci", SHORT)
    return tmp_path / "home"


def grown(config: BottleneckConfig) -> BottleneckNetwork:
    """A network whose learned tokens and positions are no longer next to nothing, as after a training."""
    network = BottleneckNetwork(config).eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("position", "class_token")) or name == "bottleneck":
                parameter.normal_()
    return network


def given(clips: int = 3, frames: int = 4, segments: int = 7) -> list[Tensor]:
    return [
        torch.randn(clips, frames, 6),
        torch.ones(clips, frames, dtype=torch.bool),
        torch.randn(clips, segments, 5),
        torch.ones(clips, segments, dtype=torch.bool),
    ]


# --- what passes between the modalities -------------------------------------------------------------------


def influence(network: BottleneckNetwork, of: int, on: int) -> float:
    """Largest gradient of one modality's logits (0 pictures, 1 sound) with respect to the features of one of them."""
    arguments = given()
    features = arguments[2 * of].requires_grad_()
    logits, _ = network.by_modality(*arguments)
    (logits[on] ** 2).sum().backward()
    return 0.0 if features.grad is None else float(features.grad.abs().max())


@pytest.mark.parametrize("fusion_layer", [0, 1, 3])
def test_modalities_tell_each_other_something_from_the_fusion_layer_on(fusion_layer: int) -> None:
    network = grown(replace(TINY, fusion_layer=fusion_layer))
    for own, other in ((0, 1), (1, 0)):
        assert influence(network, own, own) > 1e-4
        assert (influence(network, other, own) > 1e-6) == (fusion_layer < 3)


def test_nothing_passes_but_through_the_bottleneck() -> None:
    """Cut there, by a mask that hides the bottleneck's columns from all other tokens, sound and pictures are apart."""
    network = grown(TINY)
    for stream, tokens in ((network.frames, 5), (network.segments, 8)):
        for layer in stream.layers:

            def cut(module, arguments, options, tokens=tokens):
                size = arguments[0].shape[1]
                hidden = torch.zeros(size, size, dtype=torch.bool)
                hidden[:tokens, tokens:] = True
                return arguments, {**options, "src_mask": hidden}

            layer.register_forward_pre_hook(cut, with_kwargs=True)
    for own, other in ((0, 1), (1, 0)):
        assert influence(network, own, own) > 1e-4
        assert influence(network, other, own) == 0


def test_a_bottleneck_that_nobody_reads_is_refused() -> None:
    for fusion_layer in (-1, 2, 4):
        with pytest.raises(ValueError, match=r"fusion_layer: expected 0\.\.1 or 3 of 3 layers"):
            BottleneckNetwork(replace(TINY, fusion_layer=fusion_layer))


def test_layers_are_those_of_a_clip_by_itself() -> None:
    """Clip by clip, without padding and masks: own tokens and bottleneck through a layer, the two then averaged."""
    network = grown(TINY)
    frames, _, segments, _ = given(5)
    sizes = [(4, 7), (2, 7), (3, 1), (4, 0), (0, 5)]  # with one modality alone, the bottleneck is that one's
    masks = [torch.arange(most) < torch.tensor([size[at] for size in sizes])[:, None] for at, most in ((0, 4), (1, 7))]
    found = network(frames, masks[0], segments, masks[1])
    for clip, (seen, heard) in enumerate(sizes):
        own = [
            torch.cat([stream.class_token[None], stream.project(x / stream.scale) + stream.position[: len(x)]])
            for stream, x in ((network.frames, frames[clip, :seen]), (network.segments, segments[clip, :heard]))
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
                outs = [out for out, size in zip(outs, (seen, heard), strict=True) if size]
                shared = sum(outs) / len(outs)
        said = [network.classify(tokens[0]) for tokens, size in zip(own, (seen, heard), strict=True) if size]
        expected = sum(said) / len(said)
        torch.testing.assert_close(found[clip], expected, rtol=1e-4, atol=1e-5)


# --- clips --------------------------------------------------------------------------------------------------


def test_padding_never_changes_a_score() -> None:
    network = grown(TINY)
    frames, frame_mask, segments, segment_mask = given(3, 2, 5)
    wider = [torch.full((3, 4, 6), 1e4), torch.zeros(3, 4, dtype=torch.bool)]
    wider += [torch.full((3, 7, 5), -1e4), torch.zeros(3, 7, dtype=torch.bool)]
    wider[0][:, :2], wider[1][:, :2], wider[2][:, :5], wider[3][:, :5] = frames, frame_mask, segments, segment_mask
    for mode in (torch.enable_grad, torch.inference_mode):  # torch takes another way through its layers
        with mode():
            expected = network(frames, frame_mask, segments, segment_mask)
            torch.testing.assert_close(network(*wider), expected, rtol=1e-4, atol=1e-5)


def test_clips_do_not_know_of_each_other() -> None:
    network, arguments = grown(TINY), given(4)
    arguments[1][2], arguments[3][0, 3:] = False, False
    order = torch.tensor([2, 0, 3, 1])
    with torch.inference_mode():
        torch.testing.assert_close(network(*[one[order] for one in arguments]), network(*arguments)[order])


def test_order_in_time_is_known() -> None:
    network, arguments = grown(TINY), given()
    rolled = [arguments[0].roll(1, dims=1), *arguments[1:]]
    assert (network(*arguments) - network(*rolled)).abs().max() > 1e-3


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_missing_modality_has_no_say(lacking: int) -> None:
    """Whatever is in its place, the clip is scored by the other alone, and the clips beside it by both."""
    network, arguments = grown(TINY), given()
    arguments[2 * lacking + 1][1] = False
    with torch.inference_mode():
        scores = network(*arguments)
        logits, present = network.by_modality(*arguments)
        assert present[lacking].tolist() == [True, False, True] and present[1 - lacking].all()
        torch.testing.assert_close(scores[1], logits[1 - lacking, 1])
        torch.testing.assert_close(scores[[0, 2]], logits[:, [0, 2]].mean(dim=0))
        other = [one.clone() for one in arguments]
        other[2 * lacking][1] = torch.randn_like(other[2 * lacking][1]) * 50
        torch.testing.assert_close(network(*other), scores)
        network.classify[1].bias.add_(1)  # type: ignore[operator]
        arguments[2 * (1 - lacking) + 1][1] = False
        assert (network(*arguments)[1] == 0).all()  # neither


def test_every_parameter_gets_a_finite_gradient() -> None:
    network, arguments = grown(TINY), given(4)
    arguments[1][0], arguments[3][1] = False, False
    (network(*arguments) ** 2).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_more_tokens_than_positions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 7 .* found 8"):
        BottleneckNetwork(TINY)(*given(segments=8))


# --- training -----------------------------------------------------------------------------------------------


def planted(clips: int = 150, seed: int = 0) -> Inputs:
    """A region of some frame is red, a segment is a horn, or both; each is one of many, and in step by chance alone."""
    rng = np.random.default_rng(seed)
    rows, boxes, regions, segments = [], [], [], []
    for number in range(clips):
        horn, red = rng.random(2) < 0.5
        per_frame = rng.integers(1, 4, 4)
        box = np.full((4, 3, 5), np.nan, np.float32)
        for frame, count in enumerate(per_frame):
            box[frame, :count] = 0.5
        seen = rng.normal(size=(per_frame.sum(), 6)).astype(np.float16)
        heard = rng.normal(size=(7, 5)).astype(np.float16)
        if red:
            seen[rng.integers(len(seen)), 2] += 7
        if horn:
            heard[rng.integers(7), 3] += 7
        labels = tuple(name for name, holds in zip(CLASSES, (horn, red, horn and red), strict=True) if holds)
        split = ("train", "train", "train", "validation", "test")[number % 5]
        rows.append(Clip(f"{number}", Path(f"{number}.mp4"), split, labels))
        boxes.append(box)
        regions.append(seen)
        segments.append(heard)
    corpus = Corpus("planted", CLASSES, tuple(rows), (), "d")
    parameters = UnsynchronizedMIL(profile="ci", device="cpu")
    bags = Bags.of(regions), Bags.of(segments)
    return Inputs(parameters, corpus, tuple(boxes), *bags, "made up", "made up", "made up", 0.0)


def test_a_frame_is_the_maximum_over_its_regions() -> None:
    inputs = planted(10)
    inputs = replace(
        inputs,
        boxes=(None, *inputs.boxes[1:]),
        regions=Bags.of([inputs.regions.arrays[0][:0], *[inputs.regions.arrays[row] for row in range(1, 10)]]),
    )
    for delay in (0, 1, 3, 5):
        frames = Tokens.of(inputs, delay).frames
        assert frames.sizes.tolist() == [0] + [4] * 9
        for row in range(1, 10):
            regions = iter(inputs.regions.arrays[row])
            expected = []
            for box in inputs.boxes[row]:  # type: ignore[union-attr]
                mine = [next(regions) for one in box if not np.isnan(one[4])]
                expected.append([max(column) for column in zip(*mine, strict=True)])
            for at, values in enumerate(expected):
                np.testing.assert_array_equal(frames.arrays[row][(at + delay) % 4], values)


def test_what_is_seen_and_heard_is_learnt_from_weak_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """About half of the clips have each label, a quarter both; without sound, horns are a guess."""
    monkeypatch.setitem(PROFILES, "ci", replace(SHORT, steps=40, epochs=6))
    inputs = planted(300)
    trained = train_bottleneck(inputs, 0, CPU)
    assert trained.scores.shape == (300, 3) and trained.scores.dtype == np.float32 and trained.seconds > 0
    test, truth = inputs.rows("test"), inputs.corpus.targets()
    assert (average_precision(truth[test], trained.scores[test]) > 0.85).all()
    silent = average_precision(truth[test], scores_with(inputs, trained.network, silent=True)[test])
    black = average_precision(truth[test], scores_with(inputs, trained.network, black=True)[test])
    assert silent[0] < 0.75 and silent[1] > 0.85 and black[1] < 0.75 and black[0] > 0.85


def test_clips_that_lack_something_are_scored_like_clips_that_never_had_it() -> None:
    inputs = planted(40)
    trained = train_bottleneck(inputs, 0, CPU)
    np.testing.assert_allclose(scores_with(inputs, trained.network), trained.scores, atol=1e-6)
    without_sound = replace(inputs, segments=Bags.of([np.zeros((0, 5), np.float16)] * 40))
    without_pictures = replace(inputs, boxes=(None,) * 40, regions=Bags.of([np.zeros((0, 6), np.float16)] * 40))
    for less, options in ((without_sound, {"silent": True}), (without_pictures, {"black": True})):
        found = scores_with(inputs, trained.network, **options)
        np.testing.assert_allclose(found, scores_with(less, trained.network), atol=1e-6)
        assert np.abs(found - trained.scores).max() > 1e-4
    assert (scores_with(inputs, trained.network, silent=True, black=True) == 0.5).all()

    later = scores_with(inputs, trained.network, delay=1.0)
    assert np.abs(later - trained.scores).max() > 1e-5
    np.testing.assert_allclose(scores_with(inputs, trained.network, delay=4), trained.scores, atol=1e-6)  # all round
    with pytest.raises(ValueError, match=r"whole seconds.* found 0\.5"):
        scores_with(inputs, trained.network, delay=0.5)


def test_the_same_training_is_found_again(home: Path) -> None:
    inputs = planted(40)
    first = train_bottleneck(inputs, 0, CPU)
    before = first.path.stat().st_mtime_ns
    again = train_bottleneck(inputs, 0, CPU)
    assert again.path == first.path and first.path.stat().st_mtime_ns == before
    assert (again.seconds, again.parameters, again.best_epoch) == (first.seconds, first.parameters, first.best_epoch)
    np.testing.assert_array_equal(again.scores, first.scores)
    assert [path.name for path in (home / "models").iterdir()] == [first.path.name]
    first.path.unlink()
    np.testing.assert_array_equal(train_bottleneck(inputs, 0, CPU).scores, first.scores)


def test_other_labels_splits_seeds_and_settings_are_other_trainings(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = planted(40)
    clips = inputs.corpus.clips

    def changed(row: int, **values: object) -> Inputs:
        corpus = replace(inputs.corpus, clips=(*clips[:row], replace(clips[row], **values), *clips[row + 1 :]))  # type: ignore[arg-type]
        return replace(inputs, corpus=corpus)

    def flipped(row: int) -> tuple[str, ...]:
        return tuple(name for name in CLASSES if name not in clips[row].labels)

    first = train_bottleneck(inputs, 0, CPU)
    others = [
        train_bottleneck(changed(0, labels=flipped(0)), 0, CPU),  # a training clip
        train_bottleneck(changed(3, labels=flipped(3)), 0, CPU),  # a validation clip
        train_bottleneck(changed(1, split="left out"), 0, CPU),
        train_bottleneck(inputs, 1, CPU),
    ]
    assert train_bottleneck(changed(4, labels=flipped(4)), 0, CPU).path == first.path  # a test clip
    monkeypatch.setitem(PROFILES, "ci", replace(SHORT, steps=2))
    others.append(train_bottleneck(inputs, 0, CPU))
    assert len({one.path for one in (first, *others)}) == 6
    for other in (others[0], *others[2:]):
        assert np.abs(other.scores - first.scores).max() > 1e-6


def test_parameters_are_counted() -> None:
    """By hand, of what a class says: a layer has attention (4 maps), a perceptron and two norms."""
    trained = train_bottleneck(planted(40), 0, CPU)
    width, hidden, classes = 16, 32, 3
    layer = 4 * (width * width + width) + 2 * width * hidden + hidden + width + 4 * width
    streams = [(features + 1) * width + (places + 1) * width + 3 * layer for features, places in ((6, 4), (5, 7))]
    assert trained.parameters == sum(streams) + 2 * width + 2 * width + (width + 1) * classes


def test_a_training_needs_clips_and_a_profile() -> None:
    inputs = planted(10)
    nobody = tuple(replace(clip, split="test") for clip in inputs.corpus.clips)
    with pytest.raises(ValueError, match=r"planted: expected clips to train on .* found 0 and 0"):
        train_bottleneck(replace(inputs, corpus=replace(inputs.corpus, clips=nobody)), 0, CPU)
    large = replace(inputs, parameters=UnsynchronizedMIL(profile="paper", device="cpu"))
    with pytest.raises(ValueError, match="expected profile ci or demo, found 'paper'"):
        train_bottleneck(large, 0, CPU)


def test_the_demo_profile_fits_the_demo_worlds_clips() -> None:
    network = BottleneckNetwork(bottleneck.PROFILES["demo"].network).eval()
    config = network.config
    whole = [torch.randn(2, 10, config.frame_features), torch.ones(2, 10)]
    whole += [torch.randn(2, 20, config.segment_features), torch.ones(2, 20)]
    assert network(*whole).shape == (2, 17)
