"""Weight files: loaded exactly or refused with a reason, and nothing in them is ever run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from weight_files import caffe_layer, caffemodel

from avrepro.backbones.protobuf import read_caffemodel
from avrepro.backbones.weights import WeightsError, load_strictly


def little() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "w.pth"


def test_weights_are_loaded_exactly(path: Path) -> None:
    """Also from files of before torch 0.4.1, in a pickle and without the counters of batch normalisation."""
    weights = little().state_dict()
    old = {name: value for name, value in weights.items() if not name.endswith("num_batches_tracked")}
    for content, zipped in ((weights, True), (old, False)):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        loaded = load_strictly(little(), path)
        torch.testing.assert_close(loaded.state_dict(), weights, rtol=0, atol=0)
        assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_broken_files_are_refused(path: Path) -> None:
    torch.save(little().state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"<html>404</html>", whole[:-40], b"\0" * 200 + whole[200:]):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"w\.pth does not hold the 9 arrays of Sequential: ") as caught:
            load_strictly(little(), path)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"2.bias": None}, 'Missing key.*"2.bias"'),
        ({"1.running_var": None}, 'Missing key.*"1.running_var"'),
        ({"extra": torch.zeros(1)}, 'Unexpected key.*"extra"'),
        ({"2.weight": torch.zeros(2, 5)}, "size mismatch for 2.weight"),
    ],
)
def test_other_architectures_are_refused(changes: dict[str, Tensor | None], reason: str, path: Path) -> None:
    weights = little().state_dict() | changes
    torch.save({name: value for name, value in weights.items() if value is not None}, path)
    with pytest.raises(WeightsError, match=rf"(?s)w\.pth does not hold the 9 arrays of Sequential: .*{reason}"):
        load_strictly(little(), path)


class Trap:
    """Pickled, an order to make a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_of_a_file_is_run(zipped: bool, path: Path) -> None:
    caught = path.parent / "caught"
    torch.save({**little().state_dict(), "0.weight": Trap(caught)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"w\.pth .* asks for code to be run, which is refused"):
        load_strictly(little(), path)
    assert not caught.exists()
    torch.load(path, weights_only=False)  # the trap does close on a reader that trusts the file
    assert caught.exists()


def test_caffe_models(path: Path) -> None:
    """Without its classifier, fc8."""
    rng = np.random.default_rng(5)
    shapes = {"conv1": (3, 2, 2, 2), "fc7": (4, 5), "fc8": (2, 4)}
    arrays = {f"{name}.weight": rng.standard_normal(shape) for name, shape in shapes.items()}
    arrays |= {f"{name}.bias": rng.standard_normal(shape[0]) for name, shape in shapes.items()}
    whole = caffemodel(arrays)
    path.write_bytes(whole)
    found = read_caffemodel(path)
    assert list(found) == ["conv1.weight", "conv1.bias", "fc7.weight", "fc7.bias"]
    for name, value in found.items():
        np.testing.assert_array_equal(value.numpy(), arrays[name].astype(np.float32))
    single = caffe_layer("conv1", [arrays["fc7.bias"]])
    for content in (whole[:-1], b"<html>404</html>", single, single * 3):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"w\.pth does not hold"):
            load_strictly(little(), path, read_caffemodel)
