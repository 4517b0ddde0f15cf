"""Decodes one log record in protobuf: with protobuf's own parser or, if that refuses it, field by field."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from tallystream.schemas.otlp import wire
from tallystream.schemas.otlp.attributes import MapAttributes, PlainAttributes, message_value, message_values
from tallystream.schemas.otlp.limits import Limits
from tallystream.schemas.otlp.protobuf_messages import LogRecordMessage
from tallystream.schemas.otlp.records import (
    NAMES_HINT,
    OPAQUE,
    Attributes,
    Broken,
    BrokenRecord,
    LogRecord,
    RecordHint,
    Value,
    event_names,
)

_OPAQUE_KINDS = frozenset({5, 6, 7})


def record(
    raw: bytes, index: int, scope: str, resource: dict[str, Value], limits: Limits, hint: RecordHint
) -> LogRecord | BrokenRecord | None:
    """Return the record, or a broken record with the reason; None when the hint is only in its values."""
    if len(raw) > limits.record_bytes:
        return BrokenRecord(index, f"it has {len(raw)} bytes, more than {limits.record_bytes}")
    try:
        message = LogRecordMessage.FromString(raw)
    except DecodeError:
        return _salvaged(raw, index, scope, resource, limits, hint)
    held = message.attributes
    if len(held) > limits.attributes:
        return BrokenRecord(index, f"it has more than {limits.attributes} attributes")
    body = message_value(message.body) if message.HasField("body") else None
    attributes: Attributes = MapAttributes(held)
    if body is OPAQUE and (inside := _body_pairs(message.body.kvlist_value, attributes, limits)):
        attributes = PlainAttributes(inside | message_values(held))
    elif not hint.in_names(held):
        return None
    event_name, names, hints = event_names(attributes, message.event_name, body)
    return LogRecord(
        index,
        message.time_unix_nano,
        message.observed_time_unix_nano,
        message.trace_id.hex(),
        event_name,
        scope,
        resource,
        attributes,
        names,
        hints,
    )


def _salvaged(
    raw: bytes, index: int, scope: str, resource: dict[str, Value], limits: Limits, hint: RecordHint
) -> LogRecord | BrokenRecord | None:
    """Return the record with its text converted to UTF-8; broken when some bytes do not belong to any field; None when
    it is whole and the hint is only in its values.
    """
    times = {1: 0, 11: 0}
    trace_id, field, pairs, whole = "", "", b"", True
    body: Value = None
    values: dict[str, Value] = {}
    for found in wire.fields(raw, 0, len(raw)):
        if found.kind in (wire.CUT, wire.BAD):
            whole = False
        elif found.number in times and found.kind == wire.FIXED64:
            times[found.number] = wire.fixed64(raw, found)
        elif found.kind != wire.LEN:
            continue
        elif found.number == 6:
            whole &= _add_attribute(values, raw, found)
            if len(values) > limits.attributes:
                return BrokenRecord(index, f"it has more than {limits.attributes} attributes")
        elif found.number == 9:
            trace_id = raw[found.start : found.stop].hex()
        elif found.number == 12:
            field = wire.text(raw, found)
        elif found.number == 5:
            body = _any_value(raw, found)
            pairs = _kvlist(raw, found)
    attributes = PlainAttributes(values)
    if body is OPAQUE and (inside := _body_pairs(pairs, attributes, limits)):
        attributes = PlainAttributes(inside | values)
    elif whole and not hint.in_names(values):
        return None
    event_name, names, hints = event_names(attributes, field, body)
    made = LogRecord(
        index,
        times[1],
        times[11],
        trace_id,
        event_name,
        scope,
        resource,
        attributes,
        names,
        hints,
    )
    return made if whole else BrokenRecord(index, "it is not a complete log record in protobuf", made)


def _body_pairs(raw: bytes, attributes: Attributes, limits: Limits) -> dict[str, Value]:
    """Return a body that is a key-value list if the token counts are in it, and not in the attributes; else nothing.

    Some pipelines move a record's attributes into its body, or into `attributes` in it.
    """
    if NAMES_HINT.search("\n".join(attributes.names())):
        return {}
    values: dict[str, Value] = {}
    inner: dict[str, Value] = {}
    for found in wire.fields(raw, 0, len(raw)):
        if found.number != 1 or found.kind != wire.LEN or len(values) > limits.attributes:
            continue
        _add_attribute(values, raw, found)
        if "attributes" in values and not inner and raw.find(b"attributes", found.start, found.stop) >= 0:
            _add_inner(inner, raw, found, limits)
    values |= inner
    if len(values) > limits.attributes or not NAMES_HINT.search("\n".join(values)):
        return {}
    return values


def _add_inner(values: dict[str, Value], raw: bytes, pair: wire.Field, limits: Limits) -> None:
    """Add the pairs of the key-value list that is the value of a pair."""
    for part in wire.fields(raw, pair.start, pair.stop):
        if part.number == 2 and part.kind == wire.LEN:
            held = _kvlist(raw, part)
            for inner in wire.fields(held, 0, len(held)):
                if inner.number == 1 and inner.kind == wire.LEN and len(values) <= limits.attributes:
                    _add_attribute(values, held, inner)


def _kvlist(raw: bytes, value: wire.Field) -> bytes:
    """Return the bytes of the key-value list in an AnyValue, empty when it is something else."""
    lists = (f for f in wire.fields(raw, value.start, value.stop) if f.number == 6 and f.kind == wire.LEN)
    return next((raw[found.start : found.stop] for found in lists), b"")


def attributes(raw: bytes, found: wire.Field, number: int, limits: Limits) -> dict[str, Value]:
    """Return the attributes of a resource or a scope (in field `number`) as far as they can be decoded."""
    values: dict[str, Value] = {}
    for inner in wire.fields(raw, found.start, found.stop):
        if inner.number == number and inner.kind == wire.LEN and len(values) < limits.attributes:
            _add_attribute(values, raw, inner)
    return values


def resource_attributes(body: bytes, resource: wire.Field, limits: Limits) -> dict[str, Value]:
    """Return the attributes of the resource of a ResourceLogs, ResourceSpans or ResourceMetrics."""
    found: dict[str, Value] = {}
    for field in wire.fields(body, resource.start, resource.stop):
        if (field.number, field.kind) == (1, wire.LEN):
            found |= attributes(body, field, 1, limits)
    return found


def _add_attribute(values: dict[str, Value], raw: bytes, found: wire.Field) -> bool:
    """Add a KeyValue; return whether its key could be decoded."""
    key, value, broken = "", None, False
    for inner in wire.fields(raw, found.start, found.stop):
        if inner.kind in (wire.CUT, wire.BAD):
            broken = True
        elif inner.kind == wire.LEN and inner.number == 1:
            key = wire.text(raw, inner)
        elif inner.kind == wire.LEN and inner.number == 2:
            value = _any_value(raw, inner)
    if broken and not key:
        return False
    values[key] = Broken("its bytes are not an AnyValue") if broken else value
    return True


def _any_value(raw: bytes, found: wire.Field) -> Value:
    value: Value = None
    for inner in wire.fields(raw, found.start, found.stop):
        if inner.kind in (wire.CUT, wire.BAD):
            return Broken("its bytes are not an AnyValue")
        if inner.kind == wire.LEN and inner.number == 1:
            value = wire.text(raw, inner)
        elif inner.kind == wire.VARINT and inner.number == 2:
            value = bool(inner.start)
        elif inner.kind == wire.VARINT and inner.number == 3:
            value = wire.signed(inner.start)
        elif inner.kind == wire.FIXED64 and inner.number == 4:
            value = wire.double(raw, inner)
        elif inner.kind == wire.LEN and inner.number in _OPAQUE_KINDS:
            value = OPAQUE
    return value
