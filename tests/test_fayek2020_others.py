"""The other systems of Table 3 of Fayek and Kumar (2020): their networks, gradient blending, and what they learn."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torchvision.models.video import r2plus1d_18
from torchvision.models.video.resnet import Bottleneck, Conv2Plus1D, R2Plus1dStem, VideoResNet

from avrepro.corpora.base import Clip, Corpus
from avrepro.encode import write_clip
from avrepro.evaluation import average_precision, roc_auc
from avrepro.experiments import fayek2020_others as others
from avrepro.experiments.fayek2020_others import PROFILES, Profile, train_gblend, train_r2plus1d, train_resnet_audio
from avrepro.features.store import ClipArrays, extract
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
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
AUDIO = ResidualAudioConfig(classes=3, mels=16, block="basic", layers=(1, 1, 1, 1), channels=(4, 4, 8, 8))
VIDEO = VideoR2Plus1DConfig(classes=3, block="basic", layers=(1, 1), channels=(8, 16))
FAST = Optimisation("adam", 1e-2, batch=8, epochs=8)
TINY = Profile(
    audio=AUDIO,
    audio_optimisation=FAST,
    video=VIDEO,
    video_optimisation=FAST,
    frames=6,
    size=(16, 24),
    hidden=16,
    measured=3,
    blend_optimisation=FAST,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    return tmp_path / "home"


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
        logits = model(torch.empty(2, 1000, 64), torch.empty(2, profile.frames, *profile.size, 3))
    assert {head: one.shape for head, one in logits.items()} == dict.fromkeys(("audio", "visual", "joint"), (2, 527))


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


def test_a_head_alone_says_what_it_says_among_others() -> None:
    model = JointAudioVisual(AUDIO, VIDEO, 8).eval()
    inputs = torch.randn(2, 64, 16), torch.rand(2, 6, 16, 24, 3) * 255
    with torch.inference_mode():
        for head, logits in model(*inputs).items():
            alone = model(*inputs, (head,))
            assert alone.keys() == {head}
            torch.testing.assert_close(alone[head], logits)
    with pytest.raises(ValueError, match="3 and 4 classes"):
        JointAudioVisual(AUDIO, replace(VIDEO, classes=4), 8)


# --- gradient blending ------------------------------------------------------------------------------------


def test_blending_weights_by_hand() -> None:
    """G / O^2: audio (.7 - .5) / (.1 - 0)^2 = 20, visual (.65 - .55) / (.25 - .05)^2 = 2.5, joint .3 / .2^2 = 7.5."""
    start = {"audio": Losses(0.7, 0.7), "visual": Losses(0.6, 0.65), "joint": Losses(0.8, 0.8)}
    end = {"audio": Losses(0.4, 0.5), "visual": Losses(0.3, 0.55), "joint": Losses(0.3, 0.5)}
    found = blending_weights(start, end)
    assert found == pytest.approx({"audio": 20 / 30, "visual": 2.5 / 30, "joint": 7.5 / 30})


def test_blending_weights_where_the_formula_is_silent() -> None:
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


CLASSES = ("low", "leftwards", "never")


def sound(labels: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
    """Noise, float16 [64, 16]; a burst in low bands where the label says so, one in high bands by chance."""
    log_mel = rng.normal(-5, 1, (64, 16))
    for band, heard in ((3, "low" in labels), (9, rng.random() < 0.5)):
        if heard:
            at = rng.integers(0, 40)
            log_mel[at : at + 24, band : band + 2] += 3
    return log_mel.astype(np.float16)


def sight(labels: tuple[str, ...], rng: np.random.Generator) -> np.ndarray:
    """A light square that goes left or right, from anywhere and round the edge, uint8 [6, 16, 24, 3].

    Any one frame of it, and any set of frames without their order, is as likely in either direction.
    """
    frames = rng.integers(0, 40, (6, 16, 24, 3), dtype=np.uint8)
    at, row = rng.integers(0, 24), rng.integers(0, 10)
    for frame in frames:
        frame[row : row + 6, (at + np.arange(6)) % 24] = 200
        at += -3 if "leftwards" in labels else 3
    return frames


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, ClipArrays, ClipArrays]:
    folder, rng = tmp_path_factory.mktemp("toy"), np.random.default_rng(5)
    clips, paths = [], {"sound": [], "sight": []}
    for number in range(160):
        labels = tuple(name for name in CLASSES[:2] if rng.random() < 0.5)
        split = ("train", "train", "train", "validation", "test")[number % 5]
        clips.append(Clip(f"{number:03}", folder / f"{number:03}.mp4", split, labels))
        for name, make in (("sound", sound), ("sight", sight)):
            paths[name].append(folder / name / "aa" / f"{number:03}.npy")
            paths[name][-1].parent.mkdir(parents=True, exist_ok=True)
            np.save(paths[name][-1], make(labels, rng))
    return Corpus("toy", CLASSES, tuple(clips), (), "d"), ClipArrays((*paths["sound"],)), ClipArrays((*paths["sight"],))


def told_apart(corpus: Corpus, scores: np.ndarray) -> np.ndarray:
    """Area under the ROC curve among test clips, of the first two classes; a half is chance."""
    held_out = np.array([clip.split == "test" for clip in corpus.clips])
    return roc_auc(corpus.targets()[held_out], scores[held_out])[:2]


def test_sounds_are_learnt(toy: tuple[Corpus, ClipArrays, ClipArrays]) -> None:
    corpus, log_mel, _ = toy
    trained = train_resnet_audio(corpus, log_mel, TINY, 0, CPU)
    assert trained.scores.shape == (160, 3) and trained.scores.dtype == np.float32 and trained.seconds > 0
    assert trained.parameters == sum(one.numel() for one in ResidualAudio(AUDIO).parameters())
    low, leftwards = told_apart(corpus, trained.scores)
    assert low > 0.9 and leftwards < 0.75  # the second cannot be heard
    assert trained.scores[:, 2].max() < 0.1


def test_the_way_that_something_moves_is_learnt(toy: tuple[Corpus, ClipArrays, ClipArrays], tmp_path: Path) -> None:
    """Only the order of frames tells; played backwards, clips are taken for the other kind."""
    corpus, _, frames = toy
    trained = train_r2plus1d(corpus, frames, TINY, 0, CPU)
    low, leftwards = told_apart(corpus, trained.scores)
    assert leftwards > 0.9 and low < 0.75
    model = VideoR2Plus1D(VIDEO).eval()
    model.load_state_dict(torch.load(trained.paths[0], weights_only=True)["weights"])
    with torch.inference_mode():
        played, backwards = (
            torch.sigmoid(model(torch.from_numpy(given.copy()))).numpy() for given in (frames[:], frames[:][:, ::-1])
        )
    np.testing.assert_allclose(played, trained.scores, atol=1e-5)
    assert told_apart(corpus, backwards)[1] < 0.1


def test_blending_learns_of_both(toy: tuple[Corpus, ClipArrays, ClipArrays]) -> None:
    corpus, log_mel, frames = toy
    trained = train_gblend(corpus, log_mel, frames, TINY, 0, CPU)
    assert trained.weights.keys() == {"audio", "visual", "joint"} and all(one > 0 for one in trained.weights.values())
    assert sum(trained.weights.values()) == pytest.approx(1)
    assert told_apart(corpus, trained.scores).min() > 0.9
    kept = torch.load(trained.paths[0], weights_only=True)
    model = JointAudioVisual(AUDIO, VIDEO, 16).eval()
    model.load_state_dict(kept["weights"])
    with torch.inference_mode():
        logits = model(torch.from_numpy(log_mel[:]).float(), torch.from_numpy(frames[:]))
    np.testing.assert_allclose(torch.sigmoid(logits["joint"]), trained.scores, atol=1e-5)
    low, leftwards = told_apart(corpus, logits["audio"].numpy())
    assert low > 0.9 and leftwards < 0.75


# --- what is kept -----------------------------------------------------------------------------------------


SHORT = replace(
    TINY,
    audio_optimisation=replace(FAST, epochs=2),
    video_optimisation=replace(FAST, epochs=2),
    measured=2,
    blend_optimisation=replace(FAST, epochs=2),
)


def test_the_same_training_is_found_again(toy: tuple[Corpus, ClipArrays, ClipArrays], home: Path) -> None:
    corpus, log_mel, frames = toy
    clips = corpus.clips
    told = replace(clips[0], labels=("low",) if clips[0].labels != ("low",) else ())
    other = replace(corpus, clips=(told, *clips[1:]))
    blind = replace(corpus, clips=tuple(replace(one, labels=()) if one.split == "test" else one for one in clips))

    def train(corpus: Corpus, profile: Profile, seed: int) -> list[others.Trained]:
        return [
            train_resnet_audio(corpus, log_mel, profile, seed, CPU),
            train_r2plus1d(corpus, frames, profile, seed, CPU),
            train_gblend(corpus, log_mel, frames, profile, seed, CPU),
        ]

    first = train(corpus, SHORT, 0)
    files = {path.name: path.stat().st_mtime_ns for path in (home / "models").iterdir()}
    assert files.keys() == {one.paths[0].name for one in first} and len(files) == 3
    for again in (train(corpus, SHORT, 0), train(blind, SHORT, 0)):  # labels of test clips play no part
        assert {path.name: path.stat().st_mtime_ns for path in (home / "models").iterdir()} == files
        for one, two in zip(first, again, strict=True):
            np.testing.assert_array_equal(one.scores, two.scores)
            assert one.seconds == two.seconds and one.weights == two.weights and one.parameters == two.parameters
    paths = [
        train_resnet_audio(*arguments, CPU).paths
        for arguments in (
            (corpus, log_mel, SHORT, 1),
            (other, log_mel, SHORT, 0),
            (corpus, ClipArrays(log_mel.paths[::-1]), SHORT, 0),
            (corpus, log_mel, replace(SHORT, audio_optimisation=replace(FAST, epochs=1)), 0),
        )
    ]
    assert len({first[0].paths, *paths}) == 5
    # What others alone depend on changes nothing.
    assert train_resnet_audio(corpus, log_mel, replace(SHORT, hidden=3, frames=9), 0, CPU).paths == first[0].paths


@pytest.mark.parametrize("killed_after", [3, 8, 15])
def test_a_killed_training_goes_on(
    toy: tuple[Corpus, ClipArrays, ClipArrays],
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    killed_after: int,
) -> None:
    """Blending judges twice at the start, of each head twice among and twice after 2 epochs, then twice the network.

    So these kills are in the second epoch of the first head, after the last of the second, in the second of all.
    """
    corpus, log_mel, frames = toy
    few = replace(corpus, clips=corpus.clips[:50])
    inputs = ClipArrays(log_mel.paths[:50]), ClipArrays(frames.paths[:50])
    judged = []

    def killing(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
        judged.append(len(judged))
        if len(judged) > killed_after:
            raise KeyboardInterrupt
        return average_precision(labels, scores)

    with monkeypatch.context() as patch:
        patch.setattr(others, "average_precision", killing)
        with pytest.raises(KeyboardInterrupt):
            train_gblend(few, *inputs, SHORT, 0, CPU)
    saved = [path.name for path in (home / "models").iterdir()]
    assert saved and all(name.endswith(".state.pt") for name in saved)
    judged.clear()
    with monkeypatch.context() as patch:
        patch.setattr(others, "average_precision", lambda *given: judged.append(0) or average_precision(*given))
        gone_on = train_gblend(few, *inputs, SHORT, 0, CPU)
    assert len(judged) < 2 + 3 * 4 + 2  # epochs that were saved are not run again
    assert [path.name for path in (home / "models").iterdir()] == [gone_on.paths[0].name]
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "another"))
    whole = train_gblend(few, *inputs, SHORT, 0, CPU)
    np.testing.assert_array_equal(gone_on.scores, whole.scores)
    assert gone_on.weights == whole.weights


def test_clips_that_do_not_fit_are_refused(toy: tuple[Corpus, ClipArrays, ClipArrays]) -> None:
    corpus, log_mel, frames = toy
    with pytest.raises(ValueError, match=r"toy: .* 160 clips, found 159"):
        train_gblend(corpus, log_mel, ClipArrays(frames.paths[1:]), TINY, 0, CPU)
    unlabelled = tuple(replace(one, labels=()) if one.split == "validation" else one for one in corpus.clips)
    with pytest.raises(ValueError, match="split validation has no clip with a label"):
        train_resnet_audio(replace(corpus, clips=unlabelled), log_mel, TINY, 0, CPU)


def test_frames_are_of_the_middles_of_equal_parts(tmp_path: Path) -> None:
    """A clip whose grey level tells the second: 8 frames of 10 s are of 0.6, 1.9, 3.1, 4.4, 5.6, 6.9, 8.1, 9.4 s."""
    clips = []
    for seconds in (10, 4):
        path = tmp_path / f"{seconds}.mp4"
        grey = np.repeat(np.arange(seconds) * 20 + 20, 12).astype(np.uint8)
        write_clip(path, np.broadcast_to(grey[:, None, None, None], (len(grey), 48, 64, 3)).copy(), 12,
                   np.zeros(seconds * 16_000, np.float32), 16_000)  # fmt: skip
        clips.append(Clip(path.stem, path, "train", ()))
    feature = others.video_frames_feature(8, (24, 32))
    arrays, _ = extract(feature, Corpus("toy", (), tuple(clips), (), "d"))
    assert arrays[:].shape == (2, 8, 24, 32, 3) and arrays[0].dtype == np.uint8
    for frames, seconds in zip(arrays, ([0, 1, 3, 4, 5, 6, 8, 9], [0, 1, 3, 3, 3, 3, 3, 3]), strict=True):
        levels = frames.reshape(8, -1).astype(float)
        np.testing.assert_allclose(levels, np.broadcast_to(np.array(seconds)[:, None] * 20 + 20, levels.shape), atol=4)
    digests = {others.video_frames_feature(*given).digest for given in ((8, (24, 32)), (8, (32, 24)), (9, (24, 32)))}
    assert len(digests) == 3 and feature.digest in digests
