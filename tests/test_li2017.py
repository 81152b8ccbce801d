"""The audio branch of Li et al. (2017), its checkpoint, and the fusion of both branches."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import nn

from avrepro.corpora.base import Clip, Corpus
from avrepro.encode import write_clip
from avrepro.evaluation import tagging_scores, tune_thresholds
from avrepro.experiments.li2017 import fit_fusion, log_mel_feature
from avrepro.experiments.li2017_profiles import PROFILES
from avrepro.features.store import ClipArrays, extract
from avrepro.models.li2017 import (
    CRNN,
    AudioBranch,
    CheckpointError,
    CRNNConfig,
    Fusion,
    fuse,
    load_audio,
    mil_loss,
    mix_clips,
    papers_weights,
    train_audio,
    tuned_weights,
)
from avrepro.training import Optimisation

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
CLASSES = ("a", "b", "c", "d")
TINY = CRNNConfig(classes=4, mels=12, channels=(8, 8, 8), hidden=8)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# --- the network ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PROFILES["paper"].crnn, PROFILES["demo"].crnn])
def test_ten_seconds_become_a_hundred_frames_of_seventeen_classes(config: CRNNConfig) -> None:
    """Section 3.2: 2000 x 60 at 200 Hz -> 10 Hz; a bidirectional GRU of 100 each way; 17 outputs."""
    model = CRNN(config).eval()
    log_mel = torch.randn(2, 2000, 60)
    with torch.inference_mode():
        logits, clip = model(log_mel), model.clip(log_mel)
    assert logits.shape == (2, 100, 17) and clip.shape == (2, 17)
    torch.testing.assert_close(torch.sigmoid(clip), torch.sigmoid(logits).max(dim=1).values)  # section 2.1
    assert (model.gru.hidden_size, model.gru.bidirectional) == (100, True)
    dropouts = [layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)]
    assert dropouts == [0.2] * 4  # after each pooling and after the GRU


@pytest.mark.parametrize("stride", [1, 5])
def test_every_parameter_gets_a_gradient(stride: int) -> None:
    torch.manual_seed(0)
    model = CRNN(CRNNConfig(channels=(4, 8, 8), stride_time=stride))
    labels = (torch.rand(4, 17) < 0.3).float()
    mil_loss(model.clip(torch.randn(4, 400, 60)), labels).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_a_louder_recording_is_the_same_clip_to_the_network() -> None:
    """A gain adds a constant to each log-mel band; the network subtracts each band's mean over the clip."""
    model = CRNN(TINY).eval()
    log_mel = torch.randn(2, 200, 12)
    with torch.inference_mode():
        torch.testing.assert_close(model(log_mel), model(log_mel + torch.randn(2, 1, 12)), rtol=1e-4, atol=1e-5)


def test_preparation_sets_scale_and_first_guess() -> None:
    rng = np.random.default_rng(2)
    scale = rng.uniform(0.5, 20, 12)
    log_mel = torch.from_numpy(rng.normal(size=(40, 100, 12)) * scale + rng.normal(size=(40, 1, 12)) * 50).float()
    labels = torch.zeros(40, 4)
    labels[:10, 0], labels[:20, 1], labels[:, 3] = 1, 1, 1
    model = CRNN(TINY)
    model.prepare(log_mel, labels)
    np.testing.assert_allclose(model.deviation.numpy(), scale, rtol=0.1)
    guess = torch.sigmoid(model.classify.bias.detach()).numpy()
    np.testing.assert_allclose(guess, [0.25, 0.5, 0.001, 0.999], rtol=1e-4)


def test_the_loss_is_the_papers_formula() -> None:
    """Cross entropy averaged over clips and classes, written as two loops over P(e_k | x_i)."""
    rng = np.random.default_rng(4)
    logits, labels = rng.normal(0, 3, (5, 7)), rng.random((5, 7)) < 0.4
    total = 0.0
    for clip in range(5):
        for label in range(7):
            p = 1 / (1 + math.exp(-logits[clip, label]))
            total -= math.log(p) if labels[clip, label] else math.log(1 - p)
    found = mil_loss(torch.from_numpy(logits), torch.from_numpy(labels).double())
    assert float(found) == pytest.approx(total / (5 * 7), rel=1e-12)


