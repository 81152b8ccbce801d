"""CaffeNet against a slow, literal NumPy network, and its weights out of files in Caffe's own format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from avrepro.models.caffenet import MEAN, CaffeNet, normalise, pool, read_caffemodel
from avrepro.models.weights import WeightsError

# (name, shape) as the network's published description gives them
SHAPES = {
    "conv1": (96, 3, 11, 11), "conv2": (256, 48, 5, 5), "conv3": (384, 256, 3, 3), "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3), "fc6": (4096, 9216), "fc7": (4096, 4096), "fc8": (1000, 4096),
}  # fmt: skip
Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    """Random weights that keep activations in the hundreds, where the normalisation matters."""
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in SHAPES.items():
        gain = 3.0 if name.startswith("conv") else 1.0
        arrays[f"{name}.weight"] = rng.standard_normal(shape, np.float32) * np.float32(gain / np.prod(shape[1:]) ** 0.5)
        arrays[f"{name}.bias"] = rng.standard_normal(shape[0], np.float32)
    return arrays


@pytest.fixture(scope="module")
def network(arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> CaffeNet:
    path = tmp_path_factory.mktemp("caffenet") / "caffenet.npz"
    np.savez(path, **arrays)  # type: ignore[arg-type]
    network = CaffeNet.pretrained(path)
    path.unlink()  # 244 MB
    return network


# --- the literal network: one picture, float64 [channels, height, width]


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, pad: int, groups: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    size, out = weight.shape[2], []
    for group in range(groups):  # each group of outputs sees its own group of inputs
        seen = np.split(x, groups)[group]
        kernels = np.split(weight, groups)[group]
        height, width = ((side - size) // stride + 1 for side in x.shape[1:])
        result = np.zeros((len(kernels), height, width))
        for i in range(height):
            for j in range(width):
                window = seen[:, i * stride : i * stride + size, j * stride : j * stride + size]
                result[:, i, j] = np.tensordot(kernels, window, 3)
        out.append(result)
    return np.concatenate(out) + bias[:, None, None]


def caffe_pool(x: np.ndarray, pad: int = 0) -> np.ndarray:
    """Maximum of 3 x 3 every 2; Caffe's size: rounded up, but no window that starts beyond picture and padding."""
    sizes = []
    for side in x.shape[1:]:
        count = int(np.ceil((side + 2 * pad - 3) / 2)) + 1
        if pad and (count - 1) * 2 >= side + pad:
            count -= 1
        sizes.append(count)
    out = np.zeros((len(x), *sizes))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            top, left = max(2 * i - pad, 0), max(2 * j - pad, 0)
            out[:, i, j] = x[:, top : 2 * i - pad + 3, left : 2 * j - pad + 3].max(axis=(1, 2))
    return out


