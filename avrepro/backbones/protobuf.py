"""Weight files made of protocol buffer messages, read as plain data, without Caffe, TensorFlow or generated code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avrepro.backbones.weights import Weights

FOOTER = 48  # bytes at the end of a LevelDB table: two block handles, padding, a magic number
FLOAT = 1  # DT_FLOAT of TensorFlow's types.proto


def read_caffemodel(path: Path) -> Weights:
    """Arrays of a Caffe model of 2014 (caffe.proto) as NAME.weight and NAME.bias, without those of the classifier, fc8.

    :raises OSError, ValueError, LookupError: not such a file, cut short, or a layer has other than two arrays.
    """
    weights: Weights = {}
    for layer in map(message, message(path.read_bytes()).get(2, [])):  # V1LayerParameter: name 4, blobs 6
        name = layer.get(4, [b""])[0].decode()
        if 6 in layer and name != "fc8":  # others have no arrays
            weight, bias = map(_blob, layer[6])
            # Linear layers have four dimensions too, [1, 1, out, in], and biases.
            weights[f"{name}.weight"] = weight[0, 0] if weight.shape[:2] == (1, 1) else weight
            weights[f"{name}.bias"] = bias.flatten()
    return weights


def _blob(buffer: bytes) -> Tensor:
    """BlobProto: num, channels, height and width (1 to 4) and data (5)."""
    blob = message(buffer)
    shape = [blob[field][0] for field in (1, 2, 3, 4)]
    return torch.from_numpy(np.frombuffer(b"".join(blob[5]), "<f4").reshape(shape).copy())


def read_variables(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """The float32 variables of a TensorFlow checkpoint (a tensor bundle of one data file), in alphabetical order.

    :param index: content of ``variables.index``, a LevelDB table: names of variables -> ``BundleEntryProto`` messages
        (tensorflow/core/protobuf/tensor_bundle.proto), which hold type, shape, and offset and size of the data.
    :param data: content of ``variables.data-00000-of-00001``.
    :raises ValueError, LookupError: not an uncompressed table, or shorter than the index says.
    """
    # offset and size of the meta index, which bundles do not use, and of the index of blocks
    (_, _, *blocks), _ = varints(index, len(index) - FOOTER, 4)
    variables = {}
    for _, handle in _block(index, *blocks):
        for key, value in _block(index, *varints(handle, 0, 2)[0]):
            entry = message(value)
            if not key or entry.get(1) != [FLOAT]:
                continue  # the bundle's header, or an entry of another type (the saved object graph, a counter)
            (dimensions,), (offset,), (size,) = entry.get(2, [b""]), entry.get(4, [0]), entry[5]
            shape = [message(dimension).get(1, [0])[0] for dimension in message(dimensions).get(2, [])]
            variables[key.decode()] = np.frombuffer(data, "<f4", size // 4, offset).reshape(shape).copy()
    return variables


def _block(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block; keys are stored without the prefix they share with the key before."""
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")  # offsets for binary search, after the entries
    position, key = 0, b""
    while position < size - 4 - 4 * restarts:
        (shared, unshared, length), position = varints(block, position, 3)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def message(buffer: bytes) -> dict[int, list[Any]]:
    """Fields by number, each a list in order: integers, or bytes (texts, messages, packed numbers).

    :raises ValueError: no message. :raises IndexError: cut short within a number.
    """
    fields: dict[int, list[Any]] = {}
    position = 0
    while position < len(buffer):
        tag, position = varint(buffer, position)
        number, wire = tag >> 3, tag & 7
        value: int | bytes
        if wire == 0:
            value, position = varint(buffer, position)
        elif wire in (1, 2, 5):
            length = {1: 8, 5: 4}.get(wire, 0)
            if wire == 2:
                length, position = varint(buffer, position)
            value = buffer[position : position + length]
            position += length
        else:
            raise ValueError(f"field {number} is of unknown wire type {wire}: not a protocol buffer message")
        fields.setdefault(number, []).append(value)
    return fields


def varints(buffer: bytes, position: int, count: int) -> tuple[list[int], int]:
    """Numbers one after the other, and the position after them."""
    values = []
    for _ in range(count):
        value, position = varint(buffer, position)
        values.append(value)
    return values, position


def varint(buffer: bytes, position: int) -> tuple[int, int]:
    """A number and the position after it: seven bits a byte, least significant first; the top bit: more follow."""
    value = shift = 0
    while True:
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
