"""Weight files -> networks: every name and every shape checked, and no code of a file ever run."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
Weights = dict[str, Tensor]


class WeightsError(ValueError):
    """A weight file that cannot be read or does not fit its network; names file, expected and found."""


def read_torch(path: Path) -> Weights:
    """Name -> tensor of a file of ``torch.save``: a pickle that may make tensors and containers of them, no more."""
    return torch.load(path, map_location="cpu", weights_only=True)


def load_strictly(network: Network, path: Path, read: Callable[[Path], Weights] = read_torch) -> Network:
    """Copy a file's arrays into a network if they are exactly its own, by name and shape.

    Files written before torch 0.4.1 lack the counters ``num_batches_tracked`` of batch normalisation, which
    nothing in evaluation mode reads: the network's own stay.

    :param read: file -> its arrays by the network's names; whatever it raises means that the file cannot be read.
    :returns: the network, frozen, in evaluation mode.
    :raises WeightsError: no such file, cut short, damaged, of another format, or of another architecture.
    """
    own = {name: list(value.shape) for name, value in network.state_dict().items()}
    expected = f"{path}: expected the {len(own)} arrays of {type(network).__name__}"
    try:
        weights = read(path)
        shapes = {name: list(value.shape) for name, value in weights.items()}
    except Exception as error:  # readers of broken files raise anything between EOFError and their own kinds
        found = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
        reason = str(error)[:300]
        if isinstance(error, pickle.UnpicklingError):  # torch's message advises to trust the file
            reason = "a pickle that is damaged or asks for code to be run, which is refused"
        raise WeightsError(f"{expected}; found {found}, which cannot be read: {reason}") from error
    counters = {name for name in own if name.endswith(".num_batches_tracked")}
    differences = {
        "missing": [f"{name} {shape}" for name, shape in own.items() if name not in shapes.keys() | counters],
        "not expected": [f"{name} {shape}" for name, shape in shapes.items() if name not in own],
        "of another shape": [
            f"{name} {shape} instead of {own[name]}" for name, shape in shapes.items() if own.get(name, shape) != shape
        ],
    }
    if any(differences.values()):
        parts = [f"{len(names)} {kind}: {', '.join(names[:3])}" for kind, names in differences.items() if names]
        raise WeightsError(f"{expected}; found {len(shapes)}; {'; '.join(parts)}")
    network.load_state_dict(network.state_dict() | weights, strict=True)
    return network.requires_grad_(False).eval()
