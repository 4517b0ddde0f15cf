"""OTLP logs in protobuf, as Codex's exporter (Rust's prost) writes them: fields in order, defaults left out.

Field numbers: opentelemetry/proto/{logs,common,resource}/v1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache

from tallystream.simulator.wire import HEAD, NS, SPAN, TRACE, Hole, Part, Record, Value, Wire, concat, hole, literal


def varint(value: int) -> bytes:
    """Encode a protobuf varint."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_TAGS = [bytes((field << 3 | 2,)) for field in range(16)]


def _bytes(field: int, data: bytes) -> bytes:
    return _TAGS[field] + varint(len(data)) + data


def _part(field: int, part: Part) -> Part:
    return concat([literal(_TAGS[field] + varint(part.size)), part])


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    """KeyValue.key is field 1, its value field 2."""
    return _bytes(1, key.encode()) + b"\x12"


def _any(value: Value) -> bytes:
    """AnyValue: string 1, bool 2, int 3, double 4."""
    if isinstance(value, str):
        return _bytes(1, value.encode())
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    return b"\x21" + struct.pack("<d", value)


_FIXED64 = struct.Struct("<Q")


@lru_cache(maxsize=8192)
def _head(size: int) -> bytes:
    return b"\x12" + varint(size)


class Protobuf(Wire):
    """`application/x-protobuf`."""

    content_type = "application/x-protobuf"
    separator = between = b""

    def time(self, ns: int) -> bytes:
        """Return a fixed64."""
        return _FIXED64.pack(ns)

    def identifier(self, data: bytes) -> bytes:
        """Return the bytes as they are."""
        return data

    def head(self, size: int) -> bytes:
        """ScopeLogs.log_records is field 2."""
        return _head(size)

    def attribute(self, key: str, value: Value) -> bytes:
        """LogRecord.attributes is field 6."""
        return self._attribute(6, key, value)

    @staticmethod
    def _attribute(field: int, key: str, value: Value) -> bytes:
        name, data = _key(key), _any(value)
        return _bytes(field, b"%b%b%b" % (name, varint(len(data)), data))

    def pair(self, key: str, value: Value | Hole) -> Part:
        """Encode an attribute."""
        if not isinstance(value, Hole):
            return literal(self.attribute(key, value))
        text = _part(1, hole(value.index, value.size))
        return _part(6, concat([literal(_key(key) + varint(text.size)), text]))

    def record(self, record: Record) -> Part:
        """Severity 2 and 3, body 5, attributes 6, flags 8, trace 9, span 10, observed time 11, event name 12."""
        number, text = record.severity
        start = b"\x10" + varint(number) + _bytes(3, text.encode())
        if record.body is not None:
            start += _bytes(5, _any(record.body))
        ids = [literal(b"\x45\x01\x00\x00\x00\x4a\x10"), hole(TRACE, 16), literal(b"\x52\x08"), hole(SPAN, 8)]
        inner = concat(
            [
                literal(start),
                self.events(record),
                *(ids if record.traced else ()),
                literal(b"\x59"),
                hole(NS, 8),
                literal(_bytes(12, record.name.encode())),
            ]
        )
        return Part(b"%b" + inner.format, inner.size, (HEAD, *inner.holes))

    def resource(self, pairs: Sequence[tuple[str, Value]]) -> bytes:
        """Resource.attributes is field 1."""
        return b"".join(self._attribute(1, key, value) for key, value in pairs)

    def logs(self, resource: bytes, scopes: Sequence[tuple[str, Sequence[bytes]]]) -> bytes:
        """ResourceLogs 1 { resource 1, ScopeLogs 2 { scope 1 { name 1 }, records 2 } }."""
        out = [_bytes(1, resource)]
        for name, runs in scopes:
            scope = _bytes(1, _bytes(1, name.encode()))
            size = len(scope) + sum(map(len, runs))
            out += (b"\x12", varint(size), scope, *runs)
        return b"".join((b"\x0a", varint(sum(map(len, out))), *out))
