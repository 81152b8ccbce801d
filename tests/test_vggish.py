"""VGGish against the network's own definition in TensorFlow's layout, written out in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from avrepro.models.vggish import VGGish, quantised
from avrepro.models.weights import WeightsError

# Layers of the original release and their shapes there: [height, width, in, out] and [in, out].
TENSORFLOW = {
    "conv1": (3, 3, 1, 64), "conv2": (3, 3, 64, 128), "conv3_1": (3, 3, 128, 256), "conv3_2": (3, 3, 256, 256),
    "conv4_1": (3, 3, 256, 512), "conv4_2": (3, 3, 512, 512),
    "fc1_1": (12288, 4096), "fc1_2": (4096, 4096), "fc2": (4096, 128),
}  # fmt: skip
# What the PyTorch port calls them
PORT = {
    "conv1": "features.0", "conv2": "features.3", "conv3_1": "features.6", "conv3_2": "features.8",
    "conv4_1": "features.11", "conv4_2": "features.13",
    "fc1_1": "embeddings.0", "fc1_2": "embeddings.2", "fc2": "embeddings.4",
}  # fmt: skip
Arrays = dict[str, tuple[np.ndarray, np.ndarray]]


@pytest.fixture(scope="module")
def original() -> Arrays:
    rng = np.random.default_rng(0)
    arrays = {}
    for name, shape in TENSORFLOW.items():
        kernel = rng.standard_normal(shape, np.float32) * np.float32(np.prod(shape[:-1]) ** -0.5)
        arrays[name] = kernel, rng.standard_normal(shape[-1], np.float32) / 10
    return arrays


@pytest.fixture(scope="module")
def weights(original: Arrays, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    port = {}
    for name, (kernel, bias) in original.items():
        turned = kernel.transpose(3, 2, 0, 1) if kernel.ndim == 4 else kernel.T
        port[f"{PORT[name]}.weight"] = torch.from_numpy(np.ascontiguousarray(turned))
        port[f"{PORT[name]}.bias"] = torch.from_numpy(bias)
    torch.save(port, path)
    yield path
    path.unlink()  # 288 MB


@pytest.fixture(scope="module")
def network(weights: Path) -> VGGish:
    return VGGish.pretrained(weights)


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    return 0.1 * torch.from_numpy(np.random.default_rng(1).standard_normal((3, 33_000)).astype(np.float32))


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


def test_equals_the_original_in_numpy(network: VGGish, original: Arrays, clips: torch.Tensor) -> None:
    embeddings = network(clips[:1])
    assert embeddings.shape == (1, 2, 128) and embeddings.dtype == torch.float32
    log_mel = network.log_mel(clips[:1])[0].numpy()
    for segment, found in enumerate(embeddings[0].numpy()):
        expected = in_numpy(log_mel[96 * segment : 96 * (segment + 1)], original)
        assert expected.max() > 0.1
        np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())
    assert not network.training and not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("samples", "hop", "complete", "segments"),
    [
        (160_000, 0.96, False, 10),  # as the original counts
        (160_000, 0.48, True, 20),  # Parekh et al. (2018), section 4: "For a 10 second recording, this yields 20"
        (160_000, 0.48, False, 19),
        (15_600, 0.48, True, 1),
        (15_601, 0.48, True, 2),
        (15_601, 0.48, False, 1),
        (100, 0.96, False, 1),
        (0, 0.96, True, 1),
    ],
)
def test_segments(samples: int, hop: float, complete: bool, segments: int) -> None:
    with torch.device("meta"):
        network = VGGish(hop, complete)
    network.log_mel = type(network.log_mel).vggish()  # the front end alone computes here
    waveform = torch.from_numpy(np.random.default_rng(2).standard_normal((2, samples)).astype(np.float32))
    patches = network.patches(waveform)
    assert patches.shape == (2, segments, 96, 64)
    log_mel = network.log_mel(torch.nn.functional.pad(waveform, (0, 40_000)))
    step = round(100 * hop)
    whole = max(0, 1 + (samples - 15_600) // (160 * step))
    for segment in range(whole):
        torch.testing.assert_close(patches[:, segment], log_mel[:, segment * step : segment * step + 96])
    if segments > whole:  # the last one is completed with zeros
        torch.testing.assert_close(patches[:, whole], log_mel[:, whole * step : whole * step + 96])


def test_batched_equals_one_by_one(network: VGGish, clips: torch.Tensor) -> None:
    together = network(clips)
    assert together.shape == (3, 2, 128)
    for clip, embeddings in zip(clips, together, strict=True):
        torch.testing.assert_close(network(clip.numpy()), embeddings, atol=1e-5, rtol=1e-4)


def post_processing(folder: Path, form: str) -> tuple[Path, np.ndarray, np.ndarray]:
    """The two published forms: arrays in an .npz file, arrays in a file of torch.save; means as a column."""
    rng = np.random.default_rng(3)
    vectors, means = rng.standard_normal((128, 128)), rng.standard_normal((128, 1)) / 3
    path = folder / f"pca.{form}"
    if form == "npz":
        np.savez(path, pca_eigen_vectors=vectors, pca_means=means)
    else:
        torch.save({"pca_eigen_vectors": vectors, "pca_means": means}, path)
    return path, vectors, means


@pytest.mark.parametrize("form", ["npz", "pth"])
def test_post_processing(form: str, weights: Path, network: VGGish, clips: torch.Tensor, tmp_path: Path) -> None:
    path, vectors, means = post_processing(tmp_path, form)
    raw = network(clips[0]).numpy().astype(np.float64)
    found = VGGish.pretrained(weights, pca=path)(clips[0])
    for embedding, processed, eight_bits in zip(raw, found, quantised(found), strict=True):
        expected = np.array([np.dot(vectors[row], embedding - means[:, 0]) for row in range(128)])
        assert (np.abs(expected) > 2).any() and (np.abs(expected) < 2).any()
        expected = np.clip(expected, -2, 2)
        np.testing.assert_allclose(processed.numpy(), expected, atol=1e-3)
        assert eight_bits.dtype == torch.uint8
        np.testing.assert_allclose(eight_bits.numpy(), (expected + 2) * 255 / 4, atol=0.5 + 0.1)
    assert quantised(torch.tensor([-2.0, 0.0, 2.0])).tolist() == [0, 128, 255]


def test_files_that_do_not_fit_are_named(weights: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "pca.npz", pca_eigen_vectors=np.eye(128), pca_means=np.zeros(64))
    with pytest.raises(WeightsError, match=r"pca\.npz: expected pca_eigen_vectors \[128, 128\] .*found .*\[64\]"):
        VGGish.pretrained(weights, pca=tmp_path / "pca.npz")
    np.savez(tmp_path / "other.npz", mean=np.zeros(128))
    with pytest.raises(WeightsError, match=r"other\.npz: expected pca_eigen_vectors"):
        VGGish.pretrained(weights, pca=tmp_path / "other.npz")
    with pytest.raises(WeightsError, match=r"other\.npz: expected the 18 arrays of VGGish; found 1; 18 missing"):
        VGGish.pretrained(tmp_path / "other.npz")
    (tmp_path / "cut.pth").write_bytes(weights.read_bytes()[:1_000_000])
    with pytest.raises(WeightsError, match=r"cut\.pth: expected the weights of VGGish; found 1000000 bytes"):
        VGGish.pretrained(tmp_path / "cut.pth")


def test_wrong_input_is_named(network: VGGish) -> None:
    with pytest.raises(ValueError, match=r"\[1, 1, 16000\]"):
        network(torch.zeros(1, 1, 16_000))
    for hop in (0.0, 0.485):
        with pytest.raises(ValueError, match=f"multiple of 0.01 s, found {hop}"):
            VGGish(hop=hop)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_equal_on_a_gpu(weights: Path, network: VGGish, clips: torch.Tensor) -> None:
    torch.testing.assert_close(VGGish.pretrained(weights).cuda()(clips).cpu(), network(clips), atol=1e-2, rtol=1e-2)
