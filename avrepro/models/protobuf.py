"""Read protocol buffer messages as plain data, without generated code."""

from __future__ import annotations

from avrepro.models.weights import WeightsError


def message(buffer: bytes) -> dict[int, list[int | bytes]]:
    """Fields of a message by number, each a list in order: integers, or bytes (texts, messages, packed numbers).

    :raises WeightsError: cut short, or no message.
    """
    fields: dict[int, list[int | bytes]] = {}
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
            if position + length > len(buffer):
                raise WeightsError(
                    f"field {number} should have {length} bytes, found {len(buffer) - position}: cut short"
                )
            value = buffer[position : position + length]
            position += length
        else:
            raise WeightsError(f"field {number} is of unknown wire type {wire}: not a protocol buffer message")
        fields.setdefault(number, []).append(value)
    return fields


def varint(buffer: bytes, position: int) -> tuple[int, int]:
    """A number and the position after it: seven bits a byte, least significant first; the top bit: more follow.

    :raises WeightsError: cut short.
    """
    value = shift = 0
    while True:
        if position >= len(buffer):
            raise WeightsError("cut short within a number")
        byte = buffer[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if not byte & 0x80:
            return value, position


def number(fields: dict[int, list[int | bytes]], field: int) -> int:
    """A single integer field; one that is 0 is not stored."""
    value = fields.get(field, [0])[0]
    if not isinstance(value, int):
        raise WeightsError(f"field {field} should be a number, found {len(value)} bytes")
    return value


def parts(fields: dict[int, list[int | bytes]], field: int) -> list[bytes]:
    """A repeated field of bytes: texts, messages or packed numbers."""
    values = fields.get(field, [])
    if not all(isinstance(value, bytes) for value in values):
        raise WeightsError(f"field {field} should be bytes, found numbers")
    return values  # type: ignore[return-value]
