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
from torch import Tensor, nn
from torch.nn import functional as F

from avrepro.models import backbones
from avrepro.models.backbones import AlexNetInception, ResNet152, load_backbone, without_background
from avrepro.models.caffenet import CaffeNet
from avrepro.models.weights import WeightsError, load_strictly

CPU = torch.device("cpu")


def random_weights(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """A value for every name of a network built without memory: small weights, norms near 1."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for name, like in network.state_dict().items():
        if not like.dtype.is_floating_point:
            weights[name] = torch.ones(like.shape, dtype=like.dtype)
        elif name.endswith("running_var") or (like.dim() == 1 and name.endswith("weight")):
            weights[name] = torch.rand(like.shape, generator=rng) + 0.5
        else:
            fan_in = like[0].numel() if like.dim() > 1 else 100
            weights[name] = torch.randn(like.shape, generator=rng) * (1.5 / fan_in**0.5)
    return weights


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Torchvision's AlexNet and ResNet-152, timm's Inception-v4 with the published file's 1001 classes, CaffeNet."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.device("meta"):
        networks = {
            "alexnet": torchvision.models.alexnet(),
            "inception_v4": timm.create_model("inception_v4", num_classes=1001),
            "resnet152": torchvision.models.resnet152(),
            "caffenet": CaffeNet(),
        }
    paths = {}
    for seed, (name, network) in enumerate(networks.items()):
        paths[name] = folder / f"{name}.pth"
        torch.save(random_weights(network, seed), paths[name])
    yield paths
    for path in paths.values():  # 900 MB
        path.unlink()


@pytest.fixture
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, 96, 112, 3), dtype=np.uint8)


def normalised(frames: np.ndarray) -> Tensor:
    """By the statistics that torchvision documents."""
    pictures = torch.from_numpy(frames / 255.0).permute(0, 3, 1, 2)
    statistics = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)[..., None, None]
    return ((pictures - statistics[0]) / statistics[1]).float()


def test_alexnet_and_inception(files: dict[str, Path], frames: np.ndarray) -> None:
    """conv5 maps, pooled features and probabilities are what the whole networks compute on prepared pictures."""
    model = AlexNetInception(files["alexnet"], files["inception_v4"], CPU)
    maps = model.maps(frames)
    assert maps.shape[:2] == (2, 256) and maps.dtype == np.float32 and (maps >= 0).all() and maps.std() > 0
    pooled = model.pooled(frames)
    assert pooled.shape == (2, 1536) and pooled.dtype == np.float32
    probabilities = model.classify(pooled)
    assert probabilities.shape == (2, 1000) and (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert len(model.classes) == 1000 and model.classes[555] == "fire truck"

    network: Any = timm.create_model("inception_v4", num_classes=1001)
    whole = load_strictly(network, files["inception_v4"])
    seen: list[Tensor] = []
    whole.global_pool.register_forward_hook(lambda _, __, output: seen.append(output))
    with torch.inference_mode():
        logits = whole(2 * torch.from_numpy(frames / 255.0).permute(0, 3, 1, 2).float() - 1)
        alexnet = load_strictly(torchvision.models.alexnet(), files["alexnet"])
        fifth = alexnet.features[:10](normalised(frames))  # four convolutions
        fifth = F.relu(F.conv2d(fifth, alexnet.features[10].weight, alexnet.features[10].bias, padding=1))
    np.testing.assert_allclose(pooled, seen[0].numpy(), rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(probabilities, logits[:, 1:].softmax(1).numpy(), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(maps, fifth.numpy(), rtol=1e-3, atol=1e-4 * maps.max())
    assert not model.inception.training
    assert not any(p.requires_grad for network in (model.conv5, model.inception) for p in network.parameters())


def test_only_the_published_background_class_is_left_out() -> None:
    weights = {"last_linear.weight": torch.randn(1001, 4), "last_linear.bias": torch.randn(1001), "x": torch.ones(1001)}
    found = without_background(weights)
    assert torch.equal(found["last_linear.weight"], weights["last_linear.weight"][1:])
    assert torch.equal(found["last_linear.bias"], weights["last_linear.bias"][1:])
    assert found["x"].shape == (1001,)
    thousand = {"last_linear.weight": torch.randn(1000, 4)}
    assert without_background(thousand)["last_linear.weight"] is thousand["last_linear.weight"]


def test_resnet152(files: dict[str, Path]) -> None:
    """Maps, pooled features and probabilities are those of torchvision's network, taken from inside it."""
    frames = np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    model = ResNet152(files["resnet152"], CPU)
    whole = load_strictly(torchvision.models.resnet152(), files["resnet152"])
    seen: list[Tensor] = []
    whole.layer4.register_forward_hook(lambda _, __, output: seen.append(output))
    whole.avgpool.register_forward_hook(lambda _, __, output: seen.append(output.flatten(1)))
    with torch.inference_mode():
        logits = whole(normalised(frames))
    maps, pooled = model.maps(frames), model.pooled(frames)
    assert maps.shape == (2, 2048, 7, 7) and pooled.shape == (2, 2048) and pooled.dtype == np.float32
    np.testing.assert_allclose(maps, seen[0].numpy(), rtol=1e-3, atol=1e-4 * maps.max())
    np.testing.assert_allclose(pooled, seen[1].numpy(), rtol=1e-3, atol=1e-4 * pooled.max())
    features = pooled / pooled.max()  # of random weights, too large for probabilities other than 0 and 1
    with torch.inference_mode():
        expected = whole.fc(torch.from_numpy(features)).softmax(1)
    np.testing.assert_allclose(model.classify(features), expected.numpy(), rtol=1e-4)
    np.testing.assert_array_equal(model.classify(pooled).argmax(1), logits.argmax(1).numpy())


def test_frames_of_other_sizes_are_resized_whole(files: dict[str, Path]) -> None:
    """A picture of two colours, as a small and as a large one, gives (nearly) the same features."""
    small = np.full((1, 56, 112, 3), 40, np.uint8)
    small[:, :, 56:] = 200
    large = small.repeat(4, axis=1).repeat(4, axis=2)
    model = ResNet152(files["resnet152"], CPU)
    (a,), (b,), (other,) = (
        model.pooled(small),
        model.pooled(large),
        model.pooled(np.ascontiguousarray(small[:, :, ::-1])),
    )
    assert np.linalg.norm(a - b) < 0.1 * np.linalg.norm(a - other)


def test_each_networks_file_is_refused_for_another(files: dict[str, Path]) -> None:
    with pytest.raises(
        WeightsError, match=r"inception_v4.pth: expected the 16 arrays of AlexNet; found 896; 16 missing"
    ):
        AlexNetInception(files["inception_v4"], files["alexnet"], CPU)
    with pytest.raises(WeightsError, match=r"alexnet.pth: expected the 932 arrays of ResNet; found"):
        ResNet152(files["alexnet"], CPU)


def test_networks_by_name(files: dict[str, Path], frames: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has what the picture branches ask for; the paper's weights are fetched by the names of their sources."""
    monkeypatch.setattr(backbones, "fetch", files.__getitem__)
    for name, width in [("efficientnet-lite0", 2560), ("inception-v4", 1536), ("resnet152", 2048), ("caffenet", 4096)]:
        network = load_backbone(name, CPU)
        assert network.name == name and len(network.classes) == 1000
        assert network.maps(frames).shape[0] == 2 and network.maps(frames).ndim == 4
        pooled = network.pooled(frames)
        assert pooled.shape == (2, width) and pooled.dtype == np.float32
        assert network.classify(pooled).shape == (2, 1000)
    with pytest.raises(ValueError, match="unknown network 'resnet', known are efficientnet-lite0, inception-v4, resn"):
        load_backbone("resnet", CPU)