def caffe_lrn(x: np.ndarray, size: int = 5, alpha: float = 1e-4, beta: float = 0.75) -> np.ndarray:
    out = np.empty_like(x)
    for channel in range(len(x)):
        near = x[max(channel - size // 2, 0) : channel + size // 2 + 1]
        out[channel] = x[channel] / (1 + alpha / size * (near**2).sum(axis=0)) ** beta
    return out


def literal(x: np.ndarray, a: Arrays, margin: int = 0, edge: int = 0, swapped: bool = False) -> np.ndarray:
    def step(x: np.ndarray, name: str, stride: int = 1, pad: int = 0, groups: int = 1) -> np.ndarray:
        return np.maximum(convolve(x, a[f"{name}.weight"], a[f"{name}.bias"], stride, pad, groups), 0)

    def shrink(x: np.ndarray) -> np.ndarray:
        return caffe_pool(caffe_lrn(x), edge) if swapped else caffe_lrn(caffe_pool(x, edge))

    x = shrink(step(x, "conv1", stride=4, pad=margin))
    x = shrink(step(x, "conv2", pad=2, groups=2))
    x = step(x, "conv3", pad=1)
    x = step(x, "conv4", pad=1, groups=2)
    return step(x, "conv5", pad=1, groups=2)


def test_equals_the_literal_network(network: CaffeNet, arrays: Arrays) -> None:
    images = np.random.default_rng(1).uniform(-120, 150, (2, 3, 91, 103)).astype(np.float32)
    for padded, margins in ((False, (0, 0)), (True, (5, 1))):
        with torch.inference_mode():
            found = network.convolutions(torch.from_numpy(images), padded).numpy()
        for image, maps in zip(images, found, strict=True):
            expected = literal(image.astype(np.float64), arrays, *margins)
            assert maps.shape == expected.shape
            np.testing.assert_allclose(maps, expected, atol=2e-4 * expected.max())
    # AlexNet's order, normalisation before pooling, is another network
    other = literal(images[0].astype(np.float64), arrays, swapped=True)
    with torch.inference_mode():
        found = network.convolutions(torch.from_numpy(images[:1])).numpy()[0]
    assert np.abs(other - found).max() > 0.02 * found.max()


@pytest.mark.parametrize("side", [13, 14, 27, 55, 56])
@pytest.mark.parametrize("edge", [0, 1])
def test_pooling_rounds_sizes_up(side: int, edge: int) -> None:
    x = np.random.default_rng(side).standard_normal((4, side, side + 3)) - 5  # below 0: padding must not win
    np.testing.assert_array_equal(pool(torch.from_numpy(x), edge).numpy(), caffe_pool(x, edge))


def test_normalisation_divides_alpha_by_its_channels() -> None:
    x = np.random.default_rng(2).standard_normal((7, 4, 5)) * 300
    np.testing.assert_allclose(normalise(torch.from_numpy(x)[None])[0].numpy(), caffe_lrn(x), rtol=1e-10)
    assert not np.allclose(caffe_lrn(x, alpha=5e-4), caffe_lrn(x), rtol=0.1)


def test_shapes(network: CaffeNet) -> None:
    frames = np.random.default_rng(3).integers(0, 256, (2, 100, 160, 3), dtype=np.uint8)
    maps, pooled = network.maps(frames), network.pooled(frames)
    assert maps.shape == (2, 256, 6, 6) and pooled.shape == (2, 4096) and maps.dtype == pooled.dtype == np.float32
    probabilities = network.classify(pooled / pooled.max())
    assert probabilities.shape == (2, 1000) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert network.region_maps(frames).shape == (2, 256, 7, 11)
    assert not network.training and not any(p.requires_grad for p in network.parameters())


def test_features_follow_the_maps(network: CaffeNet, arrays: Arrays) -> None:
    frames = np.random.default_rng(4).integers(0, 256, (1, 227, 227, 3), dtype=np.uint8)
    x = network.maps(frames).reshape(1, -1).astype(np.float64)
    for name in ("fc6", "fc7"):
        x = np.maximum(x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"], 0)
    np.testing.assert_allclose(network.pooled(frames), x, atol=1e-4 * x.max())


def test_input_is_blue_green_red_less_the_mean(network: CaffeNet) -> None:
    frames = np.zeros((1, 227, 227, 3), np.uint8)
    frames[..., 0], frames[..., 1] = 200, 100  # red, green
    images = network.prepare(frames, 227)
    for channel, value in enumerate((0, 100, 200)):
        torch.testing.assert_close(images[0, channel], torch.full((227, 227), value - MEAN[channel]))
    assert MEAN[0] < MEAN[1] < MEAN[2] and abs(MEAN[2] - 255 * 0.485) < 2  # red is strongest, 0.485 in 0..1


def test_cells_of_region_maps_lie_every_16_pixels() -> None:
    """A point of light at pixel (16 a, 16 b) gives maps that are symmetric about cell (a, b)."""
    network = CaffeNet()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(0.0 if parameter.dim() == 1 else 0.01)
    a, b = 6, 8
    image = torch.zeros(1, 3, 16 * 2 * a + 1, 16 * 2 * b + 1)
    image[:, :, 16 * a, 16 * b] = 100.0
    with torch.inference_mode():
        maps = network.convolutions(image, padded=True)[0, 0]
    assert maps.shape == (2 * a + 1, 2 * b + 1) and maps[a, b] == maps.max() > 0
    torch.testing.assert_close(maps, maps.flip(0), rtol=1e-4, atol=0)
    torch.testing.assert_close(maps, maps.flip(1), rtol=1e-4, atol=0)


# --- Caffe's own files, written here by hand


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def new_layer(name: str, blobs: list[np.ndarray]) -> bytes:
    """LayerParameter, and blobs with BlobShape."""
    content = field(1, name.encode()) + field(2, b"Convolution")
    for blob in blobs:
        shape = field(7, field(1, b"".join(varint(side) for side in blob.shape)))
        content += field(7, shape + field(5, blob.astype("<f4").tobytes()))
    return field(100, content)


def old_layer(name: str, blobs: list[np.ndarray]) -> bytes:
    """V1LayerParameter, and blobs of always four dimensions."""
    content = field(2, b"bottom") + field(3, b"top") + field(4, name.encode()) + field(5, 4)
    for blob in blobs:
        four = (1,) * (4 - blob.ndim) + blob.shape
        sides = b"".join(field(number, side) for number, side in enumerate(four, start=1))
        content += field(6, sides + field(5, blob.astype("<f4").tobytes()))
    return field(2, content)


Layer = Callable[[str, list[np.ndarray]], bytes]


def caffemodel(layer: Layer, arrays: Arrays) -> bytes:
    names = dict.fromkeys(name.split(".")[0] for name in arrays)
    layers = [layer(name, [arrays[f"{name}.weight"], arrays[f"{name}.bias"]]) for name in names]
    return b"".join([field(1, b"CaffeNet"), layer("data", []), *layers, layer("relu", [])])


def test_whole_network_in_caffes_format(arrays: Arrays, network: CaffeNet, tmp_path: Path) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(old_layer, arrays))  # as the published file, of 2014, has them
    found = CaffeNet.pretrained(path)
    path.unlink()  # 244 MB
    for name, value in network.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


@pytest.mark.parametrize("layer", [new_layer, old_layer])
def test_caffes_formats_and_their_damage(layer: Layer, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    shapes = {"conv1": (3, 2, 2, 2), "fc8": (4, 5)}
    arrays = {f"{name}.weight": rng.standard_normal(shape) for name, shape in shapes.items()}
    arrays |= {f"{name}.bias": rng.standard_normal(shape[0]) for name, shape in shapes.items()}
    whole, path = caffemodel(layer, arrays), tmp_path / "net.caffemodel"
    path.write_bytes(whole)
    found = read_caffemodel(path)
    assert set(found) == set(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), value.astype(np.float32))
    for content in (whole[:40], whole[:-30], b"<html>404</html>", layer("conv1", [arrays["fc8.bias"]])):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"net\.caffemodel: expected a Caffe model; found: "):
            read_caffemodel(path)
    for content in (b"", whole):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"net\.caffemodel: expected the 16 arrays of CaffeNet; found"):
            CaffeNet.pretrained(path)
    with pytest.raises(WeightsError, match=r"absent\.caffemodel: expected a Caffe model"):
        CaffeNet.pretrained(tmp_path / "absent.caffemodel")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_equal_on_a_gpu(network: CaffeNet) -> None:
    frames = np.random.default_rng(6).integers(0, 256, (2, 100, 160, 3), dtype=np.uint8)
    here = network.maps(frames)
    np.testing.assert_allclose(network.cuda().maps(frames), here, atol=1e-2 * here.max())
    network.cpu()
