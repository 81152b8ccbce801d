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
    """A weight file that cannot be read or does not fit its network; names the file and what was expected."""


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
    own = network.state_dict()
    counters = {name: value for name, value in own.items() if name.endswith(".num_batches_tracked")}
    try:
        network.load_state_dict(counters | read(path), strict=True)
    except Exception as error:  # readers of broken files raise anything between EOFError and their own kinds
        reason = str(error)[:300]
        if isinstance(error, pickle.UnpicklingError):  # torch's message advises to trust the file
            reason = "a pickle that is damaged or asks for code to be run, which is refused"
        expected = f"the {len(own)} arrays of {type(network).__name__}"
        raise WeightsError(f"{path} does not hold {expected}: {reason}") from error
    return network.requires_grad_(False).eval()
