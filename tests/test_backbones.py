"""The paper's image networks: their true architectures on random weights, and the strictness of their files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from avrepro.models.backbones import AlexNetInception, WeightsError, load_backbone, load_strictly

CPU = torch.device("cpu")


def random_weights(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """A value for every name of a network built without memory: small weights, norms near 1."""
    rng = torch.Generator().manual_seed(seed)
    weights = {}
    for name, like in network.state_dict().items():
        if not like.dtype.is_floating_point:
            weights[name] = torch.ones(like.shape, dtype=like.dtype)
        elif name.endswith("running_var") or (like.dim() == 1 and name.endswith("bn.weight")):
            weights[name] = torch.rand(like.shape, generator=rng) + 0.5
        else:
            fan_in = like[0].numel() if like.dim() > 1 else 100
            weights[name] = torch.randn(like.shape, generator=rng) * (1.5 / fan_in**0.5)
    return weights


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Weights in the layouts of the published files: torchvision's AlexNet, timm's Inception-v4."""
    folder = tmp_path_factory.mktemp("weights")
    paths = folder / "alexnet.pth", folder / "inception.pth"
    with torch.device("meta"):
        networks = torchvision.models.alexnet(), timm.create_model("inception_v4")
    for seed, (network, path) in enumerate(zip(networks, paths, strict=True)):
        torch.save(random_weights(network, seed), path)
    yield paths
    for path in paths:  # 400 MB
        path.unlink()


def test_the_papers_networks(files: tuple[Path, Path]) -> None:
    """conv5 maps, pooled features and probabilities are what the whole networks compute on prepared pictures."""
    model = AlexNetInception(*files, CPU)
    frames = np.random.default_rng(0).integers(0, 256, (2, 96, 112, 3), dtype=np.uint8)
    maps = model.maps(frames)
    assert maps.shape[:2] == (2, 256) and maps.dtype == np.float32 and (maps >= 0).all() and maps.std() > 0
    pooled = model.pooled(frames)
    assert pooled.shape == (2, 1536) and pooled.dtype == np.float32
    probabilities = model.classify(pooled)
    assert probabilities.shape == (2, 1000) and (probabilities >= 0).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert len(model.classes) == 1000 and model.classes[555] == "fire truck"

    pictures = torch.from_numpy(frames / 255.0).permute(0, 3, 1, 2)
    statistics = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.float64)[..., None, None]
    with torch.inference_mode():
        whole = model.inception((2 * pictures - 1).float()).softmax(1)
        alexnet = load_strictly(torchvision.models.alexnet(), files[0])
        fifth = alexnet.features[:10](((pictures - statistics[0]) / statistics[1]).float())  # four convolutions
        fifth = nn.functional.relu(nn.functional.conv2d(
            fifth, alexnet.features[10].weight, alexnet.features[10].bias, padding=1))  # fmt: skip
    np.testing.assert_allclose(probabilities, whole.numpy(), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(maps, fifth.numpy(), rtol=1e-3, atol=1e-4 * maps.max())
    assert not model.inception.training
    assert not any(p.requires_grad for network in (model.conv5, model.inception) for p in network.parameters())


def little() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_weights_are_loaded_exactly(tmp_path: Path) -> None:
    torch.manual_seed(0)
    origin, path = little(), tmp_path / "w.pth"
    torch.save(origin.state_dict(), path)
    loaded = load_strictly(little(), path)
    for name, value in origin.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(little().state_dict(), path)
    whole, good = path.read_bytes(), little().state_dict()
    renamed = {name.replace("0.", "first."): value for name, value in good.items()}
    contents: list[tuple[object, str]] = [
        (b"", ""), (b"no weights", ""), (whole[:100], ""), (whole[: len(whole) // 2], ""), (whole[:-40], ""),
        (b"<html>404</html>", ""), (b"\0" * 200 + whole[200:], ""),
        (renamed, "first.weight"), ({**good, "extra": torch.zeros(1)}, "extra"),
        ({name: value for name, value in good.items() if name != "2.bias"}, "2.bias"),
        ({**good, "2.weight": torch.zeros(2, 5)}, "2.weight"), ({**good, "2.weight": "text"}, "2.weight"),
        ({}, "0.weight"), ([1, 2], ""), (torch.zeros(2), ""), (little(), "weights_only"),
        (torchvision.models.squeezenet1_0().state_dict(), "features"),
    ]  # fmt: skip
    for content, expected in contents:
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path)
        with pytest.raises(WeightsError) as caught:
            load_strictly(little(), path)
        message = str(caught.value)
        assert message.startswith(f"{path}: expected the weights of Sequential; found: ") and expected in message
        assert len(message) < 700
    with pytest.raises(WeightsError, match="absent"):
        load_strictly(little(), tmp_path / "absent.pth")


def test_each_networks_file_is_refused_for_the_other(files: tuple[Path, Path]) -> None:
    with pytest.raises(WeightsError, match=r"inception.pth: expected the weights of AlexNet"):
        AlexNetInception(files[1], files[0], CPU)


def test_networks_by_name() -> None:
    network = load_backbone("efficientnet-lite0", CPU)
    frames = np.zeros((1, 64, 96, 3), np.uint8)
    assert network.name == "efficientnet-lite0" and len(network.classes) == 1000
    assert network.classify(network.pooled(frames)).shape == (1, 1000)
    with pytest.raises(ValueError, match="unknown network 'resnet', known are efficientnet-lite0, inception-v4"):
        load_backbone("resnet", CPU)
