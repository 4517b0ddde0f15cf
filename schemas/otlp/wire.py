"""Reads protobuf's wire format field by field without trusting it.

protobuf's own parser accepts or refuses a message as a whole. For messages that it refuses, and for bodies too large to
be parsed at once, this parser salvages what it can: a field with a wrong length ends with its message, and the fields
before it remain valid.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from tallystream.schemas.errors import TooManyElementsError

VARINT: Final = 0
FIXED64: Final = 1
LEN: Final = 2
FIXED32: Final = 5
CUT: Final = -2
"""A length-delimited field that claims to be longer than its message: it ends where the message ends."""
MOST_FIELDS: Final = 500_000
"""Maximum number of fields in a message: more than the records that a whole body may have."""
BAD: Final = -1
"""Bytes that are not a field: nothing after them in this message can be decoded."""

_START_GROUP: Final = 3
_END_GROUP: Final = 4
_MOST_GROUPS: Final = 32
_DOUBLE: Final = struct.Struct("<d")


class Field(NamedTuple):
    """One field. Of `VARINT`, `start` is its value; of everything else `start` to `stop` are its bytes."""

    number: int
    kind: int
    start: int
    stop: int


def fields(buffer: bytes, position: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message from `position` to `end`; a `CUT` or `BAD` one is the last.

    Raises:
        TooManyElementsError: there are more than any message of OTLP has.

    """
    left = MOST_FIELDS
    while position < end:
        left -= 1
        if left < 0:
            raise TooManyElementsError(f"a message in the body has more than {MOST_FIELDS} fields")
        tag = buffer[position]
        position += 1
        if tag >= 0x80:
            tag, position = _varint(buffer, position - 1, end)
        number, kind = tag >> 3, tag & 7
        if tag < 0 or not number:
            yield Field(0, BAD, position, end)
            return
        if kind == LEN:
            length = buffer[position] if position < end else 0x80
            if length < 0x80:
                position += 1
            else:
                length, position = _varint(buffer, position, end)
            if length < 0 or length > end - position:
                yield Field(number, CUT if length >= 0 else BAD, position, end)
                return
            yield Field(number, LEN, position, position + length)
            position += length
        elif kind == VARINT:
            value, position = _varint(buffer, position, end)
            if value < 0:
                yield Field(number, BAD, position, end)
                return
            yield Field(number, VARINT, value, position)
        elif kind in (FIXED64, FIXED32):
            size = 8 if kind == FIXED64 else 4
            if end - position < size:
                yield Field(number, BAD, position, end)
                return
            yield Field(number, kind, position, position + size)
            position += size
        elif kind == _START_GROUP and (after := _after_group(buffer, position, end)) is not None:
            position = after
        else:
            yield Field(number, BAD, position, end)
            return


def fixed64(buffer: bytes, field: Field) -> int:
    """Return a FIXED64 field as an unsigned integer."""
    return int.from_bytes(buffer[field.start : field.stop], "little")


def double(buffer: bytes, field: Field) -> float:
    """Return a FIXED64 field as a double."""
    value: float = _DOUBLE.unpack_from(buffer, field.start)[0]
    return value


def signed(value: int) -> int:
    """Return a varint's value as the int64 it stands for."""
    return value - (1 << 64) if value >= 1 << 63 else value


def text(buffer: bytes, field: Field) -> str:
    """Return a LEN field as text; bytes that are not UTF-8 become U+FFFD."""
    return buffer[field.start : field.stop].decode(errors="replace")


def _varint(buffer: bytes, position: int, end: int) -> tuple[int, int]:
    """Return (value, position after it); the value is -1 when the bytes are not a varint of at most 64 bits."""
    value = shift = 0
    while position < end and shift < 70:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            # protobuf's own parsers drop what exceeds 64 bits of the tenth byte
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    return -1, position


def _after_group(buffer: bytes, position: int, end: int) -> int | None:
    """Return where an unknown group ends, None when it does not. Groups are obsolete, but parsers must skip them."""
    depth = 1
    while position < end:
        tag, position = _varint(buffer, position, end)
        kind = tag & 7
        if tag < 0:
            return None
        if kind == _START_GROUP:
            depth += 1
            if depth > _MOST_GROUPS:
                return None
        elif kind == _END_GROUP:
            depth -= 1
            if not depth:
                return position
        elif kind == VARINT:
            value, position = _varint(buffer, position, end)
            if value < 0:
                return None
        elif kind == LEN:
            length, position = _varint(buffer, position, end)
            if length < 0:
                return None
            position += length
        elif kind in (FIXED64, FIXED32):
            position += 8 if kind == FIXED64 else 4
        else:
            return None
    return None
