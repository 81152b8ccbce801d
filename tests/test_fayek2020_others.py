"""The other systems of Table 3 of Fayek and Kumar (2020): their networks, gradient blending, and what they learn."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from fayek2020_data import made_up_data
from torch import nn
from torchvision.models.video import r2plus1d_18
from torchvision.models.video.resnet import Bottleneck, Conv2Plus1D, R2Plus1dStem, VideoResNet

from avrepro.conditions import Condition
from avrepro.evaluation import roc_auc
from avrepro.models.fayek2020_others import (
    JointAudioVisual,
    Losses,
    ResidualAudio,
    ResidualAudioConfig,
    VideoR2Plus1D,
    VideoR2Plus1DConfig,
    blended_loss,
    blending_weights,
)
from avrepro.systems import SYSTEMS, Data, fayek2020_others
from avrepro.systems.fayek2020_others import PROFILES
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

AUDIO = ResidualAudioConfig(classes=3, mels=16, block="basic", layers=(1, 1, 1, 1), channels=(4, 4, 8, 8))
VIDEO = VideoR2Plus1DConfig(classes=3, block="basic", layers=(1, 1), channels=(8, 16))
FAST = Optimisation("adam", 1e-2, batch=8, epochs=8)
TINY = {
    "audio": AUDIO, "audio_optimisation": FAST, "video": VIDEO, "video_optimisation": FAST, "hidden": 16,
    "measured": 3, "blend_optimisation": FAST,
}  # fmt: skip
NAMES = ("fayek2020/resnet_audio", "fayek2020/r2plus1d_visual", "fayek2020/gblend")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# --- the networks -----------------------------------------------------------------------------------------


def test_the_audio_network_is_resnet_50_of_one_channel() -> None:
    expected = timm.create_model("resnet50", in_chans=1, num_classes=5).eval()
    model = ResidualAudio(ResidualAudioConfig(classes=5)).eval()
    model.network.load_state_dict(expected.state_dict())
    log_mel = torch.randn(2, 100, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(log_mel), expected(log_mel[:, None]))
        torch.testing.assert_close(model.classify(model.features(log_mel)), model(log_mel))
    assert model.width == 2048


def test_strided_frames_are_means() -> None:
    model = ResidualAudio(replace(AUDIO, stride=4)).eval()
    plain = ResidualAudio(AUDIO).eval()
    model.mean.normal_()
    model.deviation.uniform_(1, 3)
    plain.load_state_dict(model.state_dict())
    log_mel = torch.randn(2, 160, 16)
    with torch.inference_mode():
        means = torch.stack([log_mel[:, start : start + 4].mean(dim=1) for start in range(0, 160, 4)], dim=1)
        torch.testing.assert_close(model(log_mel), plain(means))


def test_the_video_network_is_torchvisions_at_its_widths() -> None:
    expected = r2plus1d_18(weights=None, num_classes=5).eval()
    model = VideoR2Plus1D(VideoR2Plus1DConfig(classes=5, block="basic", layers=(2, 2, 2, 2))).eval()
    own = model.state_dict()
    names = [name for name in own if name not in ("mean", "deviation")]
    learnt = dict(zip(names, expected.state_dict().values(), strict=True))
    model.load_state_dict({**learnt, "mean": torch.zeros(3), "deviation": torch.ones(3)})
    frames = torch.randint(0, 256, (2, 8, 32, 40, 3), dtype=torch.uint8)
    with torch.inference_mode():
        found = model(frames)
        torch.testing.assert_close(found, expected(frames.float().permute(0, 4, 1, 2, 3) / 255))
        torch.testing.assert_close(model(frames.float()), found)


def test_the_deepest_video_network_has_101_layers() -> None:
    """Sizes alone: R(2+1)D-101 has as many blocks as ResNet-101, 3 + 4 + 23 + 3, of three convolutions each."""
    with torch.device("meta"):
        model = VideoR2Plus1D(VideoR2Plus1DConfig())
        expected = VideoResNet(Bottleneck, [Conv2Plus1D] * 4, [3, 4, 23, 3], R2Plus1dStem, num_classes=527)
    assert [one.shape for one in model.parameters()] == [one.shape for one in expected.parameters()]
    assert 1 + 3 * len(model.blocks) + 1 == 101


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_take_ten_seconds(name: str) -> None:
    profile = PROFILES[name]
    with torch.device("meta"):
        model = JointAudioVisual(profile.audio, profile.video, profile.hidden)
        frames = torch.empty(2, profile.video_frames, *profile.video_size, 3)
        logits = model(torch.empty(2, 1000 // profile.audio_pooled, 64), frames)
    assert {head: one.shape for head, one in logits.items()} == dict.fromkeys(("audio", "visual", "joint"), (2, 527))


def test_frames_beyond_the_end_of_a_short_clip_count_as_the_mean() -> None:
    model = ResidualAudio(AUDIO).eval()
    padded, log_mel = torch.randn(4, 100, 16), torch.randn(4, 100, 16) * 3 - 7
    padded[:, 60:] = -torch.inf
    model.prepare(padded, torch.eye(3)[[0, 1, 2, 0]])
    torch.testing.assert_close(model.mean, padded[:, :60].mean(dim=(0, 1)))
    torch.testing.assert_close(model.deviation, padded[:, :60].std(dim=(0, 1)))
    with torch.inference_mode():
        filled = torch.where(padded > -torch.inf, padded, model.mean)
        torch.testing.assert_close(model.features(padded), model.features(filled))
        assert model(torch.full_like(log_mel, -torch.inf)).isfinite().all()


def test_colours_and_bands_are_scaled_as_in_training() -> None:
    scale, offset = torch.rand(16) * 20 + 1, torch.randn(16) * 50
    log_mel = torch.randn(30, 40, 16) * scale + offset
    frames = torch.randint(0, 256, (30, 4, 8, 8, 3)) // torch.tensor([1, 2, 4]) + torch.tensor([0, 10, 20])
    labels = torch.tensor([[1, 0, 0], [1, 1, 0]] * 15)
    model = JointAudioVisual(AUDIO, VIDEO, 8).eval()
    model.prepare(log_mel, frames, labels)
    torch.testing.assert_close(model.audio.mean, offset, rtol=0.05, atol=2.0)
    torch.testing.assert_close(model.audio.deviation, scale, rtol=0.1, atol=0)
    colours = frames.reshape(-1, 3).numpy() / 255
    np.testing.assert_allclose(model.visual.mean, colours.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.visual.deviation, colours.std(axis=0), rtol=1e-3)
    with torch.inference_mode():  # every head begins with how common a class is; none at all counts as 1 in 1000
        for logits in model(log_mel[:2], frames[:2]).values():
            torch.testing.assert_close(torch.sigmoid(logits), torch.tensor([[0.999, 0.5, 0.001]]).expand(2, 3))


def test_losses_reach_their_own_trunk_and_no_other() -> None:
    reached = {}
    log_mel, frames, labels = torch.randn(4, 64, 16), torch.rand(4, 6, 16, 24, 3) * 255, torch.eye(3)[[0, 1, 2, 0]]
    for head in ("audio", "visual", "joint"):
        model = JointAudioVisual(AUDIO, VIDEO, 8)
        weights = {one: float(one == head) for one in ("audio", "visual", "joint")}
        blended_loss(model(log_mel, frames), labels, weights).backward()
        parts = {
            "trunk of audio": [*model.audio.network.layer1.parameters(), *model.audio.network.layer4.parameters()],
            "head of audio": list(model.audio.classify.parameters()),
            "trunk of visual": [*model.visual.stem.parameters(), *model.visual.blocks.parameters()],
            "head of visual": list(model.visual.classify.parameters()),
            "head of both": [*model.joint.parameters(), *model.classify.parameters()],
        }
        reached[head] = {
            name
            for name, part in parts.items()
            if any(one.grad is not None and one.grad.abs().sum() > 0 for one in part)
        }
    assert reached == {
        "audio": {"trunk of audio", "head of audio"},
        "visual": {"trunk of visual", "head of visual"},
        "joint": {"trunk of audio", "trunk of visual", "head of both"},
    }


def test_every_parameter_gets_a_gradient_of_all_heads() -> None:
    model = JointAudioVisual(AUDIO, VIDEO, 8)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)  # timm's residual branches begin at 0, and nothing passes through
    logits = model(torch.randn(4, 64, 16), torch.rand(4, 6, 16, 24, 3) * 255)
    blended_loss(logits, torch.eye(3)[[0, 1, 2, 0]], dict.fromkeys(logits, 1 / 3)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_head_alone_gives_what_it_gives_among_others() -> None:
    model = JointAudioVisual(AUDIO, VIDEO, 8).eval()
    inputs = torch.randn(2, 64, 16), torch.rand(2, 6, 16, 24, 3) * 255
    with torch.inference_mode():
        for head, logits in model(*inputs).items():
            alone = model(*inputs, (head,))
            assert alone.keys() == {head}
            torch.testing.assert_close(alone[head], logits)


# --- gradient blending ------------------------------------------------------------------------------------


def test_blending_weights_by_hand() -> None:
    """G / O^2: audio (.7 - .5) / (.1 - 0)^2 = 20, visual (.65 - .55) / (.25 - .05)^2 = 2.5, joint .3 / .2^2 = 7.5."""
    start = {"audio": Losses(0.7, 0.7), "visual": Losses(0.6, 0.65), "joint": Losses(0.8, 0.8)}
    end = {"audio": Losses(0.4, 0.5), "visual": Losses(0.3, 0.55), "joint": Losses(0.3, 0.5)}
    found = blending_weights(start, end)
    assert found == pytest.approx({"audio": 20 / 30, "visual": 2.5 / 30, "joint": 7.5 / 30})


def test_blending_weights_where_the_formula_leaves_them_open() -> None:
    start = dict.fromkeys(("audio", "visual", "joint"), Losses(1.0, 1.0))

    def weights(**end: tuple[float, float]) -> dict[str, float]:
        return blending_weights(start, {head: Losses(*of) for head, of in end.items()})

    # visual is worse on other clips than before: a hundredth of the largest weight, not one below zero
    found = weights(audio=(0.7, 0.8), visual=(0.2, 1.5), joint=(0.6, 0.8))  # G / O^2 = 20, none, 5
    total = 20 + 5 + Fraction(20, 100)
    assert found == pytest.approx({"audio": 20 / total, "visual": 0.2 / total, "joint": 5 / total})
    # audio has no gap at all: it counts as a tenth of the largest
    found = weights(audio=(0.8, 0.8), visual=(0.4, 0.8), joint=(0.6, 0.8))  # O = 0 -> .04, .4, .2
    shares = {"audio": 0.2 / 0.04**2, "visual": 0.2 / 0.4**2, "joint": 0.2 / 0.2**2}
    assert found == pytest.approx({head: share / sum(shares.values()) for head, share in shares.items()})
    # no gap anywhere: what is learnt decides
    found = weights(audio=(0.8, 0.8), visual=(0.5, 0.5), joint=(0.5, 0.5))
    assert found == pytest.approx({"audio": 0.2 / 1.2, "visual": 0.5 / 1.2, "joint": 0.5 / 1.2})
    # nothing is learnt anywhere
    assert weights(audio=(0.8, 1.0), visual=(0.5, 1.5), joint=(1, 1)) == pytest.approx(dict.fromkeys(start, 1 / 3))
    with pytest.raises(ValueError, match="same heads"):
        weights(audio=(0.8, 0.8))
    with pytest.raises(ValueError, match="visual: expected finite"):
        weights(audio=(0.8, 0.8), visual=(0.5, float("nan")), joint=(1, 1))


# --- what they learn --------------------------------------------------------------------------------------


def sound(low: bool, rng: np.random.Generator) -> np.ndarray:
    """Noise, float16 [64, 16]; a burst in low bands where the label is there, one in high bands by chance."""
    log_mel = rng.normal(-5, 1, (64, 16))
    for band, here in ((3, low), (9, rng.random() < 0.5)):
        if here:
            at = rng.integers(0, 40)
            log_mel[at : at + 24, band : band + 2] += 3
    return log_mel.astype(np.float16)


def sight(leftwards: bool, rng: np.random.Generator) -> np.ndarray:
    """A light square that goes left or right, from anywhere and round the edge, uint8 [6, 16, 24, 3].

    Any one frame of it, and any set of frames without their order, is as likely in either direction.
    """
    frames = rng.integers(0, 40, (6, 16, 24, 3), dtype=np.uint8)
    at, row = rng.integers(0, 24), rng.integers(0, 10)
    for frame in frames:
        frame[row : row + 6, (at + np.arange(6)) % 24] = 200
        at += -3 if leftwards else 3
    return frames


@pytest.fixture(scope="module")
def toy() -> Data:
    """160 clips whose sound tells the first label, whose frames' order the second; the third is of none."""
    return toy_of(160)


