"""OTLP log records as byte templates, so that a fleet can be played faster than any gateway reads it.

A `Part` is encoded bytes with holes; what fills a hole always has the same size, so every length prefix in the part is
known beforehand and a record is one `%` of bytes away. Both encodings are written as Codex writes them: protobuf as
Rust's prost does (fields in order, defaults left out), JSON indented by two spaces, int64 as strings, `body` null.
Field numbers: opentelemetry/proto/{logs,common,resource}/v1.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple

import orjson

Value = str | int | bool | float
Pairs = Sequence[tuple[str, "Value | Hole"]]

NS = 0
"""Hole for the record's time, ns since the epoch."""
ISO = 1
"""Hole for the same time as text: 24 characters, ms."""
EXTRA = 2
"""First hole that a shape may use for itself."""


@dataclass(frozen=True)
class Hole:
    """An attribute value filled in later with exactly `size` bytes of plain ASCII."""

    index: int
    size: int


class Part(NamedTuple):
    """Encoded bytes with holes: a `%b` format, the size once filled, and which value fills each hole."""

    format: bytes
    size: int
    holes: tuple[int, ...] = ()


class Template(NamedTuple):
    """A run of records. `fill(values)` gives the arguments of `format`; record k's times are values 2k and 2k + 1."""

    format: bytes
    fill: Callable[[Sequence[bytes]], tuple[bytes, ...]]
    records: int

    def render(self, values: Sequence[bytes]) -> bytes:
        """Return the records' bytes."""
        return self.format % self.fill(values)


class Record(NamedTuple):
    """What one record has of its own. `traced` records carry a trace and a span id."""

    own: Part
    name: str
    """`eventName`: a place in Codex's code, not what happened."""
    severity: tuple[int, str] = (9, "INFO")
    body: str | None = None
    traced: bool = True
    tail: bool = True
    """Whether the attributes that every event of the session has follow."""


def literal(data: bytes) -> Part:
    """Return bytes without holes."""
    return Part(data.replace(b"%", b"%%"), len(data))


def concat(parts: Sequence[Part], separator: bytes = b"") -> Part:
    """Return the parts one after the other."""
    size = sum(part.size for part in parts) + len(separator) * max(0, len(parts) - 1)
    return Part(
        separator.join([part.format for part in parts]), size, tuple(hole for part in parts for hole in part.holes)
    )


class Wire(ABC):
    """One encoding of OTLP logs."""

    content_type: str
    separator: bytes
    """Between records."""

    @abstractmethod
    def attributes(self, pairs: Pairs) -> Part:
        """Encode attributes."""

    @abstractmethod
    def record(self, record: Record, tail: Part, trace: bytes, span: bytes) -> Part:
        """Encode a record with `NS` and (in `tail` or its own part) `ISO` holes; `trace` is 16 bytes, `span` 8."""

    @abstractmethod
    def time(self, ns: int) -> bytes:
        """Return what fills an `NS` hole."""

    @abstractmethod
    def resource(self, pairs: Pairs) -> bytes:
        """Encode a resource."""

    @abstractmethod
    def logs(self, resource: bytes, scopes: Sequence[tuple[str, Sequence[bytes]]]) -> bytes:
        """Return a request body: one resource, each scope's runs of records."""


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
    head = _TAGS[field] + varint(part.size)
    return Part(head.replace(b"%", b"%%") + part.format, len(head) + part.size, part.holes)


def _any(value: Value) -> bytes:
    """AnyValue: string 1, bool 2, int 3, double 4."""
    if isinstance(value, str):
        return _bytes(1, value.encode())
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    return b"\x21" + struct.pack("<d", value)


class Protobuf(Wire):
    """`application/x-protobuf`."""

    content_type = "application/x-protobuf"
    separator = b""
    _fixed64 = staticmethod(struct.Struct("<Q").pack)

    def time(self, ns: int) -> bytes:
        """Return a fixed64."""
        return self._fixed64(ns)

    def _pair(self, field: int, key: str, value: Value | Hole) -> Part:
        name = _bytes(1, key.encode())
        if not isinstance(value, Hole):
            return literal(_bytes(field, name + _bytes(2, _any(value))))
        text = _part(1, Part(b"%b", value.size, (value.index,)))
        return _part(field, concat([literal(name), _part(2, text)]))

    def attributes(self, pairs: Pairs) -> Part:
        """LogRecord.attributes is field 6."""
        return concat([self._pair(6, key, value) for key, value in pairs])

    def record(self, record: Record, tail: Part, trace: bytes, span: bytes) -> Part:
        """Severity 2 and 3, body 5, attributes 6, flags 8, trace 9, span 10, observed time 11, event name 12."""
        number, text = record.severity
        head = b"\x10" + varint(number) + _bytes(3, text.encode())
        if record.body is not None:
            head += _bytes(5, _any(record.body))
        end = b"\x45\x01\x00\x00\x00" + _bytes(9, trace) + _bytes(10, span) if record.traced else b""
        parts = [
            literal(head),
            record.own,
            *([tail] if record.tail else []),
            literal(end),
            Part(b"\x59%b", 9, (NS,)),
            literal(_bytes(12, record.name.encode())),
        ]
        return _part(2, concat(parts))

    def resource(self, pairs: Pairs) -> bytes:
        """Resource.attributes is field 1."""
        return b"".join(self._pair(1, key, value).format.replace(b"%%", b"%") for key, value in pairs)

    def logs(self, resource: bytes, scopes: Sequence[tuple[str, Sequence[bytes]]]) -> bytes:
        """ResourceLogs 1 { resource 1, ScopeLogs 2 { scope 1 { name 1 }, records 2 } }."""
        out = [_bytes(1, resource)]
        for name, runs in scopes:
            scope = _bytes(1, _bytes(1, name.encode()))
            size = len(scope) + sum(map(len, runs))
            out += (b"\x12", varint(size), scope, *runs)
        return b"".join((b"\x0a", varint(sum(map(len, out))), *out))


