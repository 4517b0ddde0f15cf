"""OTLP in JSON, as the clients' exporters write it.

Codex (Rust's serde) indents by two spaces, writes int64 as strings, `body` null and empty fields too. The exporter of
JavaScript writes everything on one line, int64 as numbers, and leaves out what is empty.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache

import orjson

from tallystream.simulator.wire import (
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


class Json(Wire):
    """`application/json`."""

    content_type = "application/json"

    def time(self, ns: int) -> bytes:
        """Return 19 digits."""
        return b"%d" % ns

    def identifier(self, data: bytes) -> bytes:
        """Return hex."""
        return data.hex().encode()

    def head(self, size: int) -> bytes:  # noqa: ARG002 - JSON tells no sizes
        """Return nothing."""
        return b""

    def pair(self, key: str, value: Value | Hole) -> WirePart:
        """Encode an attribute."""
        if not isinstance(value, Hole):
            return literal(self.attribute(key, value))
        return self._around(self.attribute(key, "\0"), value)

    @staticmethod
    def _around(encoded: bytes, value: Hole) -> WirePart:
        before, after = encoded.split(b"\\u0000")
        return concat([literal(before), hole(value.index, value.size), literal(after)])

    def _body(self, body: str | Hole | None) -> WirePart:
        if isinstance(body, Hole):
            return self._around(self._text_body("\0"), body)
        return literal(b"null" if body is None else self._text_body(body))

    @abstractmethod
    def _text_body(self, text: str) -> bytes: ...


@lru_cache(maxsize=1024)
def _opening(key: str, kind: str, indent: int) -> bytes:
    """Return an indented attribute up to its value."""
    margin = " " * indent
    return f'{margin}{{\n{margin}  "key": "{key}",\n{margin}  "value": {{\n{margin}    "{kind}": '.encode()


class RustJson(Json):
    """Codex's exporter. It has no attributes that are lists or empty."""

    separator = between = b",\n"

    def attribute(self, key: str, value: Value) -> bytes:
        """Encode an attribute, indented as those of a record are."""
        return self._attribute(key, value, 16)

    @staticmethod
    def _attribute(key: str, value: Value, indent: int) -> bytes:
        if isinstance(value, str):
            kind, text = "stringValue", orjson.dumps(value)
        elif isinstance(value, bool):
            kind, text = "boolValue", b"true" if value else b"false"
        elif isinstance(value, int):
            kind, text = "intValue", b'"%d"' % value
        else:
            kind, text = "doubleValue", orjson.dumps(value)
        return b"%b%b\n%b  }\n%b}" % (_opening(key, kind, indent), text, b" " * indent, b" " * indent)

    def _text_body(self, text: str) -> bytes:
        return b'{\n                "stringValue": %b\n              }' % orjson.dumps(text)

    def record(self, record: WireRecord) -> WirePart:
        """Write all fields, empty ones too."""
        number, text = record.severity
        attributes = record.attributes
        start = b'            {\n              "timeUnixNano": "0",\n              "observedTimeUnixNano": "'
        middle = f'",\n              "severityNumber": {number},\n              "severityText": "{text}",\n'
        flags = f',\n              "droppedAttributesCount": 0,\n              "flags": {int(record.traced)},\n'
        ids = (hole(TRACE, 32), hole(SPAN, 16)) if record.traced else (literal(b""), literal(b""))
        return concat(
            [
                literal(start),
                hole(NS, 19),
                literal(middle.encode() + b'              "body": '),
                self._body(record.body),
                literal(b',\n              "attributes": '),
                *(
                    (literal(b"[\n"), attributes, literal(b"\n              ]"))
                    if attributes.format
                    else (literal(b"[]"),)
                ),
                literal(flags.encode() + b'              "traceId": "'),
                ids[0],
                literal(b'",\n              "spanId": "'),
                ids[1],
                literal(f'",\n              "eventName": "{record.name}"\n            }}'.encode()),
            ]
        )

    def resource(self, pairs: Sequence[tuple[str, Value]]) -> bytes:
        """Encode a resource."""
        return (
            b'{\n        "attributes": [\n'
            + b",\n".join(self._attribute(key, value, 10) for key, value in pairs)
            + b'\n        ],\n        "droppedAttributesCount": 0,\n        "entityRefs": []\n      }'
        )

    def logs(self, resource: bytes, scopes: Sequence[tuple[WireScope, Sequence[bytes]]]) -> bytes:
        """Return the whole document."""
        groups = [
            b'        {\n          "scope": {\n            "name": %b,\n            "version": %b,\n'
            b'            "attributes": [],\n            "droppedAttributesCount": 0\n          },\n'
            b'          "logRecords": [\n%b\n          ],\n          "schemaUrl": ""\n        }'
            % (orjson.dumps(who.name), orjson.dumps(who.version or ""), b",\n".join(runs))
            for who, runs in scopes
        ]
        return (
            b'{\n  "resourceLogs": [\n    {\n      "resource": %b,\n      "scopeLogs": [\n%b\n      ],\n'
            b'      "schemaUrl": ""\n    }\n  ]\n}' % (resource, b",\n".join(groups))
        )

    def document(self, document: Mapping[str, object]) -> bytes:
        """Indent it."""
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)


