"""CaffeNet, read from a file in Caffe's own format, against a slow, literal NumPy network."""

from __future__ import annotations

import numpy as np
import pytest
from weight_files import Arrays, caffemodel, caffenet_arrays, loaded

from avrepro.backbones.caffenet import CaffeNet


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return caffenet_arrays()


@pytest.fixture(scope="module")
def network(arrays: Arrays, tmp_path_factory: pytest.TempPathFactory) -> CaffeNet:
    path = tmp_path_factory.mktemp("caffenet") / "net.caffemodel"
    path.write_bytes(caffemodel(arrays))
    network = loaded("caffenet", caffenet=path)
    path.unlink()  # 244 MB
    return network


# --- the literal network: one picture, float64 [channels, height, width]


def convolve(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, stride: int, pad: int, groups: int) -> np.ndarray:
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    size, out = weight.shape[2], []
    for group in range(groups):  # each group of outputs sees its own group of inputs
        inputs = np.split(x, groups)[group]
        kernels = np.split(weight, groups)[group]
        height, width = ((side - size) // stride + 1 for side in x.shape[1:])
        result = np.zeros((len(kernels), height, width))
        for i in range(height):
            for j in range(width):
                window = inputs[:, i * stride : i * stride + size, j * stride : j * stride + size]
                result[:, i, j] = np.tensordot(kernels, window, 3)
        out.append(result)
    return np.concatenate(out) + bias[:, None, None]


def caffe_pool(x: np.ndarray) -> np.ndarray:
    """Maximum of 3 x 3 every 2, margin 1; sizes are rounded up, but no window starts beyond picture and margin."""
    sizes = []
    for side in x.shape[1:]:
        count = int(np.ceil((side + 2 - 3) / 2)) + 1
        sizes.append(count - 1 if (count - 1) * 2 >= side + 1 else count)
    out = np.zeros((len(x), *sizes))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            out[:, i, j] = x[:, max(2 * i - 1, 0) : 2 * i + 2, max(2 * j - 1, 0) : 2 * j + 2].max(axis=(1, 2))
    return out


def caffe_lrn(x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    for channel in range(len(x)):
        near = x[max(channel - 2, 0) : channel + 3]  # 5 channels, by whose number Caffe divides alpha
        out[channel] = x[channel] / (1 + 1e-4 / 5 * (near**2).sum(axis=0)) ** 0.75
    return out


def literal(x: np.ndarray, a: Arrays) -> np.ndarray:
    def step(x: np.ndarray, name: str, stride: int = 1, pad: int = 1, groups: int = 1) -> np.ndarray:
        return np.maximum(convolve(x, a[f"{name}.weight"], a[f"{name}.bias"], stride, pad, groups), 0)

    def shrink(x: np.ndarray) -> np.ndarray:
        return caffe_lrn(caffe_pool(x))  # AlexNet's order is the other one

    x = shrink(step(x, "conv1", stride=4, pad=5))
    x = shrink(step(x, "conv2", pad=2, groups=2))
    x = step(x, "conv3")
    x = step(x, "conv4", groups=2)
    return step(x, "conv5", groups=2)


def test_equals_the_literal_network(network: CaffeNet, arrays: Arrays) -> None:
    frames = np.random.default_rng(1).integers(0, 256, (2, 91, 103, 3), dtype=np.uint8)
    found = network.maps(frames)
    assert found.dtype == np.float32
    images = (frames[..., ::-1] - np.array([104.007, 116.669, 122.679])).transpose(0, 3, 1, 2)  # blue, green, red
    for image, maps in zip(images, found, strict=True):
        expected = literal(image, arrays)
        assert maps.shape == expected.shape == (256, 7, 8)
        np.testing.assert_allclose(maps, expected, atol=2e-4 * expected.max())
    assert not network.training and not any(p.requires_grad for p in network.parameters())
