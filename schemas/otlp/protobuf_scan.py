"""Reads a well-formed logs request in protobuf in one pass, in the compiled form.

protobuf's parser makes an object of each value before anything is read from it, which is most of the work of a small
body. Compiled, a walk over the bytes costs less than that. It accepts only what every exporter sends: whatever is
unusual (another wire type, a field that no log has, a message in two parts, text that is not UTF-8) is left to
`protobuf_logs`, whose results are the same for everything that is accepted here. Interpreted, this walk is slower than
protobuf's parser, so it is used only where it is compiled.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from tallystream.schemas.otlp.attributes import PlainAttributes
from tallystream.schemas.otlp.limits import DecodingBudget, Limits
from tallystream.schemas.otlp.protobuf_records import record
from tallystream.schemas.otlp.records import OPAQUE, Broken, BrokenRecord, LogRecord, RecordHint, Value, event_names

_DOUBLE: Final = struct.Struct("<d")
_ODD: Final = Broken("its bytes are not an AnyValue in its usual form")

# Tags: the field's number and wire type (0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes).
_RESOURCES: Final = 0x0A
_RESOURCE: Final = 0x0A
_SCOPES: Final = 0x12
_SCOPE: Final = 0x0A
_RECORDS: Final = 0x12
_SCHEMA_URL: Final = 0x1A
_RESOURCE_ATTRIBUTE: Final = 0x0A
_RESOURCE_DROPPED: Final = 0x10
_RESOURCE_ENTITY: Final = 0x1A
_NAME: Final = 0x0A
_TIME: Final = 0x09
_SEVERITY: Final = 0x10
_SEVERITY_TEXT: Final = 0x1A
_BODY: Final = 0x2A
_ATTRIBUTE: Final = 0x32
_DROPPED: Final = 0x38
_FLAGS: Final = 0x45
_TRACE_ID: Final = 0x4A
_SPAN_ID: Final = 0x52
_OBSERVED: Final = 0x59
_EVENT_NAME: Final = 0x62
_KEY: Final = 0x0A
_VALUE: Final = 0x12
_TEXT: Final = 0x0A
_BOOL: Final = 0x10
_INT: Final = 0x18
_NUMBER: Final = 0x21
_ARRAY: Final = 0x2A
_PAIRS: Final = 0x32
_BYTES: Final = 0x3A


def is_usual(body: bytes) -> bool:
    """Whether `records` can read a body: its frame is in the usual form, and its first record can only be a log's."""
    at, stop, looked = 0, len(body), False
    while at < stop:
        tag, start, at = _field(body, at, stop)
        if at < 0 or tag != _RESOURCES:
            return False
        found = _usual_resource(body, start, at, looked)
        if found < 0:
            return False
        looked = looked or found > 0
    return looked


def _usual_resource(body: bytes, at: int, stop: int, looked: bool) -> int:
    """Return how many records a ResourceLogs has, -1 when it is not in the usual form."""
    resources = found = 0
    while at < stop:
        tag, start, at = _field(body, at, stop)
        if at < 0:
            return -1
        if tag == _RESOURCE:
            resources += 1
            if resources > 1 or _values(body, start, at, _RESOURCE_ATTRIBUTE) is None:
                return -1
        elif tag == _SCOPES:
            inside = _usual_scope(body, start, at, looked or found > 0)
            if inside < 0:
                return -1
            found += inside
        elif tag != _SCHEMA_URL:
            return -1
    return found


def _usual_scope(body: bytes, at: int, stop: int, looked: bool) -> int:
    """Return how many records a ScopeLogs has, -1 when it is not in the usual form."""
    scopes = found = 0
    while at < stop:
        tag, start, at = _field(body, at, stop)
        if at < 0:
            return -1
        if tag == _RECORDS:
            if not looked and not found and not _is_log(body, start, at):
                return -1
            found += 1
        elif tag == _SCOPE:
            scopes += 1
            if scopes > 1 or _name(body, start, at) is None:
                return -1
        elif tag != _SCHEMA_URL:
            return -1
    return found


def _is_log(body: bytes, at: int, stop: int) -> bool:
    """Whether a record begins as only a log record can, and has only fields of one."""
    if at >= stop or body[at] not in (_TIME, _SEVERITY, _OBSERVED):
        return False
    while at < stop:
        tag, _, at = _field(body, at, stop)
        if at < 0 or not _of_log(tag):
            return False
    return True


def _of_log(tag: int) -> bool:
    return tag in (
        _ATTRIBUTE,
        _TIME,
        _OBSERVED,
        _BODY,
        _SEVERITY,
        _SEVERITY_TEXT,
        _DROPPED,
        _FLAGS,
        _TRACE_ID,
        _SPAN_ID,
        _EVENT_NAME,
    )


def records(body: bytes, tally: DecodingBudget, hint: RecordHint) -> Iterator[LogRecord | BrokenRecord]:
    """Walk a body in the usual form; yield the records that the hint finds, as `protobuf_logs.read_logs` does."""
    mark = body.find(hint.mark)
    at, stop = 0, len(body)
    while at < stop:
        _, first, at = _field(body, at, stop)
        tally.frame()
        resource: dict[str, Value] | None = None
        inner = first
        while inner < at:
            tag, start, inner = _field(body, inner, at)
            if tag != _SCOPES:
                continue
            tally.frame()
            scope: str | None = None
            place = start
            while place < inner:
                kind, begin, place = _field(body, place, inner)
                if kind != _RECORDS:
                    continue
                tally.record()
                if 0 <= mark < begin:
                    mark = body.find(hint.mark, begin)
                if mark < 0 or mark >= place or hint.raw.search(body, begin, place) is None:
                    continue
                if resource is None:
                    resource = _resource_of(body, first, at)
                if scope is None:
                    scope = _scope_of(body, start, inner)
                tally.usage_record()
                index = tally.records - 1
                found = _record(body, begin, place, index, scope, resource, tally.limits)
                if found is None:
                    yield record(body[begin:place], index, scope, resource, tally.limits)
                else:
                    yield found


