"""Logs in JSON: a record's attributes are decoded only when a name may be that of a token count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import orjson

from tallystream.schemas.compiled import COMPILED
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp.attributes import JsonAttributes
from tallystream.schemas.otlp.json_attributes import (
    any_value,
    attribute_names,
    attributes,
    body_pairs,
    described,
    nanoseconds,
    sound_attributes,
)
from tallystream.schemas.otlp.json_frames import PARSED_WHOLE, Part, memory_allowed, walk
from tallystream.schemas.otlp.json_scan import ByteRange
from tallystream.schemas.otlp.json_usual import Found, UsualLogs
from tallystream.schemas.otlp.json_values import (
    get,
    hex_id,
    member,
    text,
    utf8,
)
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget, Limits
from tallystream.schemas.otlp.records import (
    NAMES_HINT,
    TOKENS,
    BrokenRecord,
    LogRecord,
    LogsBody,
    RecordHint,
    Value,
    event_names,
)

_ESCAPE: Final = b"\\u"
"""A name may be written with escapes, which are visible only after decoding."""


def read_logs(body: bytes, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody:
    """Decode an ExportLogsServiceRequest.

    Raises:
        InvalidBodyError: now, or while walking the candidates: its records cannot be separated, or it exceeds a limit.

    """
    body = utf8(body)
    usual = read_usual(body, limits, hint) if COMPILED else None
    return read_parsed(body, limits, hint) if usual is None else usual


def read_parsed(body: bytes, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody:
    """Decode an ExportLogsServiceRequest as `read_logs`, also a usual one with a JSON parser."""
    tally = DecodingBudget(limits)
    return LogsBody(tally, _candidates(body, tally, hint))


def read_usual(body: bytes, limits: Limits = LIMITS, hint: RecordHint = TOKENS) -> LogsBody | None:
    """Decode a body in the usual form, of which only the records that the hint may find are parsed; None for others."""
    if len(body) > PARSED_WHOLE:
        return None
    tally = DecodingBudget(limits)
    logs = UsualLogs(body, hint, tally)
    if not logs.find(memory_allowed(len(body))):
        return None
    try:
        parsed = [orjson.loads(body[found.start : found.stop]) for found in logs.found]
    except orjson.JSONDecodeError:
        return None
    return LogsBody(tally, _found(body, logs.found, parsed, tally, hint))


def _found(
    body: bytes, places: Sequence[Found], parsed: Sequence[dict[str, Any]], tally: DecodingBudget, hint: RecordHint
) -> Iterator[LogRecord | BrokenRecord]:
    owner: ByteRange | None = None
    shown: dict[str, Value] = {}
    for place, record in zip(places, parsed, strict=True):
        if not _is_wanted(record, hint):
            continue
        if owner is not place.resource:
            owner = place.resource
            shown = described(_object(body, owner))
        tally.usage_record()
        yield _record(record, place.number, text(_object(body, place.scope), "name"), shown, tally.limits)


def _object(body: bytes, span: ByteRange) -> dict[str, Any]:
    """Return an object that is in the usual form, empty when there is none."""
    found: dict[str, Any] = orjson.loads(body[span.start : span.stop]) if span.stop else {}
    return found


def _candidates(body: bytes, tally: DecodingBudget, hint: RecordHint) -> Iterator[LogRecord | BrokenRecord]:
    marks = _Marks(body, hint.mark)
    marked: bool | None = None
    owner: dict[str, Any] | None = None
    shown: dict[str, Value] = {}
    for resource, scope, record in walk(body, "logs", tally):
        index = tally.records - 1
        whole = True
        if isinstance(record, BrokenRecord):
            yield record
            continue
        if isinstance(record, Part):
            if not record.cut and not marks.within(record):
                continue
            found, whole = record.parsed()
            if type(found) is not dict:
                size = record.stop - record.start
                yield BrokenRecord(index, f"it is not JSON, or too large to be a record: {size} bytes")
                continue
            record = found
        else:
            if marked is None:
                marked = marks.any
            if not marked:
                continue
        if whole and not _is_wanted(record, hint):
            continue
        if owner is not resource:
            owner = resource
            shown = described(member(resource, "resource"))
        tally.usage_record()
        made = _record(record, index, text(member(scope, "scope"), "name"), shown, tally.limits)
        yield made if whole or isinstance(made, BrokenRecord) else BrokenRecord(index, "its brackets do not pair", made)


def _record(
    record: dict[str, Any], index: int, scope: str, resource: dict[str, Value], limits: Limits
) -> LogRecord | BrokenRecord:
    why = ""
    try:
        values = attributes(record)
    except InvalidBodyError as exc:
        why, values = exc.message, sound_attributes(record)
    if not why:
        values = _with_body(record, values)
    if len(values) > limits.attributes:
        return BrokenRecord(index, f"it has more than {limits.attributes} attributes")
    found = JsonAttributes(values, any_value)
    named = event_names(found, text(record, "eventName"), any_value(get(record, "body")))
    made = LogRecord(
        index,
        nanoseconds(record, "timeUnixNano"),
        nanoseconds(record, "observedTimeUnixNano"),
        hex_id(record, "traceId"),
        named.event_name,
        scope,
        resource,
        found,
        named.names,
        named.hints,
    )
    return BrokenRecord(index, why, made) if why else made


def _is_wanted(record: dict[str, Any], hint: RecordHint) -> bool:
    """Whether the hint finds a name in a record, or the record's attributes cannot be read."""
    try:
        return bool(hint.names.search(attribute_names(record))) or _is_in_body(record, hint)
    except InvalidBodyError:
        return True


def _is_in_body(record: dict[str, Any], hint: RecordHint) -> bool:
    """Whether the hint finds a name in a body that is a key-value list."""
    body = get(record, "body")
    return type(body) is dict and "stringValue" not in body and bool(hint.names.search("\n".join(body_pairs(record))))


def _with_body(record: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes and, if the token counts are in the body, its pairs."""
    if NAMES_HINT.search("\n".join(values)):
        return values
    inside = body_pairs(record)
    return inside | values if inside and NAMES_HINT.search("\n".join(inside)) else values


class _Marks:
    """Finds where a body may contain what a hint marks. Must be asked in ascending order."""

    __slots__ = ("_body", "_mark", "_next")

    def __init__(self, body: bytes, mark: bytes) -> None:
        self._body = body
        self._mark = mark
        self._next = {mark: 0, _ESCAPE: 0}

    @property
    def any(self) -> bool:
        """Whether there is one anywhere."""
        body = self._body
        return self._mark in body or (b"\\" in body and _ESCAPE in body)

    def within(self, part: Part) -> bool:
        """Whether there is one in the part."""
        for mark, place in self._next.items():
            if 0 <= place <= part.start:
                place = self._next[mark] = self._body.find(mark, part.start)
            if 0 <= place < part.stop:
                return True
        return False
