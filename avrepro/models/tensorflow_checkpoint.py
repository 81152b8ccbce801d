"""Read the variables of a TensorFlow checkpoint (tensor bundle) as numpy arrays, without TensorFlow.

A bundle is two files. ``variables.index`` is a LevelDB table whose keys are tensor names and whose
values are ``BundleEntryProto`` messages (tensorflow/core/protobuf/tensor_bundle.proto): type, shape,
offset and size of the tensor's bytes in ``variables.data-00000-of-00001``. Both are plain data; reading
them runs no code that a file could bring along.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from avrepro.models.protobuf import message, number, parts, varint
from avrepro.models.weights import WeightsError

TABLE_MAGIC = 0xDB4775248B80FB57  # last 8 bytes of a LevelDB table, little endian
FOOTER = 48  # bytes: two block handles, padding, the magic number
DTYPES: dict[int, np.dtype] = {
    1: np.dtype("<f4"),
    2: np.dtype("<f8"),
    3: np.dtype("<i4"),
    9: np.dtype("<i8"),
}  # types.proto


def read_variables(index: bytes, data: bytes) -> dict[str, np.ndarray]:
    """Variables of a one-shard bundle by their key in the table.

    Args:
        index: content of ``variables.index``.
        data: content of ``variables.data-00000-of-00001``.

    Returns:
        Arrays of float32, float64, int32 or int64, in the table's (alphabetical) order. Entries of other
        types (the saved object graph, a string) are left out.

    Raises:
        WeightsError: not a table, compressed, in several shards, or shorter than the index says.
    """
    variables = {}
    for name, value in _table_entries(index):
        if not name:
            continue  # the bundle's header: number of shards, byte order, version
        entry = message(value)
        dtype = DTYPES.get(number(entry, 1))
        if dtype is None:
            continue
        if number(entry, 3) != 0:
            raise WeightsError(f"variable {name!r} lies in another shard: expected a bundle of one file")
        shape = _shape(b"".join(parts(entry, 2)))
        offset, size = number(entry, 4), number(entry, 5)
        expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if size != expected or offset + size > len(data):
            raise WeightsError(
                f"variable {name!r} of shape {shape}: expected {expected} bytes, the index says {size} from "
                f"byte {offset} on, the data file has {len(data)}; fetch the files again"
            )
        count = expected // dtype.itemsize
        variables[name] = np.frombuffer(data, dtype, count, offset).reshape(shape).copy()
    return variables


def _table_entries(table: bytes) -> Iterator[tuple[str, bytes]]:
    """Keys and values of a LevelDB table: footer -> index block -> data blocks."""
    magic = int.from_bytes(table[-8:], "little") if len(table) >= FOOTER else None
    if magic != TABLE_MAGIC:
        raise WeightsError(
            f"not a checkpoint index: expected a LevelDB table ending in {TABLE_MAGIC:#x}, found "
            f"{len(table)} bytes ending in {table[-8:].hex() or 'nothing'}"
        )
    footer = table[-FOOTER:]
    _, _, position = _handle(footer, 0)  # the meta index; bundles do not use it
    offset, size, _ = _handle(footer, position)
    for _, handle in _block_entries(table, offset, size):
        offset, size, _ = _handle(handle, 0)
        for key, value in _block_entries(table, offset, size):
            yield key.decode(), value


def _block_entries(table: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Entries of one block; keys are stored without the prefix they share with the key before."""
    if offset + size >= len(table):
        raise WeightsError(f"checkpoint index cut short: a block ends at byte {offset + size} of {len(table)}")
    if table[offset + size] != 0:
        raise WeightsError("checkpoint index is compressed: expected an uncompressed table")
    block = table[offset : offset + size]
    restarts = int.from_bytes(block[-4:], "little")  # offsets for binary search, after the entries
    end = size - 4 - 4 * restarts
    position, key = 0, b""
    while position < end:
        shared, position = varint(block, position)
        unshared, position = varint(block, position)
        length, position = varint(block, position)
        key = key[:shared] + block[position : position + unshared]
        position += unshared
        yield key, block[position : position + length]
        position += length


def _handle(buffer: bytes, position: int) -> tuple[int, int, int]:
    offset, position = varint(buffer, position)
    size, position = varint(buffer, position)
    return offset, size, position


def _shape(buffer: bytes) -> tuple[int, ...]:
    """TensorShapeProto: repeated field 2, each a dimension whose field 1 is its size."""
    return tuple(number(message(dim), 1) for dim in parts(message(buffer), 2))
