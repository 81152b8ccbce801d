"""Systems (f) and (g) on clips: what the network hears, what it learns of weak labels, and what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
from scipy.signal import spectrogram

from avrepro.corpora.base import Clip, Corpus
from avrepro.encode import write_clip
from avrepro.experiments.gated_crnn import PROFILES, Profile, log_mel_feature, train_fusion, train_gated_crnn
from avrepro.features.store import ClipArrays, extract
from avrepro.models.gated_crnn import GatedCRNN, GatedCRNNConfig

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
RATE = 16_000
CLASSES = ("horn", "rattle")
TINY = Profile(
    GatedCRNNConfig(channels=(4, 8), pool_time=(2, 1), pool_mel=(4, 4), features=12, hidden=6),
    batch=12,
    steps=150,
    learning_rate=1e-2,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AVREPRO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def write(path: Path, labels: tuple[str, ...], seconds: float, rng: np.random.Generator) -> None:
    """Noise, and for half of the clip each, wherever it falls: a tone with overtones, twelve short hisses a second."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 0.01 * rng.standard_normal(time.size)
    for label in labels:
        start = rng.uniform(0, seconds / 2)
        heard = (time >= start) & (time < start + seconds / 2)
        if label == "horn":
            sound += 0.1 * heard * sum(np.sin(2 * np.pi * k * 420 * time) / k for k in (1, 2, 3, 4))
        else:
            sound += 0.3 * heard * (time * 12 % 1 < 0.2) * rng.standard_normal(time.size)
    write_clip(path, np.zeros((2, 32, 48, 3), np.uint8), 12, sound.astype(np.float32), RATE)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Corpus, ClipArrays]:
    """40 clips of 1 s to learn from, 20 that are left; each class sounds in about half of them."""
    folder, rng = tmp_path_factory.mktemp("toy"), np.random.default_rng(3)
    clips = []
    for number in range(60):
        labels = tuple(name for name in CLASSES if rng.random() < 0.5)
        path = folder / f"{number}.mp4"
        write(path, labels, 1.0, rng)
        clips.append(Clip(path.stem, path, "test" if number % 3 == 0 else "train", labels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AVREPRO_HOME", str(folder / "home"))
        log_mel, corpus = extract(log_mel_feature(duration=1.0), Corpus("toy", CLASSES, tuple(clips), (), "d"))
    assert len(log_mel) == 60
    return corpus, log_mel


# --- what it hears ----------------------------------------------------------------------------------------


def test_log_mel_is_the_authors() -> None:
    """Their published front end is scipy's spectrogram and librosa's filters; ours ends in half precision."""
    rng = np.random.default_rng(0)
    time = np.arange(10 * RATE) / RATE
    sound = (0.3 * np.sin(2 * np.pi * (150 * time + 300 * time**2)) + 0.05 * rng.standard_normal(time.size)) * 0.5
    sound[8 * RATE :] *= 1e-4
    sound[9 * RATE :] = 0
    window = np.hamming(1024)
    magnitude = spectrogram(sound, RATE, window, noverlap=1024 - 664, detrend=False, mode="magnitude")[2]
    expected = np.log(librosa.filters.mel(sr=RATE, n_fft=1024, n_mels=64, fmin=0, fmax=8000) @ magnitude + 1e-8).T
    found = log_mel_feature().compute(sound.astype(np.float32))
    assert found.shape == expected.shape == (240, 64) and found.dtype == np.float16
    assert np.ptp(expected) > 10 and expected[-1, 0] == pytest.approx(np.log(1e-8))
    np.testing.assert_allclose(found, expected, atol=0.01)  # half precision steps by 1/64 from 16 on, rounded


def test_every_clip_has_the_same_frames(tmp_path: Path) -> None:
    """A clip of 3 s ends in silence, of one of 11 s the last second is not heard."""
    clips = []
    for seconds in (3.0, 11.0):
        path = tmp_path / f"{seconds}.mp4"
        write(path, ("horn",), seconds, np.random.default_rng(0))
        clips.append(Clip(path.stem, path, "train", ()))
    arrays, _ = extract(log_mel_feature(), Corpus("toy", (), tuple(clips), (), "d"))
    assert arrays[:].shape == (2, 240, 64)
    np.testing.assert_allclose(arrays[0][75:], np.log(1e-8), atol=0.01)  # a window that begins at 3.1 s or later
    assert arrays[0][:70].astype(float).min() > np.log(1e-7) and arrays[1].astype(float).min() > np.log(1e-7)


# --- what it learns ---------------------------------------------------------------------------------------


def test_sounds_are_learnt_from_weak_labels(toy: tuple[Corpus, ClipArrays]) -> None:
    """Half of the tags of other clips are right by chance; asked for is more than half of the way to all of them."""
    corpus, log_mel = toy
    trained = train_gated_crnn(corpus, log_mel, TINY, 0, CPU)
    assert trained.scores.shape == (60, 2) and trained.scores.dtype == np.float32 and trained.seconds > 0
    held_out = np.array([clip.split == "test" for clip in corpus.clips])
    assert ((trained.scores > 0.5) == corpus.targets())[held_out].mean() > 0.75


def test_the_same_training_is_found_again(toy: tuple[Corpus, ClipArrays], home: Path) -> None:
    corpus, log_mel = toy
    short = replace(TINY, steps=3)
    first = train_gated_crnn(corpus, log_mel, short, 0, CPU)
    before = first.paths[0].stat().st_mtime_ns
    again = train_gated_crnn(corpus, log_mel, short, 0, CPU)
    assert again.paths == first.paths and first.paths[0].stat().st_mtime_ns == before
    assert again.seconds == first.seconds
    np.testing.assert_array_equal(again.scores, first.scores)
    assert [path.name for path in (home / "models").iterdir()] == [first.paths[0].name]

    first.paths[0].unlink()
    np.testing.assert_array_equal(train_gated_crnn(corpus, log_mel, short, 0, CPU).scores, first.scores)

    clips = corpus.clips
    swapped = replace(corpus, clips=(clips[0], replace(clips[1], labels=clips[1].labels[1:] or ("horn",)), *clips[2:]))
    moved = replace(corpus, clips=(*clips[:-1], replace(clips[-1], split="test")))
    others = [
        train_gated_crnn(*arguments, CPU).paths
        for arguments in (
            (corpus, log_mel, short, 1),
            (corpus, log_mel, replace(short, batch=4), 0),
            (swapped, log_mel, short, 0),
            (moved, log_mel, short, 0),
            (corpus, ClipArrays(log_mel.paths[::-1]), short, 0),
        )
    ]
    assert len({first.paths, *others}) == 6


def test_labels_of_test_clips_change_nothing(toy: tuple[Corpus, ClipArrays]) -> None:
    corpus, log_mel = toy
    blind = replace(
        corpus, clips=tuple(replace(clip, labels=()) if clip.split == "test" else clip for clip in corpus.clips)
    )
    assert blind.targets().sum() < corpus.targets().sum()
    short = replace(TINY, steps=3)
    seen, unseen = (train_gated_crnn(one, log_mel, short, 0, CPU) for one in (corpus, blind))
    assert seen.paths == unseen.paths
    seen.paths[0].unlink()
    np.testing.assert_array_equal(train_gated_crnn(blind, log_mel, short, 0, CPU).scores, seen.scores)


def test_the_checkpoint_holds_the_network(toy: tuple[Corpus, ClipArrays]) -> None:
    corpus, log_mel = toy
    trained = train_gated_crnn(corpus, log_mel, replace(TINY, steps=3), 0, CPU)
    kept = torch.load(trained.paths[0], weights_only=True)
    assert kept["classes"] == list(CLASSES)
    model = GatedCRNN(GatedCRNNConfig(**kept["config"])).eval()
    model.load_state_dict(kept["weights"])
    with torch.inference_mode():
        scores = model(torch.from_numpy(log_mel[:]).float()).numpy()
    np.testing.assert_allclose(scores, trained.scores, atol=1e-6)
    heard = np.stack([array for array, clip in zip(log_mel, corpus.clips, strict=True) if clip.split == "train"])
    np.testing.assert_allclose(model.mean.numpy(), heard.astype(float).mean(axis=(0, 1)), atol=1e-3)


def test_the_fusion_is_the_mean_of_networks_of_other_seeds(toy: tuple[Corpus, ClipArrays]) -> None:
    corpus, log_mel = toy
    short = replace(TINY, steps=3)
    fused = train_fusion(corpus, log_mel, short, 4, CPU)
    assert len(set(fused.paths)) == 3
    members = [torch.load(path, weights_only=True)["scores"].numpy() for path in fused.paths]
    single = train_gated_crnn(corpus, log_mel, short, 4, CPU)
    assert single.paths[0] == fused.paths[0]
    np.testing.assert_array_equal(members[0], single.scores)
    assert not np.array_equal(members[0], members[1]) and not np.array_equal(members[1], members[2])
    np.testing.assert_allclose(fused.scores, (members[0] + members[1] + members[2]) / 3, rtol=1e-6)
    assert not set(fused.paths) & set(train_fusion(corpus, log_mel, short, 5, CPU).paths)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_fit_ten_seconds(name: str) -> None:
    with torch.inference_mode():
        scores = GatedCRNN(PROFILES[name].network).eval()(torch.randn(1, 240, 64))
    assert scores.shape == (1, 17)


def test_arrays_of_other_clips_are_refused(toy: tuple[Corpus, ClipArrays]) -> None:
    corpus, log_mel = toy
    with pytest.raises(ValueError, match=r"toy: .* 60 clips, found 59"):
        train_gated_crnn(corpus, ClipArrays(log_mel.paths[1:]), TINY, 0, CPU)