# --- training on few clips, and the checkpoint ------------------------------------------------------------


def planted(folder: Path) -> tuple[ClipArrays, np.ndarray]:
    """8 clips of noise: class k is a burst in bands 3k..3k+2 for a tenth of the clip; 8 label sets."""
    rng = np.random.default_rng(0)
    labels = np.array([[i in chosen for i in range(4)] for chosen in
                       ((), (0,), (1,), (2,), (3,), (0, 1), (2, 3), (0, 2, 3))])  # fmt: skip
    paths = []
    (folder / "planted" / "00").mkdir(parents=True)
    for clip, row in enumerate(labels):
        log_mel = rng.normal(0, 1, (200, 12))
        for label in np.flatnonzero(row):
            start = int(rng.integers(0, 180))
            log_mel[start : start + 20, 3 * label : 3 * label + 3] += 6
        paths.append(folder / "planted" / "00" / f"{clip}.npy")
        np.save(paths[-1], log_mel.astype(np.float16))
    return ClipArrays(tuple(paths)), labels


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[AudioBranch, ClipArrays, np.ndarray]:
    folder = tmp_path_factory.mktemp("planted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(folder / "home"))
        clips, labels = planted(folder)
        settings = Optimisation("adam", 1e-2, batch=4, epochs=80)
        return train_audio((clips, labels), (clips, labels), CLASSES, TINY, settings, 0, CPU), clips, labels


def test_few_clips_are_learnt_by_heart(trained: tuple[AudioBranch, ClipArrays, np.ndarray]) -> None:
    branch, clips, labels = trained
    scores = branch.scores(clips, CPU)
    assert scores.shape == (8, 4) and scores.dtype == np.float32 and ((scores >= 0) & (scores <= 1)).all()
    assert ((scores >= branch.thresholds) == labels).all()
    assert len(branch.history) == 80 and branch.history[branch.best_epoch - 1]["validation_score"] == 1.0
    assert branch.history[0]["validation_loss"] > 0.5 and branch.history[-1]["validation_loss"] < 0.1
    assert branch.classes == CLASSES and branch.seconds > 0


def test_the_same_training_is_not_repeated(
    trained: tuple[AudioBranch, ClipArrays, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    branch, clips, labels = trained
    folder = branch.path.parent
    assert [path.name for path in folder.iterdir()] == [branch.path.name]  # no state of the training is left
    monkeypatch.setenv("AVREPRO_HOME", str(folder.parent))
    settings = Optimisation("adam", 1e-2, batch=4, epochs=80)
    before = branch.path.stat().st_mtime_ns
    again = train_audio((clips, labels), (clips, labels), CLASSES, TINY, settings, 0, CPU)
    assert again.path == branch.path and branch.path.stat().st_mtime_ns == before
    np.testing.assert_array_equal(again.scores(clips, CPU), branch.scores(clips, CPU))
    short = Optimisation("adam", 1e-2, batch=4, epochs=1)
    others = {
        train_audio((clips, labels), (clips, labels), CLASSES, TINY, short, 0, CPU).path,
        train_audio((clips, labels), (clips, labels), CLASSES, TINY, short, 1, CPU).path,
        train_audio((clips, ~labels), (clips, labels), CLASSES, TINY, short, 0, CPU).path,
        train_audio((ClipArrays(clips.paths[::-1]), labels), (clips, labels), CLASSES, TINY, short, 0, CPU).path,
    }
    assert len(others) == 4 and branch.path not in others


def test_a_checkpoint_gives_the_same_scores(
    trained: tuple[AudioBranch, ClipArrays, np.ndarray], tmp_path: Path
) -> None:
    branch, clips, _ = trained
    moved = tmp_path / "-moved ü.pt"
    moved.write_bytes(branch.path.read_bytes())
    loaded = load_audio(moved)
    np.testing.assert_array_equal(loaded.scores(clips, CPU), branch.scores(clips, CPU))
    np.testing.assert_array_equal(loaded.thresholds, branch.thresholds)
    assert (loaded.classes, loaded.best_epoch, loaded.history) == (branch.classes, branch.best_epoch, branch.history)
    assert loaded.model.config == branch.model.config and not loaded.model.training


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # a tensor is asked for its "config"
def test_a_foreign_checkpoint_is_refused(trained: tuple[AudioBranch, ClipArrays, np.ndarray], tmp_path: Path) -> None:
    whole = trained[0].path.read_bytes()
    good = torch.load(trained[0].path, weights_only=True)
    path = tmp_path / "broken.pt"
    wrong_shape = {**good["weights"], "classify.weight": torch.zeros(3, 3)}
    less = {name: value for name, value in good["weights"].items() if name != "classify.bias"}
    contents = [
        b"", b"text", whole[:10], whole[: len(whole) // 2], whole[:-30], whole[:200] + b"\0" * 99 + whole[299:],
        {}, [1], 3, None, "text", torch.zeros(3), good["weights"], nn.Linear(1, 1),
        {**good, "config": {}}, {**good, "config": {"unknown": 1}}, {**good, "config": None},
        {**good, "config": {**good["config"], "channels": [1, 2]}}, {**good, "config": {**good["config"], "mels": "x"}},
        {**good, "weights": wrong_shape}, {**good, "weights": less}, {**good, "weights": [1]},
        *({name: value for name, value in good.items() if name != gone} for gone in good),
        {**good, "thresholds": [0.5]}, {**good, "classes": ["a"]},
    ]  # fmt: skip
    for number, content in enumerate(contents):
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(CheckpointError) as caught:
            load_audio(path)
        assert str(path) in str(caught.value) and "expected a checkpoint" in str(caught.value), number
    with pytest.raises(CheckpointError, match="absent"):
        load_audio(tmp_path / "absent.pt")
    with pytest.raises(CheckpointError):
        load_audio(tmp_path)


def test_the_fusion_is_kept_beside_the_audio_branch(
    trained: tuple[AudioBranch, ClipArrays, np.ndarray],
) -> None:
    branch, clips, labels = trained
    video = np.random.default_rng(3).random((8, 4))
    fusion = fit_fusion(labels, branch.scores(clips, CPU), video, branch.thresholds, 0)
    path = fusion.save(branch)
    assert path != branch.path
    loaded = Fusion.load(path)
    np.testing.assert_array_equal(loaded.papers_weights, fusion.papers_weights)
    np.testing.assert_array_equal(loaded.tuned_weights, fusion.tuned_weights)
    assert loaded.thresholds.keys() == {"audio", "video", "fused", "fused, tuned weights"}
    for name, values in fusion.thresholds.items():
        np.testing.assert_array_equal(loaded.thresholds[name], values)
    np.testing.assert_array_equal(load_audio(path).scores(clips, CPU), branch.scores(clips, CPU))
    with pytest.raises(CheckpointError, match="without its fusion"):
        Fusion.load(branch.path)
    path.unlink()


# --- fusion -----------------------------------------------------------------------------------------------


def test_the_weighted_average() -> None:
    audio, video = np.array([[0.2, 1.0], [0.0, 0.4]]), np.array([[0.8, 0.0], [0.5, 0.4]])
    expected = [[0.8 * 0.8 + 0.2 * 0.2, 0.8], [0.8 * 0.5, 0.4]]
    np.testing.assert_allclose(fuse(audio, video, np.array([0.8, 0.2])), expected)
    np.testing.assert_array_equal(fuse(audio, video, np.zeros(2)), audio)
    np.testing.assert_array_equal(fuse(audio, video, np.ones(2)), video)


def test_the_papers_weights() -> None:
    """Section 3.4: 0.8 where the video branch performs better; where both are the same it does not."""
    weights = papers_weights(np.array([0.5, 0.1, 0.3, 0.0]), np.array([0.4, 0.2, 0.3, 0.0]))
    assert weights.tolist() == [0.2, 0.8, 0.2, 0.2]


def best_f1(y_true: np.ndarray, scores: np.ndarray) -> float:
    return f1_score(y_true, scores >= tune_thresholds(y_true, scores), average="micro", zero_division=0)


@pytest.mark.parametrize("seed", range(4))
def test_tuned_weights_are_an_optimum_along_each_class(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y_true = rng.random((14, 3)) < 0.4
    audio, video = (np.clip(y_true * shift + rng.random((14, 3)), 0, 1) for shift in (0.2, 0.15))
    tuned = tuned_weights(y_true, audio, video)
    class_f1 = [tagging_scores(y_true, one >= tune_thresholds(y_true, one)).class_f1 for one in (audio, video)]
    reached = best_f1(y_true, fuse(audio, video, tuned))
    assert reached >= best_f1(y_true, fuse(audio, video, papers_weights(*class_f1)))
    for column, weight in itertools.product(range(3), np.linspace(0, 1, 11)):
        trial = tuned.copy()
        trial[column] = weight
        assert best_f1(y_true, fuse(audio, video, trial)) <= reached + 1e-12
    assert set(np.round(tuned * 10, 9) % 1) == {0.0}


def test_tuned_weights_find_the_better_branch() -> None:
    """One class that only sound tells, one that only pictures tell: each goes to its branch, without a mistake."""
    rng = np.random.default_rng(1)
    y_true = rng.random((40, 2)) < 0.4
    noise = rng.random((40, 2))
    audio = np.where([True, False], y_true * 0.9, noise)
    video = np.where([True, False], noise, y_true * 0.9)
    tuned = tuned_weights(y_true, audio, video)
    assert best_f1(y_true, fuse(audio, video, tuned)) == 1.0
    assert tuned[0] < 0.5 < tuned[1]


def test_fitting_the_fusion_sets_each_systems_thresholds() -> None:
    rng = np.random.default_rng(6)
    y_true = rng.random((30, 4)) < 0.3
    audio, video = (np.clip(y_true * 0.3 + rng.random((30, 4)), 0, 1) for _ in range(2))
    own = tune_thresholds(y_true, audio)
    fusion = fit_fusion(y_true, audio, video, own, 0)
    np.testing.assert_array_equal(fusion.thresholds["audio"], own)
    np.testing.assert_array_equal(fusion.thresholds["video"], tune_thresholds(y_true, video))
    fused = tune_thresholds(y_true, fuse(audio, video, fusion.papers_weights))
    np.testing.assert_array_equal(fusion.thresholds["fused"], fused)
    better = tagging_scores(y_true, video >= fusion.thresholds["video"]).class_f1
    worse = tagging_scores(y_true, audio >= own).class_f1
    np.testing.assert_array_equal(fusion.papers_weights == 0.8, better > worse)


# --- the input --------------------------------------------------------------------------------------------


def test_log_mel_of_a_real_clip(tmp_path: Path) -> None:
    """A short clip ends in silence; the tone lies in the band that the mel scale puts it in."""
    path = tmp_path / "tone.mp4"
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(2 * 32000) / 32000).astype(np.float32)
    write_clip(path, np.zeros((4, 32, 48, 3), np.uint8), 2, tone, 32000)
    corpus = Corpus("toy", ("a",), (Clip("tone", path, "train", ()),), (), "d")
    arrays, _ = extract(log_mel_feature(), corpus)
    assert arrays[0].shape == (2000, 60) and arrays[0].dtype == np.float16 and np.isfinite(arrays[0]).all()
    loud, silent = arrays[0][100:300].astype(float), arrays[0][800:].astype(float)
    assert len(np.unique(loud.argmax(axis=1))) == 1 and (loud.max(axis=1) > silent.max() + 3).all()
    assert np.ptp(silent) < 1e-3


def test_a_mixture_holds_both_clips() -> None:
    generator = np.random.default_rng(0)
    log_mel = torch.from_numpy(generator.normal(size=(6, 20, 4)).astype(np.float32))
    labels = torch.eye(6)
    torch.manual_seed(0)
    mixed, united = mix_clips(log_mel, labels, 0.5)
    changed = (mixed != log_mel).any(dim=(1, 2))
    assert 0 < changed.sum() < 6
    for row in range(6):
        parts = united[row].nonzero()[:, 0].tolist()
        assert row in parts
        if changed[row]:  # a clip may also be laid over itself, and is then twice as loud
            energy = log_mel.exp()[parts].sum(dim=0) * (2 if len(parts) == 1 else 1)
            torch.testing.assert_close(mixed[row].exp(), energy, rtol=1e-4, atol=1e-5)
        else:
            assert parts == [row]
    assert all(torch.equal(a, b) for a, b in zip(mix_clips(log_mel, labels, 0.0), (log_mel, labels), strict=True))
