"""The other systems of Table 3 of Fayek and Kumar (2020): their networks, gradient blending, and what they learn."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from fayek2020_data import made_up_data
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
from avrepro.systems import SYSTEMS, Data
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

AUDIO = ResidualAudioConfig(classes=3, mels=16, block="basic", layers=(1, 1, 1, 1), channels=(4, 4, 8, 8))
VIDEO = VideoR2Plus1DConfig(classes=3, block="basic", layers=(1, 1), channels=(8, 16))
FAST = Optimisation("adam", 1e-2, batch=8, epochs=8)
TINY = {
    "audio": AUDIO,
    "video": VIDEO,
    "video_optimisation": FAST,
    "hidden": 16,
    "measured": 3,
    "blend_optimisation": FAST,
}


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


def test_frames_beyond_the_end_of_a_short_clip_count_as_the_mean() -> None:
    model = ResidualAudio(AUDIO).eval()
    padded = torch.randn(4, 100, 16) * 3 - 7
    padded[:, 60:] = -torch.inf
    model.prepare(padded, torch.eye(3)[[0, 1, 2, 0]])
    torch.testing.assert_close(model.mean, padded[:, :60].mean(dim=(0, 1)))
    torch.testing.assert_close(model.deviation, padded[:, :60].std(dim=(0, 1)))
    with torch.inference_mode():
        filled = torch.where(padded > -torch.inf, padded, model.mean)
        torch.testing.assert_close(model.features(padded), model.features(filled))
        assert model(torch.full_like(padded, -torch.inf)).isfinite().all()


def test_colours_are_scaled_as_in_training() -> None:
    frames = torch.randint(0, 256, (30, 4, 8, 8, 3)) // torch.tensor([1, 2, 4]) + torch.tensor([0, 10, 20])
    model = VideoR2Plus1D(VIDEO)
    model.prepare(frames, torch.ones(30, 3))
    colours = frames.reshape(-1, 3).numpy() / 255
    np.testing.assert_allclose(model.mean, colours.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(model.deviation, colours.std(axis=0), rtol=1e-3)


@pytest.mark.parametrize(
    ("head", "parts"),
    [
        ("audio", {"audio.network.layer4", "audio.network.fc"}),
        ("visual", {"visual.blocks", "visual.classify"}),
        ("joint", {"audio.network.layer4", "visual.blocks", "joint", "classify"}),
    ],
)
def test_the_loss_of_a_head_reaches_its_own_trunk_and_no_other(head: str, parts: set[str]) -> None:
    model = JointAudioVisual(AUDIO, VIDEO, 8)
    logits = model(torch.randn(4, 64, 16), torch.rand(4, 6, 16, 24, 3) * 255)
    weights = {one: float(one == head) for one in logits}
    blended_loss(logits, torch.eye(3)[[0, 1, 2, 0]], weights).backward()
    every = {"audio.network.layer4", "audio.network.fc", "visual.blocks", "visual.classify", "joint", "classify"}
    gradients = {name: [one.grad for one in model.get_submodule(name).parameters()] for name in every}
    reached = {name for name, own in gradients.items() if any(one is not None and one.any() for one in own)}
    assert reached == parts


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
    condition, rng = Condition("made-up", "ci", options=tuple(TINY.items())), np.random.default_rng(5)
    labels = rng.random((160, 3)) < [0.5, 0.5, 0]
    splits = [("train", "train", "train", "validation", "test")[number % 5] for number in range(160)]
    features = SYSTEMS["fayek2020/gblend"].features(condition)
    arrays = [
        (features["audio"], [sound(bool(one[0]), rng) for one in labels], None),
        (features["video"], [sight(bool(one[1]), rng) for one in labels], None),
    ]
    return made_up_data(condition, labels, splits, arrays)


def areas(data: Data, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve among test clips, of the first two classes; a half is chance."""
    return roc_auc(data.targets[data.rows("test")], scores[data.rows("test")])[:2]


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
