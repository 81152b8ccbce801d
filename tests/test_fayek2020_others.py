"""The other systems of Table 3 of Fayek and Kumar (2020): their networks, and gradient blending."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from sklearn.metrics import average_precision_score
from torchvision.models.video import r2plus1d_18
from torchvision.models.video.resnet import Bottleneck, Conv2Plus1D, R2Plus1dStem, VideoResNet
from toy_clips import Toy, short

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
from avrepro.systems import SYSTEMS

pytestmark = pytest.mark.usefixtures("one_thread")

AUDIO = ResidualAudioConfig(classes=3, mels=16, block="basic", layers=(1, 1, 1, 1), channels=(4, 4, 8, 8))
VIDEO = VideoR2Plus1DConfig(classes=3, block="basic", layers=(1, 1), channels=(8, 16))


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
    with torch.inference_mode():
        filled = torch.where(padded > -torch.inf, padded, model.mean)
        torch.testing.assert_close(model.features(padded), model.features(filled))
        assert model(torch.full_like(padded, -torch.inf)).isfinite().all()


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
    with pytest.raises(ValueError, match=r"head visual: expected finite losses, found .*nan"):
        weights(audio=(0.8, 1.0), visual=(0.5, float("nan")), joint=(1, 1))


def test_the_joint_head_scores_and_chooses_the_epoch(tmp_path: Path) -> None:
    name, toy = "fayek2020/gblend", Toy(short("fayek2020/gblend"))
    system, held = SYSTEMS[name], toy.rows("validation")
    trained = toy.fit(name, state=tmp_path / "x.partial")
    weights = trained.numbers["weights"]
    assert weights.keys() == {"audio", "visual", "joint"} and min(weights.values()) > 0
    assert sum(weights.values()) == pytest.approx(1)
    model = trained.load_into(system.build(3, system.settings(toy.condition)))  # type: ignore[attr-defined]
    with torch.inference_mode():
        joint = torch.sigmoid(model(*(torch.from_numpy(one[:]).float() for one in system.arrays(toy)))["joint"]).numpy()
    np.testing.assert_allclose(toy.scores(name, trained), joint, atol=1e-5)
    best = average_precision_score(toy.targets[held], joint[held])
    assert max(row["validation_score"] for row in trained.history) == pytest.approx(best)
