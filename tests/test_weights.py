"""Weight files: loaded exactly or refused with a reason, and nothing in them is ever run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from avrepro.models.weights import WeightsError, load_strictly, read_weights

FORMATS = ("pth", "safetensors", "npz")


def little() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def write(weights: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(weights, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in weights.items()})  # type: ignore[arg-type]
    else:
        torch.save(weights, path)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_weights_are_loaded_exactly(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    origin = little()
    loaded = load_strictly(little(), write(origin.state_dict(), tmp_path / f"w.{form}"))
    for name, value in origin.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


@pytest.mark.parametrize("form", FORMATS)
def test_broken_files_are_refused(form: str, tmp_path: Path) -> None:
    path = write(little().state_dict(), tmp_path / f"w.{form}")
    whole = path.read_bytes()
    contents = [
        (b"", "an empty file"),
        (b"no weights", "10 bytes that cannot be read"),
        (b"  <!DOCTYPE html><html>404</html>", "a web page of 33 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "Git LFS"),
        (whole[:100], "100 bytes that cannot be read"),
        (whole[: len(whole) // 2], "cut short"),
        (whole[:-40], "cut short"),
        (b"\0" * 200 + whole[200:], "damaged"),
    ]
    for content, reason in contents:
        path.write_bytes(content)
        with pytest.raises(WeightsError) as caught:
            load_strictly(little(), path)
        message = str(caught.value)
        assert message.startswith(f"{path}: expected the weights of Sequential; found ") and reason in message
        assert len(message) < 700
    with pytest.raises(WeightsError, match=rf"absent\.{form}: expected the weights of Sequential; found no such file"):
        load_strictly(little(), tmp_path / f"absent.{form}")


@pytest.mark.parametrize("form", FORMATS)
def test_other_architectures_are_refused(form: str, tmp_path: Path) -> None:
    good = little().state_dict()
    renamed = {name.replace("0.", "first."): value for name, value in good.items()}
    cases: list[tuple[dict[str, Tensor], str]] = [
        (renamed, r"9 arrays of Sequential; found 9; 2 missing: 0.weight \[4, 3\], 0.bias \[4\]; 2 not expected: fi"),
        ({**good, "extra": torch.zeros(1)}, r"found 10; 1 not expected: extra \[1\]"),
        ({name: value for name, value in good.items() if name != "2.bias"}, r"found 8; 1 missing: 2.bias \[2\]"),
        ({**good, "2.weight": torch.zeros(2, 5)}, r"1 of another shape: 2.weight \[2, 5\] instead of \[2, 4\]"),
        (torchvision.models.squeezenet1_0().state_dict(), r"found 53; 8 missing: .*\.\.\.; 52 not expected: .*\.\.\."),
    ]  # fmt: skip
    for number, (weights, reason) in enumerate(cases):
        path = write(weights, tmp_path / f"{number}.{form}")
        with pytest.raises(WeightsError, match=rf"{number}\.{form}: expected the {reason}" if number == 0 else reason):
            load_strictly(little(), path)


def test_what_is_no_table_of_arrays_is_refused(tmp_path: Path) -> None:
    good, path = little().state_dict(), tmp_path / "w.pth"
    for content, reason in [
        ({**good, "2.weight": "text"}, "found no array under 2.weight"),
        ({"state_dict": good, "epoch": 3}, "found no array under state_dict, epoch"),
        ([1, 2], "an object of type list"),
        (torch.zeros(2), "an object of type Tensor"),
        (little(), "asks for code to be run"),
    ]:
        torch.save(content, path)
        with pytest.raises(WeightsError, match=reason):
            load_strictly(little(), path)
    np.savez(tmp_path / "w.npz", a=np.array(["text"]))
    with pytest.raises(WeightsError, match=r"w\.npz: expected named arrays; found"):
        read_weights(tmp_path / "w.npz")


class Trap:
    """Pickled, an order to make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.folder,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("kind", ["torch", "legacy", "pickle", "npz", "array"])
def test_no_code_of_a_file_is_run(kind: str, tmp_path: Path) -> None:
    trap, caught = Trap(tmp_path / "caught"), tmp_path / "caught"
    path = tmp_path / ("w.npz" if kind == "npz" else "w.pth")
    content = {**little().state_dict(), "0.weight": trap}
    if kind == "torch":
        torch.save(content, path)
    elif kind == "legacy":
        torch.save(content, path, _use_new_zipfile_serialization=False)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif kind == "npz":
        np.savez(path, trap=np.array([trap], dtype=object))
    else:
        torch.save({"0.weight": np.array([trap], dtype=object)}, path)  # arrays are read, arrays of objects are not
    with pytest.raises(WeightsError, match=rf"{path.name}: expected .*; found"):
        load_strictly(little(), path)
    assert not caught.exists()
    if kind == "pickle":  # the trap does close on a reader that trusts the file
        pickle.loads(path.read_bytes())
        assert caught.exists()


def test_files_from_before_torch_0_4_1(tmp_path: Path) -> None:
    """They lack the counters of batch normalisation, and nothing else may be lacking."""
    old = {name: value for name, value in little().state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(dict(old), tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    loaded = load_strictly(little(), tmp_path / "w.pth")
    assert torch.equal(loaded.state_dict()["1.running_var"], old["1.running_var"])
    del old["1.running_var"]
    torch.save(dict(old), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"1 missing: 1\.running_var \[4\]"):
        load_strictly(little(), tmp_path / "w.pth")


@pytest.mark.parametrize("address", [b"numpy._core.multiarray", b"numpy.core.multiarray"])
def test_numpy_arrays_in_a_torch_file(address: bytes, tmp_path: Path) -> None:
    """Also under the address of numpy 1, where files of its time look for them."""
    rng = np.random.default_rng(0)
    arrays = {"double": rng.normal(size=(3, 2)), "single": rng.normal(size=4).astype(np.float32), "count": np.arange(3)}
    path = tmp_path / "w.pth"
    torch.save(arrays, path, _use_new_zipfile_serialization=False)
    written = path.read_bytes()
    assert b"numpy._core.multiarray" in written
    path.write_bytes(written.replace(b"numpy._core.multiarray", address))
    found = read_weights(path)
    assert list(found) == list(arrays)
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name].numpy(), value)


def test_names_can_be_adapted(tmp_path: Path) -> None:
    good = little().state_dict()
    path = write({f"module.{name}": value for name, value in good.items()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="not expected: module"):
        load_strictly(little(), path)

    def adapt(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name.removeprefix("module."): value for name, value in weights.items()}

    assert torch.equal(load_strictly(little(), path, adapt).state_dict()["0.weight"], good["0.weight"])
