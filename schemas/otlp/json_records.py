"""Decodes one log record in JSON, and tells whether it is worth it."""

from __future__ import annotations

from typing import Any

from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp.attributes import JsonAttributes
from tallystream.schemas.otlp.json_attributes import (
    any_value,
    attribute_names,
    attributes,
    body_pairs,
    nanoseconds,
    sound_attributes,
)
from tallystream.schemas.otlp.json_values import hex_id, text
from tallystream.schemas.otlp.limits import Limits
from tallystream.schemas.otlp.records import NAMES_HINT, BrokenRecord, LogRecord, RecordHint, Value, event_names


def record_of(
    record: dict[str, Any], index: int, scope: str, resource: dict[str, Value], limits: Limits
) -> LogRecord | BrokenRecord:
    """Return the record, or a broken record with the reason."""
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
    event_name, names, hints = event_names(found, text(record, "eventName"), any_value(record.get("body")))
    made = LogRecord(
        index,
        nanoseconds(record, "timeUnixNano"),
        nanoseconds(record, "observedTimeUnixNano"),
        hex_id(record, "traceId"),
        event_name,
        scope,
        resource,
        found,
        names,
        hints,
    )
    return BrokenRecord(index, why, made) if why else made


def is_wanted(record: dict[str, Any], hint: RecordHint) -> bool:
    """Whether the hint finds a name in a record, or the record's attributes cannot be read."""
    try:
        names = attribute_names(record)
    except InvalidBodyError:
        return True
    return (hint.names_mark in names and hint.names.search(names) is not None) or _is_in_body(record, hint)


def _is_in_body(record: dict[str, Any], hint: RecordHint) -> bool:
    """Whether the hint finds a name in a body that is a key-value list."""
    body = record.get("body")
    return type(body) is dict and "stringValue" not in body and hint.in_names(body_pairs(record))


def _with_body(record: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the attributes and, if the token counts are in the body, its pairs."""
    if NAMES_HINT.search("\n".join(values)):
        return values
    inside = body_pairs(record)
    return inside | values if inside and NAMES_HINT.search("\n".join(inside)) else values
