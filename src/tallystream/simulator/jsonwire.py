"""OTLP logs in JSON, as Codex writes them: indented by two spaces, int64 as strings, `body` null, empty fields too."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import orjson

from tallystream.simulator.wire import NS, SPAN, TRACE, Hole, Part, Record, Value, Wire, concat, hole, literal


@lru_cache(maxsize=1024)
def _opening(key: str, kind: str, indent: int) -> bytes:
    """Return an attribute up to its value."""
    margin = " " * indent
    return f'{margin}{{\n{margin}  "key": "{key}",\n{margin}  "value": {{\n{margin}    "{kind}": '.encode()


class Json(Wire):
    """`application/json`, indented as Codex does."""

    content_type = "application/json"
    separator = between = b",\n"

    def time(self, ns: int) -> bytes:
        """Return 19 digits."""
        return b"%d" % ns

    def identifier(self, data: bytes) -> bytes:
        """Return hex."""
        return data.hex().encode()

    def head(self, size: int) -> bytes:  # noqa: ARG002 - JSON tells no sizes
        """Return nothing."""
        return b""

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

    def pair(self, key: str, value: Value | Hole) -> Part:
        """Encode an attribute."""
        if not isinstance(value, Hole):
            return literal(self.attribute(key, value))
        before, after = self.attribute(key, "\0").split(b"\\u0000")
        return concat([literal(before), hole(value.index, value.size), literal(after)])

    def record(self, record: Record) -> Part:
        """Write all fields, empty ones too."""
        number, text = record.severity
        attributes = self.events(record)
        body = "null"
        if record.body is not None:
            body = f'{{\n                "stringValue": {orjson.dumps(record.body).decode()}\n              }}'
        start = b'            {\n              "timeUnixNano": "0",\n              "observedTimeUnixNano": "'
        middle = (
            f'",\n              "severityNumber": {number},\n              "severityText": "{text}",\n'
            f'              "body": {body},\n              "attributes": '
        )
        flags = f',\n              "droppedAttributesCount": 0,\n              "flags": {int(record.traced)},\n'
        ids = (hole(TRACE, 32), hole(SPAN, 16)) if record.traced else (literal(b""), literal(b""))
        return concat(
            [
                literal(start),
                hole(NS, 19),
                literal(middle.encode()),
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