@lru_cache(maxsize=1024)
def _inline(key: str, kind: str) -> bytes:
    """Return an attribute up to its value."""
    return f'{{"key":"{key}","value":{{"{kind}":'.encode()


class ScriptJson(Json):
    """OpenTelemetry's exporter for JavaScript."""

    separator = between = b","

    def attribute(self, key: str, value: Value) -> bytes:
        """Encode an attribute."""
        if isinstance(value, str):
            return b"%b%b}}" % (_inline(key, "stringValue"), orjson.dumps(value))
        if isinstance(value, bool):
            return b"%b%b}}" % (_inline(key, "boolValue"), b"true" if value else b"false")
        if isinstance(value, int):
            return b"%b%d}}" % (_inline(key, "intValue"), value)
        if isinstance(value, float):
            return b"%b%b}}" % (_inline(key, "doubleValue"), orjson.dumps(value))
        if value is None:
            return b'{"key":%b,"value":{}}' % orjson.dumps(key)
        return b"%b%b}}" % (_inline(key, "arrayValue"), orjson.dumps({"values": [{"stringValue": v} for v in value]}))

    def _text_body(self, text: str) -> bytes:
        return b'{"stringValue":%b}' % orjson.dumps(text)

    def record(self, record: WireRecord) -> WirePart:
        """Write both times, and ids only where there are any."""
        ids = [literal(b',"flags":1,"traceId":"'), hole(TRACE, 32), literal(b'","spanId":"'), hole(SPAN, 16)]
        return concat(
            [
                literal(b'{"timeUnixNano":"'),
                hole(NS, 19),
                literal(b'","observedTimeUnixNano":"'),
                hole(NS, 19),
                literal(b'","body":'),
                self._body(record.body),
                literal(b',"attributes":['),
                record.attributes,
                literal(b'],"droppedAttributesCount":0'),
                *((*ids, literal(b'"}')) if record.traced else (literal(b"}"),)),
            ]
        )

    def resource(self, pairs: Sequence[tuple[str, Value]]) -> bytes:
        """Encode a resource."""
        attributes = b",".join(self.attribute(key, value) for key, value in pairs)
        return b'{"attributes":[%b],"droppedAttributesCount":0}' % attributes

    def logs(self, resource: bytes, scopes: Sequence[tuple[WireScope, Sequence[bytes]]]) -> bytes:
        """Return the whole document."""
        groups = [
            b'{"scope":%b,"logRecords":[%b]}'
            % (orjson.dumps({k: v for k, v in who._asdict().items() if v is not None}), b",".join(runs))
            for who, runs in scopes
        ]
        return b'{"resourceLogs":[{"resource":%b,"scopeLogs":[%b]}]}' % (resource, b",".join(groups))

    def document(self, document: Mapping[str, object]) -> bytes:
        """Write it on one line."""
        return orjson.dumps(document)