def _resource_of(body: bytes, at: int, stop: int) -> dict[str, Value]:
    """Return the attributes of a ResourceLogs' resource, wherever it stands."""
    while at < stop:
        tag, start, at = _field(body, at, stop)
        if tag == _RESOURCE:
            return _values(body, start, at, _RESOURCE_ATTRIBUTE) or {}
    return {}


def _scope_of(body: bytes, at: int, stop: int) -> str:
    """Return the name of a ScopeLogs' scope, wherever it stands."""
    while at < stop:
        tag, start, at = _field(body, at, stop)
        if tag == _SCOPE:
            return _name(body, start, at) or ""
    return ""


def _name(body: bytes, at: int, stop: int) -> str | None:
    """Return the name in a scope; None when it is not in the usual form."""
    name = ""
    while at < stop:
        tag, start, at = _field(body, at, stop)
        if at < 0:
            return None
        if tag == _NAME:
            try:
                name = body[start:at].decode()
            except UnicodeDecodeError:
                return None
    return name


def _record(
    body: bytes, at: int, stop: int, index: int, scope: str, resource: dict[str, Value], limits: Limits
) -> LogRecord | None:
    """Return the record, None when it is not in the usual form or exceeds a limit."""
    if stop - at > limits.record_bytes:
        return None
    try:
        found = _fields(body, at, stop)
    except UnicodeDecodeError:
        return None
    if found is None or len(found.values) > limits.attributes:
        return None
    attributes = PlainAttributes(found.values)
    named = event_names(attributes, found.event_name, found.body)
    return LogRecord(
        index,
        found.time_ns,
        found.observed_ns,
        found.trace_id,
        named.event_name,
        scope,
        resource,
        attributes,
        named.names,
        named.hints,
    )


class _Fields:
    """The fields of a record that matter."""

    __slots__ = ("body", "event_name", "observed_ns", "time_ns", "trace_id", "values")

    def __init__(self) -> None:
        self.time_ns = 0
        self.observed_ns = 0
        self.trace_id = ""
        self.event_name = ""
        self.body: Value = None
        self.values: dict[str, Value] = {}


def _fields(body: bytes, at: int, stop: int) -> _Fields | None:
    """Return the fields of a record, None when it is not in the usual form; raises UnicodeDecodeError."""
    found = _Fields()
    bodies = 0
    while at < stop:
        tag, start, at = _field(body, at, stop)
        if at < 0:
            return None
        if tag == _ATTRIBUTE:
            if not _attribute(body, start, at, found.values):
                return None
        elif tag == _TIME:
            found.time_ns = _fixed64(body, start)
        elif tag == _OBSERVED:
            found.observed_ns = _fixed64(body, start)
        elif tag == _BODY:
            bodies += 1
            found.body = _any_value(body, start, at)
            if bodies > 1 or found.body is _ODD:
                return None
        elif tag == _TRACE_ID:
            found.trace_id = body[start:at].hex()
        elif tag == _EVENT_NAME:
            found.event_name = body[start:at].decode()
        elif not _of_log(tag):
            return None
    return found


def _values(body: bytes, at: int, stop: int, wanted: int) -> dict[str, Value] | None:
    """Return the attributes of a resource; None when it is not in the usual form."""
    values: dict[str, Value] = {}
    try:
        while at < stop:
            tag, start, at = _field(body, at, stop)
            if at < 0:
                return None
            if tag == wanted:
                if not _attribute(body, start, at, values):
                    return None
            elif tag != _RESOURCE_DROPPED and tag != _RESOURCE_ENTITY:
                return None
    except UnicodeDecodeError:
        return None
    return values


def _attribute(body: bytes, at: int, stop: int, values: dict[str, Value]) -> bool:
    """Add a KeyValue; return whether it is in the usual form: a key, and then a value or nothing.

    Raises:
        UnicodeDecodeError: a text is not UTF-8.

    """
    if at >= stop:
        return False
    tag, start, at = _field(body, at, stop)
    if at < 0 or tag != _KEY:
        return False
    key = body[start:at].decode()
    if at == stop:
        values[key] = None
        return True
    tag, start, at = _field(body, at, stop)
    if at != stop or tag != _VALUE:
        return False
    value = _any_value(body, start, stop)
    if value is _ODD:
        return False
    values[key] = value
    return True


def _any_value(body: bytes, at: int, stop: int) -> Value:
    """Return the content of an AnyValue; `_ODD` when it does not have exactly one field or none.

    Raises:
        UnicodeDecodeError: it is a text that is not UTF-8.

    """
    if at == stop:
        return None
    tag, start, at = _field(body, at, stop)
    if at != stop:
        return _ODD
    if tag == _TEXT:
        return body[start:stop].decode()
    if tag in (_INT, _BOOL):
        number = _varint(body, start, stop)
        return number if tag == _INT else number != 0
    if tag == _NUMBER:
        double: float = _DOUBLE.unpack_from(body, start)[0]
        return double
    return OPAQUE if tag in (_ARRAY, _PAIRS, _BYTES) else _ODD


def _field(body: bytes, at: int, stop: int) -> tuple[int, int, int]:
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


def _fixed64(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 8], "little")
