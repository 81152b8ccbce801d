"""The papers' image networks: their true architectures on random weights in the layouts of the published files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from weight_files import loaded, random_weights

from avrepro import backbones
from avrepro.backbones.caffenet import CaffeNet
from avrepro.backbones.efficientnet import EfficientNetLite0
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
    assert not model.inception.training and not any(parameter.requires_grad for parameter in model.parameters())


def test_resnet152(files: dict[str, Path]) -> None:
    """Pooled features are those of torchvision's network, taken from inside it, on pictures resized whole."""
    resnet = loaded("resnet152", **files)
    whole = load_strictly(torchvision.models.resnet152(), files["resnet152"])
    outputs: list[Tensor] = []
    whole.avgpool.register_forward_hook(lambda _, __, output: outputs.append(output.flatten(1)))
    small = np.full((1, 56, 112, 3), 40, np.uint8)
    small[:, :, 56:] = 200
    for frames in (np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8), small):
        images = F.interpolate(standardised(frames), (224, 224), mode="bilinear", align_corners=False)
        with torch.inference_mode():
            whole(images)
        pooled = resnet.pooled(frames)
        assert pooled.shape == (len(frames), 2048) and pooled.dtype == np.float32
        np.testing.assert_allclose(pooled, outputs[-1].numpy(), rtol=1e-3, atol=1e-4 * pooled.max())


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
def test_equal_on_a_gpu() -> None:
    rng = np.random.default_rng(5)
    frames = rng.integers(0, 256, (2, 96, 160, 3), dtype=np.uint8)
    waveforms = 0.1 * rng.standard_normal((2, 32_000)).astype(np.float32)
    computes: dict[nn.Module, Callable[[Any], np.ndarray]] = {
        EfficientNetLite0(size=None): lambda network: network.pooled(frames),
        CaffeNet(): lambda network: network.maps(frames),
        VGGish(): lambda network: network(waveforms).cpu().numpy(),
        YAMNet(): lambda network: network(waveforms)[1].cpu().numpy(),
    }
    with torch.inference_mode():
        for network, compute in computes.items():
            here = compute(network.eval())
            np.testing.assert_allclose(compute(network.to("cuda")), here, atol=1e-2 * np.abs(here).max())
