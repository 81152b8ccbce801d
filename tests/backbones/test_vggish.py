"""VGGish against the network's own definition in TensorFlow's layout, written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from weight_files import loaded

from avrepro.backbones.vggish import VGGish

# Layers of the original release, their names in the PyTorch port, and their shapes: [height, width, in, out], [in, out]
LAYERS = {
    "conv1": ("features.0", (3, 3, 1, 64)), "conv2": ("features.3", (3, 3, 64, 128)),
    "conv3_1": ("features.6", (3, 3, 128, 256)), "conv3_2": ("features.8", (3, 3, 256, 256)),
    "conv4_1": ("features.11", (3, 3, 256, 512)), "conv4_2": ("features.13", (3, 3, 512, 512)),
    "fc1_1": ("embeddings.0", (12288, 4096)), "fc1_2": ("embeddings.2", (4096, 4096)),
    "fc2": ("embeddings.4", (4096, 128)),
}  # fmt: skip
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def original() -> Arrays:
    rng = np.random.default_rng(0)
    arrays = {}
    for name, (_, shape) in LAYERS.items():
        kernel = rng.standard_normal(shape, np.float32) * np.float32(np.prod(shape[:-1]) ** -0.5)
        arrays[name] = kernel, rng.standard_normal(shape[-1], np.float32) / 10
    return arrays


@pytest.fixture(scope="module")
def network(original: Arrays, tmp_path_factory: pytest.TempPathFactory) -> VGGish:
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    port = {}
    for name, (kernel, bias) in original.items():
        turned = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        port[f"{LAYERS[name][0]}.weight"] = torch.from_numpy(np.ascontiguousarray(turned))
        port[f"{LAYERS[name][0]}.bias"] = torch.from_numpy(bias)
    torch.save(port, path)
    network = loaded("vggish", vggish=path)
    path.unlink()  # 288 MB
    return network


def in_numpy(patch: np.ndarray, original: Arrays) -> np.ndarray:
    """One patch [96, 64], channels last as in TensorFlow -> [128]."""
    x = patch[..., None]
    for name in ("conv1", "pool", "conv2", "pool", "conv3_1", "conv3_2", "pool", "conv4_1", "conv4_2", "pool"):
        if name == "pool":
            height, width, channels = x.shape
            x = x.reshape(height // 2, 2, width // 2, 2, channels).max(axis=(1, 3))
        else:
            kernel, bias = original[name]
            padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
            height, width = x.shape[:2]
            x = bias + sum(padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
            x = np.maximum(x, 0)
    x = x.reshape(-1)
    for name in ("fc1_1", "fc1_2", "fc2"):
        x = np.maximum(x @ original[name][0] + original[name][1], 0)
    return x


def test_equals_the_original_in_numpy(network: VGGish, original: Arrays) -> None:
    """A segment every 0.48 s, the last one completed by zeros; clips together or alone."""
    clips = 0.1 * torch.from_numpy(np.random.default_rng(1).standard_normal((3, 30_000)).astype(np.float32))
    embeddings = network(clips)
    assert embeddings.shape == (3, 3, 128) and embeddings.dtype == torch.float32
    log_mel = network.log_mel(torch.nn.functional.pad(clips[:1], (0, 20_000)))[0].numpy()
    for segment, found in enumerate(embeddings[0].numpy()):
        expected = in_numpy(log_mel[48 * segment : 48 * segment + 96], original)
        assert expected.max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())
    for clip, together in zip(clips, embeddings, strict=True):
        torch.testing.assert_close(network(clip.numpy()), together, atol=1e-5, rtol=1e-4)
    assert not network.training and not any(p.requires_grad for p in network.parameters())