def toy_of(count: int, **options: object) -> Data:
    condition, rng = Condition("made-up", "ci", options=tuple((TINY | options).items())), np.random.default_rng(5)
    labels = rng.random((count, 3)) < [0.5, 0.5, 0]
    splits = [("train", "train", "train", "validation", "test")[number % 5] for number in range(count)]
    features = SYSTEMS["fayek2020/gblend"].features(condition)
    arrays = [
        (features["audio"], [sound(bool(one[0]), rng) for one in labels], None),
        (features["video"], [sight(bool(one[1]), rng) for one in labels], None),
    ]
    return made_up_data(condition, labels, splits, arrays)


def areas(data: Data, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve among test clips, of the first two classes; a half is chance."""
    return roc_auc(data.targets[data.rows("test")], scores[data.rows("test")])[:2]


def test_sounds_are_learnt(toy: Data, tmp_path: Path) -> None:
    system = SYSTEMS["fayek2020/resnet_audio"]
    trained = system.fit(toy, {}, 0, tmp_path / "x.partial")
    scores = system.scores(trained, toy, {})
    assert scores.shape == (160, 3) and scores.dtype == np.float32 and trained.seconds > 0
    assert trained.parameters == sum(one.numel() for one in ResidualAudio(AUDIO).parameters())
    low, leftwards = areas(toy, scores)
    assert low > 0.9 and leftwards < 0.75  # the second cannot be told from sound
    assert scores[:, 2].max() < 0.1


def test_the_way_that_something_moves_is_learnt(toy: Data, tmp_path: Path) -> None:
    """Only the order of frames tells; played backwards, clips are taken for the other kind."""
    system = SYSTEMS["fayek2020/r2plus1d_visual"]
    trained = system.fit(toy, {}, 0, tmp_path / "x.partial")
    scores = system.scores(trained, toy, {})
    low, leftwards = areas(toy, scores)
    assert leftwards > 0.9 and low < 0.75
    model = VideoR2Plus1D(VIDEO).eval()
    model.load_state_dict(trained.state)
    frames = toy.arrays(system.features(toy.condition)["video"])[:]
    with torch.inference_mode():
        played, backwards = (
            torch.sigmoid(model(torch.from_numpy(given.copy()))).numpy() for given in (frames, frames[:, ::-1])
        )
    np.testing.assert_allclose(played, scores, atol=1e-5)
    assert areas(toy, backwards)[1] < 0.1


def test_blending_learns_of_both(toy: Data, tmp_path: Path) -> None:
    system = SYSTEMS["fayek2020/gblend"]
    trained = system.fit(toy, {}, 0, tmp_path / "x.partial")
    weights, scores = trained.numbers["weights"], system.scores(trained, toy, {})
    assert weights.keys() == {"audio", "visual", "joint"} and all(one > 0 for one in weights.values())
    assert sum(weights.values()) == pytest.approx(1)
    assert areas(toy, scores).min() > 0.9
    model = JointAudioVisual(AUDIO, VIDEO, 16).eval()
    model.load_state_dict(trained.state)
    features = system.features(toy.condition)
    log_mel, frames = (torch.from_numpy(toy.arrays(features[name])[:]).float() for name in ("audio", "video"))
    with torch.inference_mode():
        logits = model(log_mel, frames)
    np.testing.assert_allclose(torch.sigmoid(logits["joint"]), scores, atol=1e-5)
    low, leftwards = areas(toy, logits["audio"].numpy())
    assert low > 0.9 and leftwards < 0.75
    assert not [*tmp_path.glob("x.*.partial")]


@pytest.mark.parametrize("killed_after", [3, 8, 15])
def test_a_killed_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int) -> None:
    """Blending judges twice at the start, of each head twice among and twice after 2 epochs, then twice the network.

    So these kills are in the second epoch of the first head, after the last of the second, in the second of all.
    """
    few, judged = toy_of(50, measured=2, blend_optimisation=replace(FAST, epochs=2)), []
    system, average_precision = SYSTEMS["fayek2020/gblend"], fayek2020_others.mean_ap

    def counting(labels: np.ndarray, scores: np.ndarray) -> float:
        judged.append(0)
        if len(judged) == killed_after + 1:
            raise KeyboardInterrupt
        return average_precision(labels, scores)

    monkeypatch.setattr(fayek2020_others, "mean_ap", counting)
    with pytest.raises(KeyboardInterrupt):
        system.fit(few, {}, 0, tmp_path / "x.partial")
    assert [*tmp_path.iterdir()]
    before = len(judged)
    resumed = system.fit(few, {}, 0, tmp_path / "x.partial")
    assert len(judged) - before < 2 + 3 * 4 + 2  # epochs that were saved are not run again
    whole = system.fit(few, {}, 0, tmp_path / "other.partial")
    torch.testing.assert_close(resumed.state, whole.state, atol=0, rtol=0)
    assert resumed.numbers == whole.numbers and not [*tmp_path.iterdir()]
