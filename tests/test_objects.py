"""Key frames of real clips, and the probe that names drawn objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from avrepro.backbones import CLASSES
from avrepro.backbones import load as load_backbone
from avrepro.backbones.efficientnet import EfficientNetLite0
from avrepro.corpora.base import Clip, Corpus
from avrepro.corpora.demo.pictures import OBJECTS, object_pictures
from avrepro.encode import write_clip
from avrepro.features.objects import (
    Choice,
    _fit_probe,
    drawn_recogniser,
    imagenet_recogniser,
    key_frame_objects,
    key_frame_times,
)
from avrepro.features.store import extract

NETWORK, CPU = "efficientnet-lite0", torch.device("cpu")
SIZE = (96, 128)


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    return load_backbone(NETWORK, CPU)  # type: ignore[return-value]


@pytest.mark.usefixtures("home")
def test_the_probe_names_drawn_objects(network: EfficientNetLite0) -> None:
    """Taught with few small pictures it is far better than chance on pictures that it has not seen.

    Each of 217 objects occurs about three times, too few for a first place: what is looked at is how far up the
    list the largest object of a picture comes (chance: half way).
    """
    probe = drawn_recogniser(NETWORK, 320, SIZE, CPU)
    frames, presence = object_pictures(60, np.random.default_rng(99), SIZE)
    pooled = network.pooled(frames)
    probabilities = probe(pooled)
    assert probabilities.shape == (60, len(OBJECTS)) and probe.objects == tuple(OBJECTS)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    of_largest = probabilities[np.arange(60), presence.argmax(axis=1)]
    above = (probabilities < of_largest[:, None]).mean(axis=1)
    assert above.mean() > 0.65  # the standard error of chance is 0.29 / sqrt(60), 0.037
    drawn_recogniser.cache_clear()  # again, from the file
    again = drawn_recogniser(NETWORK, 320, SIZE, CPU)(pooled.reshape(15, 4, -1))
    np.testing.assert_array_equal(again.reshape(60, -1), probabilities)


def test_the_probe_is_logistic_regression() -> None:
    """Against scikit-learn on planted data: the same objective, L2 1e-3 on standardised inputs."""
    rng = np.random.default_rng(7)
    numbers = rng.integers(0, 5, 400)
    pooled = (rng.normal(size=(5, 8))[numbers] * 2 + rng.normal(size=(400, 8))) * 10 + 3
    weight, bias, accuracy = _fit_probe(pooled.astype(np.float32), np.eye(5, dtype=np.float32)[numbers])
    scaler = StandardScaler().fit(pooled)
    oracle = LogisticRegression(C=1 / (2 * 1e-3 * 360), tol=1e-8, max_iter=5000)
    oracle.fit(scaler.transform(pooled[:360]), numbers[:360])
    expected = oracle.predict_proba(scaler.transform(pooled))
    found = scipy.special.softmax(pooled @ weight + bias, axis=1)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert accuracy == pytest.approx((found[360:].argmax(axis=1) == numbers[360:]).mean())


def test_the_imagenet_classifier(network: EfficientNetLite0) -> None:
    recogniser = imagenet_recogniser(NETWORK, CPU)
    frames = np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), dtype=np.uint8)
    found = recogniser(network.pooled(frames).reshape(2, 2, -1))
    assert found.shape == (2, 2, 1000) and recogniser.objects == CLASSES
    np.testing.assert_allclose(found.reshape(4, -1), network.probabilities(frames), rtol=1e-3, atol=1e-6)


def scenes(path: Path, count: int, fps: int) -> np.ndarray:
    """A clip of 4 equally long drawn scenes; returns when its frames begin, s."""
    pictures, _ = object_pictures(4, np.random.default_rng(3), SIZE)
    frames = pictures[np.minimum(np.arange(count) * 4 // count, 3)]
    write_clip(path, frames, fps, np.zeros(8000 * count // fps + 1, np.float32), 8000)
    return np.arange(count) / fps


def features_of(path: Path, k: int, choice: Choice = "ds3") -> tuple[np.ndarray, np.ndarray]:
    corpus = Corpus("toy", ("a",), (Clip("one", path, "train", ()),), (), "d")
    times_feature = key_frame_times(NETWORK, 2.0, SIZE, k, CPU, choice)
    objects_feature = key_frame_objects(times_feature, NETWORK, SIZE, CPU)
    times, pooled = (extract(one, corpus) for one in (times_feature, objects_feature))
    assert times.present.all() and pooled.present.all()
    return times[0], pooled[0]


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("choice", ["ds3", "kmeans", "even"])
def test_key_frames_are_frames_of_the_clip(choice: Choice, network: EfficientNetLite0, tmp_path: Path) -> None:
    stamps = scenes(tmp_path / "scenes.mp4", count=60, fps=6)  # 10 s, a scene every 2.5 s
    times, pooled = features_of(tmp_path / "scenes.mp4", 4, choice)
    assert times.shape == (4,) and times.dtype == np.float64
    assert np.abs(times[:, None] - stamps).min(axis=1).max() < 1e-3
    assert sorted((times // 2.5).astype(int)) == [0, 1, 2, 3]  # one of each scene: they represent the clip
    assert choice != "even" or times.tolist() == [1.0, 3.5, 6.0, 8.5]
    assert pooled.shape == (4, 2560) and pooled.dtype == np.float32
    # the pooled are in the order of the times, most representative first, not in that of the clip
    pictures, _ = object_pictures(4, np.random.default_rng(3), SIZE)
    similarity = np.corrcoef(pooled, network.pooled(pictures))[:4, 4:]
    assert similarity.argmax(axis=1).tolist() == (times // 2.5).astype(int).tolist()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("count", "fps", "k"), [(1, 1, 4), (3, 3, 4), (6, 2, 1)])
def test_key_frames_of_short_clips(count: int, fps: int, k: int, tmp_path: Path) -> None:
    stamps = scenes(tmp_path / "short.mp4", count, fps)
    times, pooled = features_of(tmp_path / "short.mp4", k)
    assert times.shape == (k,) and pooled.shape == (k, 2560)
    assert np.abs(times[:, None] - stamps).min(axis=1).max() < 1e-3
