"""Weight files -> networks: every name and every shape checked, and no code of a file ever run.

Three formats: ``.safetensors`` and ``.npz`` hold plain arrays; anything else is taken for a file of
``torch.save``, a pickle whose reader here knows nothing but tensors, arrays and containers of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
Weights = dict[str, Tensor]


class WeightsError(ValueError):
    """A weight file that cannot be read or does not fit its network; names file, expected and found."""


def load_strictly(network: Network, path: str | Path, adapt: Callable[[Weights], Weights] | None = None) -> Network:
    """Load a file of weights; the network comes back frozen, in evaluation mode.

    :param adapt: turns the file's names and arrays into the network's, where a published file is known to differ.
    :raises WeightsError: truncated, corrupt, not a file of weights, or the weights of another architecture.
    """
    path = Path(path)
    weights = read_weights(path, f"the weights of {type(network).__name__}")
    return fit(network, adapt(weights) if adapt else weights, path)


def fit(network: Network, weights: Weights, path: Path) -> Network:
    """Copy arrays into a network if they are exactly its own, by name and shape; ``path`` is for the message.

    Files written before torch 0.4.1 lack the counters ``num_batches_tracked`` of batch normalisation, which
    nothing in evaluation mode reads: the network's own are kept.
    """
    wanted = network.state_dict()
    weights = {name: value for name, value in wanted.items() if name.endswith(".num_batches_tracked")} | weights
    wrong = {
        "missing": [_shown(name, wanted[name]) for name in wanted if name not in weights],
        "not expected": [_shown(name, weights[name]) for name in weights if name not in wanted],
        "of another shape": [
            f"{_shown(name, value)} instead of {list(wanted[name].shape)}"
            for name, value in weights.items()
            if name in wanted and value.shape != wanted[name].shape
        ],
    }
    if any(wrong.values()):
        told = "; ".join(f"{len(items)} {what}: {_few(items)}" for what, items in wrong.items() if items)
        kind = type(network).__name__
        raise WeightsError(f"{path}: expected the {len(wanted)} arrays of {kind}; found {len(weights)}; {told}")
    network.load_state_dict(weights, strict=True)
    return network.requires_grad_(False).eval()


def read_weights(path: Path, expected: str = "named arrays") -> Weights:
    """Name -> tensor of a ``.safetensors``, ``.npz`` or ``torch.save`` file, on the CPU.

    :param expected: what the file should hold, for the message.
    :raises WeightsError: the file cannot be read as one of these, or holds anything but named arrays.
    """
    try:
        if path.suffix == ".safetensors":
            found: Any = safetensors.torch.load_file(path)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        else:
            with torch.serialization.safe_globals(ARRAY_GLOBALS):
                found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # readers of broken files raise anything between EOFError and their own kinds
        raise WeightsError(f"{path}: expected {expected}; found {_instead(path, error)}") from error
    if not isinstance(found, dict) or not all(isinstance(value, (Tensor, np.ndarray)) for value in found.values()):
        odd = [name for name, value in found.items() if not hasattr(value, "shape")] if isinstance(found, dict) else []
        held = f"no array under {_few(odd)}" if odd else f"an object of type {type(found).__name__}"
        raise WeightsError(f"{path}: expected {expected}; found {held}")
    try:
        return {str(name): torch.as_tensor(value) for name, value in found.items()}
    except TypeError as error:  # arrays of text, dates or Python objects
        raise WeightsError(f"{path}: expected {expected}; found {error}") from error


# Some published files hold numpy arrays instead of tensors. What makes an array out of a pickle makes nothing
# else; files written with numpy 1 know the function by its old address.
_reconstruct: Any = np.ones(0).__reduce__()[0]
ARRAY_GLOBALS: list[Any] = [
    (_reconstruct, "numpy._core.multiarray._reconstruct"),
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    (np.ndarray, "numpy.ndarray"),
    (np.dtype, "numpy.dtype"),
    *((type(np.dtype(kind)), f"numpy.dtypes.{type(np.dtype(kind)).__name__}") for kind in ("f4", "f8", "i8")),
]


def _instead(path: Path, error: Exception) -> str:
    """What a file that cannot be read is: the commonest accidents in words, else the reader's own message."""
    if not path.is_file():
        return "no such file"
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    size = path.stat().st_size
    if size == 0:
        return "an empty file"
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"a web page of {size} bytes (an error or a login instead of the file); fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return "the pointer of a large file kept elsewhere (Git LFS); fetch the file itself"
    reason = str(error)
    if "weights only" in reason.lower() and "global" in reason.lower():
        reason = "a pickle that asks for code to be run, which is refused: " + reason.split("Unsupported")[-1]
    return f"{size} bytes that cannot be read (cut short, damaged, or of another format): {reason[:300]}"


def _shown(name: str, value: Tensor) -> str:
    return f"{name} {list(value.shape)}"


def _few(items: list[str]) -> str:
    return ", ".join(str(item) for item in items[:3]) + (", ..." if len(items) > 3 else "")
