"""Fields of a protobuf message by their numbers, read without the schema."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are no protobuf message."""


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield (number, value) of each field: an integer, or the bytes of a text, message or float.

    See https://protobuf.dev/programming-guides/encoding. Raises WireError for bytes that are no message.
    """
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == _BYTES:
            length, position = _varint(message, position)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise WireError(f"field {number} has the unknown type {kind}")
        if position + length > len(message):
            raise WireError(f"field {number} is cut short")
        yield number, message[position : position + length]
        position += length


def messages(message: bytes, number: int) -> Iterator[bytes]:
    """Yield the bytes of each field of this number."""
    return (
        value
        for field_number, value in fields(message)
        if field_number == number and isinstance(value, bytes)
    )


def text(message: bytes, number: int) -> str:
    """Return the last text of this number; empty if there is none."""
    return next(reversed([*messages(message, number)]), b"").decode("utf-8", "replace")


def integer(message: bytes, number: int) -> int | None:
    """Return the last integer of this number, signed; None if there is none."""
    values = [
        value for field_number, value in fields(message) if field_number == number and isinstance(value, int)
    ]
    return None if not values else values[-1] - (values[-1] >> 63 << 64)


def unpack_float(content: bytes) -> float:
    """Return a float of 4 or 8 bytes."""
    return struct.unpack("<f" if len(content) == 4 else "<d", content)[0]


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise WireError("a number is cut short")
        byte = message[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise WireError("a number has more than 10 bytes")
