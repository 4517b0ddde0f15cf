"""OTLP in protobuf, as the clients' exporters write it: fields in order of their numbers.

Field numbers: opentelemetry/proto/{logs,common,resource}/v1. Codex (Rust's prost) leaves defaults out and tells when a
record was observed; the exporter of JavaScript writes how many attributes it dropped, and both times.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tallystream.simulator.wire import (
    HEAD,
    NS,
    SPAN,
    TRACE,
    Hole,
    Value,
    Wire,
    WirePart,
    WireRecord,
    WireScope,
    concat,
    hole,
    literal,
)


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


def _part(field: int, part: WirePart) -> WirePart:
    return concat([literal(_TAGS[field] + varint(part.size)), part])


@lru_cache(maxsize=1024)
def _key(key: str) -> bytes:
    """KeyValue.key is field 1, its value field 2."""
    return _bytes(1, key.encode()) + b"\x12"


def _any(value: Value) -> bytes:
    """AnyValue: string 1, bool 2, int 3, double 4, array 5 of values 1."""
    if isinstance(value, str):
        return _bytes(1, value.encode())
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    return b"" if value is None else _bytes(5, b"".join(_bytes(1, _any(one)) for one in value))


_FIXED64 = struct.Struct("<Q")
_TRACED = [literal(b"\x45\x01\x00\x00\x00\x4a\x10"), hole(TRACE, 16), literal(b"\x52\x08"), hole(SPAN, 8)]
"""Flags 8, trace 9, span 10."""
_OBSERVED = [literal(b"\x59"), hole(NS, 8)]


@lru_cache(maxsize=8192)
def _head(size: int) -> bytes:
    return b"\x12" + varint(size)


class Protobuf(Wire):
    """`application/x-protobuf`."""

    content_type = "application/x-protobuf"
    separator = between = b""
    dropped = b""
    """What a resource ends with."""

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

    def pair(self, key: str, value: Value | Hole) -> WirePart:
        """Encode an attribute."""
        if not isinstance(value, Hole):
            return literal(self.attribute(key, value))
        text = _part(1, hole(value.index, value.size))
        return _part(6, concat([literal(_key(key) + varint(text.size)), text]))

    @staticmethod
    def _body(body: str | Hole | None) -> list[WirePart]:
        """LogRecord.body is field 5."""
        if body is None:
            return []
        if isinstance(body, str):
            return [literal(_bytes(5, _any(body)))]
        return [_part(5, _part(1, hole(body.index, body.size)))]

    @staticmethod
    def _opened(parts: Sequence[WirePart]) -> WirePart:
        inner = concat(parts)
        return WirePart(b"%b" + inner.format, inner.size, (HEAD, *inner.holes))

    def resource(self, pairs: Sequence[tuple[str, Value]]) -> bytes:
        """Resource.attributes is field 1."""
        return b"".join(self._attribute(1, key, value) for key, value in pairs) + self.dropped

    def logs(self, resource: bytes, scopes: Sequence[tuple[WireScope, Sequence[bytes]]]) -> bytes:
        """ResourceLogs 1 { resource 1, ScopeLogs 2 { scope 1 { name 1, version 2 }, records 2 } }."""
        out = [_bytes(1, resource)]
        for who, runs in scopes:
            version = _bytes(2, who.version.encode()) if who.version else b""
            scope = _bytes(1, _bytes(1, who.name.encode()) + version)
            size = len(scope) + sum(map(len, runs))
            out += (b"\x12", varint(size), scope, *runs)
        return b"".join((b"\x0a", varint(sum(map(len, out))), *out))

    def document(self, document: Mapping[str, object]) -> bytes:
        """Encode it with the official classes."""
        message = ExportTraceServiceRequest() if "resourceSpans" in document else ExportMetricsServiceRequest()
        return ParseDict(_base64_ids(document), message).SerializeToString(deterministic=True)


class RustProtobuf(Protobuf):
    """Codex's exporter."""

    def record(self, record: WireRecord) -> WirePart:
        """Severity 2 and 3, body 5, attributes 6, flags 8, trace 9, span 10, observed time 11, event name 12."""
        number, text = record.severity
        return self._opened(
            [
                literal(b"\x10" + varint(number) + _bytes(3, text.encode())),
                *self._body(record.body),
                record.attributes,
                *(_TRACED if record.traced else ()),
                *_OBSERVED,
                literal(_bytes(12, record.name.encode())),
            ]
        )


class ScriptProtobuf(Protobuf):
    """OpenTelemetry's exporter for JavaScript."""

    dropped = b"\x10\x00"

    def record(self, record: WireRecord) -> WirePart:
        """Time 1, body 5, attributes 6, dropped ones 7, flags 8, trace 9, span 10, observed time 11."""
        return self._opened(
            [
                literal(b"\x09"),
                hole(NS, 8),
                *self._body(record.body),
                record.attributes,
                literal(b"\x38\x00"),
                *(_TRACED if record.traced else ()),
                *_OBSERVED,
            ]
        )


def _base64_ids(node: object) -> Any:
    """`json_format` reads ids as base64, OTLP/JSON writes them as hex."""
    if isinstance(node, dict):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key.endswith(("raceId", "panId"))
            else _base64_ids(value)
            for key, value in node.items()
        }
    return [_base64_ids(item) for item in node] if isinstance(node, list) else node