class Json(Wire):
    """`application/json`, indented as Codex does."""

    content_type = "application/json"
    separator = b",\n"

    def time(self, ns: int) -> bytes:
        """Return 19 digits."""
        return b"%d" % ns

    @staticmethod
    def _pair(key: str, value: Value | Hole, indent: int) -> Part:
        holes: tuple[int, ...] = ()
        if isinstance(value, Hole):
            kind, text, holes = b"stringValue", b'"\0"', (value.index,)
        elif isinstance(value, str):
            kind, text = b"stringValue", orjson.dumps(value)
        elif isinstance(value, bool):
            kind, text = b"boolValue", b"true" if value else b"false"
        elif isinstance(value, int):
            kind, text = b"intValue", b'"%d"' % value
        else:
            kind, text = b"doubleValue", orjson.dumps(value)
        data = (b'{\n  "key": %b,\n  "value": {\n    "%b": %b\n  }\n}' % (orjson.dumps(key), kind, text)).replace(
            b"\n", b"\n" + b" " * indent
        )
        part = literal(b" " * indent + data)
        if not isinstance(value, Hole):
            return part
        return Part(part.format.replace(b"\0", b"%b"), part.size - 1 + value.size, holes)

    def attributes(self, pairs: Pairs) -> Part:
        """Encode attributes, separated by commas."""
        return concat([self._pair(key, value, 16) for key, value in pairs], b",\n")

    def record(self, record: Record, tail: Part, trace: bytes, span: bytes) -> Part:
        """All fields are written, empty ones too."""
        number, text = record.severity
        body = b"null" if record.body is None else self._any(record.body)
        flags, ids = (1, (trace.hex(), span.hex())) if record.traced else (0, ("", ""))
        runs = [part for part in (record.own, tail if record.tail else None) if part is not None and part.size]
        attributes = (
            concat([literal(b"[\n"), concat(runs, b",\n"), literal(b"\n              ]")]) if runs else literal(b"[]")
        )
        head = (
            f'",\n              "severityNumber": {number},\n              "severityText": "{text}",\n'
            f'              "body": '
        ).encode()
        end = (
            f',\n              "droppedAttributesCount": 0,\n              "flags": {flags},\n'
            f'              "traceId": "{ids[0]}",\n              "spanId": "{ids[1]}",\n'
            f'              "eventName": "{record.name}"\n            }}'
        ).encode()
        start = b'            {\n              "timeUnixNano": "0",\n              "observedTimeUnixNano": "'
        return concat(
            [
                literal(start),
                Part(b"%b", 19, (NS,)),
                literal(head + body + b',\n              "attributes": '),
                attributes,
                literal(end),
            ]
        )

    @staticmethod
    def _any(text: str) -> bytes:
        return b'{\n                "stringValue": %b\n              }' % orjson.dumps(text)

    def resource(self, pairs: Pairs) -> bytes:
        """Encode a resource."""
        attributes = concat([self._pair(key, value, 10) for key, value in pairs], b",\n")
        return (
            b'{\n        "attributes": [\n'
            + attributes.format.replace(b"%%", b"%")
            + b'\n        ],\n        "droppedAttributesCount": 0,\n        "entityRefs": []\n      }'
        )

    def logs(self, resource: bytes, scopes: Sequence[tuple[str, Sequence[bytes]]]) -> bytes:
        """Return the whole document."""
        groups = [
            b'        {\n          "scope": {\n            "name": %b,\n            "version": "",\n'
            b'            "attributes": [],\n            "droppedAttributesCount": 0\n          },\n'
            b'          "logRecords": [\n%b\n          ],\n          "schemaUrl": ""\n        }'
            % (orjson.dumps(name), b",\n".join(runs))
            for name, runs in scopes
        ]
        return (
            b'{\n  "resourceLogs": [\n    {\n      "resource": %b,\n      "scopeLogs": [\n%b\n      ],\n'
            b'      "schemaUrl": ""\n    }\n  ]\n}' % (resource, b",\n".join(groups))
        )


def template(wire: Wire, records: Sequence[Record], tail: Part, trace: bytes, spans: Sequence[bytes]) -> Template:
    """Join records to one template; hole NS of record k becomes value 2k, ISO 2k + 1, an extra hole 2n + its number."""
    parts = []
    count = len(records)
    for k, record in enumerate(records):
        part = wire.record(record, tail, trace, spans[k % len(spans)])
        holes = tuple(2 * k + hole if hole < EXTRA else 2 * count + hole - EXTRA for hole in part.holes)
        parts.append(part._replace(holes=holes))
    whole = concat(parts, wire.separator)
    picked = itemgetter(*whole.holes)
    fill: Callable[[Sequence[bytes]], tuple[bytes, ...]] = (
        picked if len(whole.holes) > 1 else lambda values: (picked(values),)
    )
    return Template(whole.format, fill, count)
