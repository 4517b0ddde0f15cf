"""Reads a well-formed logs request in protobuf in one pass, in the compiled form.

protobuf's parser makes an object of each value before anything is read from it, which is most of the work of a small
body. Compiled, a walk over the bytes costs less than that. It accepts only what every exporter sends: whatever is
unusual (another wire type, a field that no log has, a message in two parts, text that is not UTF-8) is left to
`protobuf_logs`, whose results are the same for everything that is accepted here. Interpreted, this walk is slower than
protobuf's parser, so it is used only where it is compiled.
"""

from __future__ import annotations

from typing import Final

from tallystream.schemas.otlp.attributes import PlainAttributes
from tallystream.schemas.otlp.limits import DecodingBudget, Limits
from tallystream.schemas.otlp.protobuf_fields import ODD, add_attribute, any_value, field, fixed64, is_scalar, key_of
from tallystream.schemas.otlp.protobuf_records import record
from tallystream.schemas.otlp.records import OPAQUE, BrokenRecord, LogRecord, RecordHint, Value, event_names
from tallystream.schemas.otlp.shared_resource import shared_resource

# Tags: the field's number and wire type (0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes).
_RESOURCES: Final = 0x0A
_RESOURCE: Final = 0x0A
_SCOPES: Final = 0x12
_SCOPE: Final = 0x0A
_RECORDS: Final = 0x12
_SCHEMA_URL: Final = 0x1A
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


def is_usual(body: bytes) -> bool:
    """Whether `records` can read a body: its frame is in the usual form, and its first record can only be a log's."""
    at, stop, looked = 0, len(body), False
    while at < stop:
        tag, start, at = field(body, at, stop)
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
        tag, start, at = field(body, at, stop)
        if at < 0:
            return -1
        if tag == _RESOURCE:
            resources += 1  # what is in it is left to `shared_resource`
            if resources > 1:
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
        tag, start, at = field(body, at, stop)
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
        tag, _, at = field(body, at, stop)
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


def records(body: bytes, tally: DecodingBudget, hint: RecordHint) -> list[LogRecord | BrokenRecord]:
    """Return the records of a body in the usual form that the hint finds, as `protobuf_logs.read_logs` does.

    Raises:
        TooManyElementsError: it exceeds a limit.

    """
    found: list[LogRecord | BrokenRecord] = []
    at, stop = 0, len(body)
    hint_mark, matches, limits = hint.mark, hint.raw.search, tally.limits
    names_mark = hint.names_mark.encode()
    mark = body.find(hint_mark)
    while at < stop:
        _, first, at = field(body, at, stop)
        tally.frame()
        resource: dict[str, Value] | None = None
        inner = first
        while inner < at:
            tag, start, inner = field(body, inner, at)
            if tag != _SCOPES:
                continue
            tally.frame()
            scope: str | None = None
            index = tally.records
            place = start
            while place < inner:
                kind, begin, place = field(body, place, inner)
                if kind != _RECORDS:
                    continue
                index += 1
                if 0 <= mark < begin:
                    mark = body.find(hint_mark, begin)
                if mark < 0 or mark >= place or matches(body, mark, place) is None:
                    continue
                tally.usage_record()
                if not _may_be_named(body, begin, place, names_mark, limits):
                    continue
                if resource is None:
                    resource = _resource_of(body, first, at, limits)
                if scope is None:
                    scope = _scope_of(body, start, inner)
                usual = _record(body, begin, place, index - 1, scope, resource, limits)
                if usual is None:
                    made = record(body[begin:place], index - 1, scope, resource, limits, hint)
                    if made is not None:
                        found.append(made)
                elif hint.in_names(usual.attributes.names()):
                    found.append(usual)
            tally.record(index - tally.records)
    return found


def _may_be_named(body: bytes, at: int, stop: int, mark: bytes, limits: Limits) -> bool:
    """Whether the hint may find a record by its names, all of which hold `mark`, or may find it broken.

    False is certain: the record has the form of a log record within the limits, no attribute of such a name, and no
    body that has attributes. Whether its values are valid does not matter then, as it is dropped without them.
    """
    if stop - at > limits.record_bytes:
        return True
    attributes = bodies = 0
    near = body.find(mark, at, stop)
    while at < stop:
        tag, start, at = field(body, at, stop)
        if at < 0:
            return True
        if tag == _ATTRIBUTE:
            attributes += 1
            start, end = key_of(body, start, at)
            if end < 0:
                return True
            if 0 <= near < start:
                near = body.find(mark, start, stop)
            if near >= 0 and near + len(mark) <= end:
                return True
        elif tag == _BODY:
            bodies += 1
            if bodies > 1 or not is_scalar(body, start, at):
                return True
        elif not _of_log(tag):
            return True
    return attributes > limits.attributes


def _resource_of(body: bytes, at: int, stop: int, limits: Limits) -> dict[str, Value]:
    """Return the attributes of a ResourceLogs' resource, wherever it stands."""
    while at < stop:
        tag, start, at = field(body, at, stop)
        if tag == _RESOURCE:
            return shared_resource(body[start:at], limits)
    return shared_resource(b"", limits)


def _scope_of(body: bytes, at: int, stop: int) -> str:
    """Return the name of a ScopeLogs' scope, wherever it stands."""
    while at < stop:
        tag, start, at = field(body, at, stop)
        if tag == _SCOPE:
            return _name(body, start, at) or ""
    return ""


def _name(body: bytes, at: int, stop: int) -> str | None:
    """Return the name in a scope; None when it is not in the usual form."""
    name = ""
    while at < stop:
        tag, start, at = field(body, at, stop)
        if at < 0:
            return None
        if tag == _NAME:
            try:
                name = body[start:at].decode("utf-8")
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
    event_name, names, hints = event_names(attributes, found.event_name, found.body)
    return LogRecord(
        index,
        found.time_ns,
        found.observed_ns,
        found.trace_id,
        event_name,
        scope,
        resource,
        attributes,
        names,
        hints,
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
        tag, start, at = field(body, at, stop)
        if at < 0:
            return None
        if tag == _ATTRIBUTE:
            if not add_attribute(body, start, at, found.values):
                return None
        elif tag == _TIME:
            found.time_ns = fixed64(body, start)
        elif tag == _OBSERVED:
            found.observed_ns = fixed64(body, start)
        elif tag == _BODY:
            bodies += 1
            found.body = any_value(body, start, at)
            # a body that is a list may have what belongs in the attributes
            if bodies > 1 or found.body is ODD or found.body is OPAQUE:
                return None
        elif tag == _TRACE_ID:
            found.trace_id = body[start:at].hex()
        elif tag == _EVENT_NAME:
            found.event_name = body[start:at].decode("utf-8")
        elif not _of_log(tag):
            return None
    return found
