"""The papers' image networks: their true architectures on random weights in the layouts of the published files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F
from weight_files import loaded, random_weights

from avrepro import backbones
from avrepro.backbones.caffenet import CaffeNet
from avrepro.backbones.efficientnet import EfficientNetLite0
from avrepro.backbones.imagenet import without_background
from avrepro.backbones.images import CLASSES
from avrepro.backbones.vggish import VGGish
from avrepro.backbones.weights import load_strictly
from avrepro.backbones.yamnet import YAMNet
from avrepro.fetch import find
from avrepro.recipes import file_digest


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Torchvision's AlexNet and ResNet-152, and timm's Inception-v4 with the published file's 1001 classes."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.device("meta"):
        networks = {
            "alexnet": torchvision.models.alexnet(),
            "inception_v4": timm.create_model("inception_v4", num_classes=1001),
            "resnet152": torchvision.models.resnet152(),
        }
    paths = {}
    for seed, (name, network) in enumerate(networks.items()):
        paths[name] = folder / f"{name}.pth"
        torch.save(random_weights(network, seed), paths[name])
    yield paths
    for path in paths.values():  # 650 MB
        path.unlink()


@pytest.fixture(scope="module")
def resnet(files: dict[str, Path]) -> Any:
    return loaded("resnet152", **files)


def standardised(frames: np.ndarray) -> Tensor:
    """By the statistics that torchvision documents."""
    pictures = torch.from_numpy(frames / 255.0).permute(0, 3, 1, 2)
    statistics = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)[..., None, None]
    return ((pictures - statistics[0]) / statistics[1]).float()


def test_alexnet_and_inception(files: dict[str, Path]) -> None:
    """conv5 maps, pooled features and probabilities are what the whole networks compute on prepared pictures."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 112, 3), dtype=np.uint8)
    model = loaded("inception-v4", **files)
    maps = model.maps(frames)
    assert maps.shape[:2] == (2, 256) and maps.dtype == np.float32 and (maps >= 0).all() and maps.std() > 0
    pooled = model.pooled(frames)
    assert pooled.shape == (2, 1536) and pooled.dtype == np.float32
    probabilities = model.classify(pooled)

    network: Any = timm.create_model("inception_v4", num_classes=1001)
    whole = load_strictly(network, files["inception_v4"])
    outputs: list[Tensor] = []
    whole.global_pool.register_forward_hook(lambda _, __, output: outputs.append(output))
    with torch.inference_mode():
        logits = whole(2 * torch.from_numpy(frames / 255.0).permute(0, 3, 1, 2).float() - 1)
        alexnet = load_strictly(torchvision.models.alexnet(), files["alexnet"])
        fifth = alexnet.features[:10](standardised(frames))  # four convolutions
        fifth = F.relu(F.conv2d(fifth, alexnet.features[10].weight, alexnet.features[10].bias, padding=1))
    np.testing.assert_allclose(pooled, outputs[0].numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(probabilities, logits[:, 1:].softmax(1).numpy(), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(maps, fifth.numpy(), rtol=1e-3, atol=1e-4 * maps.max())
    assert model.name == "inception-v4" and model.classes[555] == "fire truck" and not model.inception.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_only_the_published_background_class_is_left_out(tmp_path: Path) -> None:
    weights = {"last_linear.weight": torch.randn(1001, 4), "last_linear.bias": torch.randn(1001), "x": torch.ones(1001)}
    torch.save(weights, tmp_path / "w.pth")
    expected = {name: value if name == "x" else value[1:] for name, value in weights.items()}
    torch.testing.assert_close(without_background(tmp_path / "w.pth"), expected)
    torch.save(expected, tmp_path / "w.pth")
    torch.testing.assert_close(without_background(tmp_path / "w.pth"), expected)


def test_resnet152(files: dict[str, Path], resnet: Any) -> None:
    """Maps, pooled features and probabilities are those of torchvision's network, taken from inside it."""
    frames = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    whole = load_strictly(torchvision.models.resnet152(), files["resnet152"])
    outputs: list[Tensor] = []
    whole.layer4.register_forward_hook(lambda _, __, output: outputs.append(output))
    whole.avgpool.register_forward_hook(lambda _, __, output: outputs.append(output.flatten(1)))
    with torch.inference_mode():
        logits = whole(standardised(frames))
    maps, pooled = resnet.maps(frames), resnet.pooled(frames)
    assert maps.shape == (2, 2048, 7, 7) and pooled.shape == (2, 2048) and pooled.dtype == np.float32
    np.testing.assert_allclose(maps, outputs[0].numpy(), rtol=1e-3, atol=1e-4 * maps.max())
    np.testing.assert_allclose(pooled, outputs[1].numpy(), rtol=1e-3, atol=1e-4 * pooled.max())
    features = pooled / pooled.max()  # of random weights, too large for probabilities other than 0 and 1
    with torch.inference_mode():
        expected = whole.fc(torch.from_numpy(features)).softmax(1)
    np.testing.assert_allclose(resnet.classify(features), expected.numpy(), rtol=1e-4)
    np.testing.assert_array_equal(resnet.classify(pooled).argmax(1), logits.argmax(1).numpy())


def test_frames_of_other_sizes_are_resized_whole(resnet: Any) -> None:
    """A picture of two colours, as a small and as a large one, gives (nearly) the same features."""
    small = np.full((1, 56, 112, 3), 40, np.uint8)
    small[:, :, 56:] = 200
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    (a,), (b,), (mirrored,) = resnet.pooled(small), resnet.pooled(large), resnet.pooled(small[:, :, ::-1])
    assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a - mirrored)


def test_networks_by_name() -> None:
    network = backbones.load("efficientnet-lite0", torch.device("cpu"))
    assert network.name == "efficientnet-lite0" and network.size is None and len(set(CLASSES)) == 998
    assert backbones.load("efficientnet-lite0", torch.device("cpu")) is network
    for call in (backbones.recipe, lambda name: backbones.load(name, torch.device("cpu"))):
        with pytest.raises(ValueError, match="unknown network 'resnet', known are efficientnet-lite0, inception-v4, r"):
            call("resnet")


def test_recipes_name_the_weights() -> None:
    """By the hashes of their files."""
    recipes = {name: backbones.recipe(name) for name in backbones.NETWORKS}
    assert all(recipe.versions == {f"backbone/{name}": 1} for name, recipe in recipes.items())
    hashes = {  # of each file, its first digits, as the published names have them or the publishers state them
        "efficientnet-lite0": ["57934424"], "inception-v4": ["7be5be79", "8e4777a0"], "resnet152": ["394f9c45"],
        "caffenet": ["4c8d77de"], "vggish": ["10086976"], "yamnet": ["540bf1f5"],
    }  # fmt: skip
    assert {name: [known[:8] for known in recipe.data.split()] for name, recipe in recipes.items()} == hashes
    wheel = find("yamnet")
    assert wheel is None or recipes["yamnet"].data == file_digest(wheel)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["efficientnet-lite0", "caffenet", "vggish", "yamnet"])
def test_equal_on_a_gpu(name: str) -> None:
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 256, (2, 96, 160, 3), dtype=np.uint8)
    waveforms = 0.1 * rng.standard_normal((2, 32_000)).astype(np.float32)
    network, compute = {
        "efficientnet-lite0": lambda: (EfficientNetLite0(size=None), lambda network: network.pooled(frames)),
        "caffenet": lambda: (CaffeNet(), lambda network: network.region_maps(frames)),
        "vggish": lambda: (VGGish(), lambda network: network(waveforms).cpu().numpy()),
        "yamnet": lambda: (YAMNet(), lambda network: network(waveforms)[1].cpu().numpy()),
    }[name]()
    with torch.inference_mode():
        here = compute(network.eval())
        np.testing.assert_allclose(compute(network.to("cuda")), here, atol=1e-2 * np.abs(here).max())
