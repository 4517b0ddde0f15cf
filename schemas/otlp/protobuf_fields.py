"""The smallest parts of a protobuf body in their usual form: fields, attributes and their values, for `protobuf_scan`.

Everything takes a body and the positions of a part in it, and says when the part is not in the usual form.
"""

from __future__ import annotations

import struct
from typing import Final

from tallystream.schemas.otlp.records import OPAQUE, Broken, Value

_DOUBLE: Final = struct.Struct("<d")
ODD: Final = Broken("its bytes are not an AnyValue in its usual form")

# Tags: the field's number and wire type (0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes).
_KEY: Final = 0x0A
_VALUE: Final = 0x12
_TEXT: Final = 0x0A
_BOOL: Final = 0x10
_INT: Final = 0x18
_NUMBER: Final = 0x21
_ARRAY: Final = 0x2A
_PAIRS: Final = 0x32
_BYTES: Final = 0x3A


def key_of(body: bytes, at: int, stop: int) -> tuple[int, int]:
    """Return where the key of a KeyValue begins and ends; the end is -1 when it is not in the usual form: a key, and
    then a value or nothing.
    """
    if at >= stop:
        return at, -1
    tag, start, end = field(body, at, stop)
    if end < 0 or tag != _KEY:
        return start, -1
    if end < stop:
        tag, _, at = field(body, end, stop)
        if at != stop or tag != _VALUE:
            return start, -1
    return start, end


def add_attribute(body: bytes, at: int, stop: int, values: dict[str, Value]) -> bool:
    """Add a KeyValue; return whether it is in the usual form.

    Raises:
        UnicodeDecodeError: a text is not UTF-8.

    """
    start, end = key_of(body, at, stop)
    if end < 0:
        return False
    key = body[start:end].decode("utf-8")
    if end == stop:
        values[key] = None
        return True
    _, start, _ = field(body, end, stop)
    value = any_value(body, start, stop)
    if value is ODD:
        return False
    values[key] = value
    return True


def is_scalar(body: bytes, at: int, stop: int) -> bool:
    """Whether an AnyValue is empty or has one field, a text, number or truth value, whose content is not looked at."""
    if at == stop:
        return True
    tag, _, at = field(body, at, stop)
    return at == stop and tag in (_TEXT, _BOOL, _INT, _NUMBER)


def any_value(body: bytes, at: int, stop: int) -> Value:
    """Return the content of an AnyValue; `ODD` when it does not have exactly one field or none.

    Raises:
        UnicodeDecodeError: it is a text that is not UTF-8.

    """
    if at == stop:
        return None
    tag, start, at = field(body, at, stop)
    if at != stop:
        return ODD
    if tag == _TEXT:
        return body[start:stop].decode("utf-8")
    if tag == _INT:
        return _varint(body, start, stop)
    if tag == _BOOL:
        return _varint(body, start, stop) != 0
    if tag == _NUMBER:
        double: float = _DOUBLE.unpack_from(body, start)[0]
        return double
    return OPAQUE if tag in (_ARRAY, _PAIRS, _BYTES) else ODD


def field(body: bytes, at: int, stop: int) -> tuple[int, int, int]:
    """Return (tag, start, end) of the field at `at`; its bytes without the tag and the length are `start` to `end`.

    The end is -1 when it is not a field of one byte of tag, or does not end before `stop`. A varint of ten bytes, which
    is a negative number, is not accepted either.
    """
    tag = body[at]
    at += 1
    kind = tag & 7
    if kind == 2:
        if at >= stop:
            return tag, at, -1
        length = body[at]
        at += 1
        if length >= 0x80:
            begin = at - 1
            at = _varint_end(body, begin, stop)
            if at < 0:
                return tag, begin, -1
            length = _varint(body, begin, at)
        if length > stop - at:  # the sum of both may exceed 64 bits, which compiled code counts in
            return tag, at, -1
        end = at + length
    elif kind == 0:
        end = _varint_end(body, at, stop)
    elif kind == 1:
        end = at + 8
    elif kind == 5:
        end = at + 4
    else:
        return tag, at, -1
    if end > stop or tag >= 0x80 or tag < 8:
        return tag, at, -1
    return tag, at, end


def _varint_end(body: bytes, at: int, stop: int) -> int:
    """Return where the varint at `at` ends, -1 when it does not within nine bytes or before `stop`."""
    last = min(stop, at + 9)
    while at < last:
        if body[at] < 0x80:
            return at + 1
        at += 1
    return -1


def _varint(body: bytes, at: int, end: int) -> int:
    """Return the value of the varint from `at` to `end`, which is at most nine bytes long."""
    value = 0
    while end > at:
        end -= 1
        value = (value << 7) | (body[end] & 0x7F)
    return value


def fixed64(body: bytes, at: int) -> int:
    """Return the eight bytes at `at` as an unsigned integer."""
    value = 0
    for place in range(at + 7, at - 1, -1):
        value = (value << 8) | body[place]
    return value
