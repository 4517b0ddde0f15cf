"""Walks the frame of an OTLP request in protobuf field by field, and detects its signal.

The body does not name its signal: all three kinds of requests have the same nesting and reuse field numbers, so only
the shape of a record distinguishes a log from a metric or a span.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from tallystream.schemas.connections import Signal
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import wire
from tallystream.schemas.otlp.json_frames import misplaced
from tallystream.schemas.otlp.limits import DecodingBudget, Limits
from tallystream.schemas.otlp.protobuf_messages import LogRecordFields

_HINT: Final = "send an Export*ServiceRequest with Content-Type application/x-protobuf, or JSON with application/json"
_NEVER: Final = 1_000_000
_SAMPLE: Final = 8
"""Number of records that are examined to decide a body's signal, unless a single one decides it."""
_POINT_FIELDS: Final = frozenset({5, 7, 9, 10, 11})
_ONLY_LOGS: Final = (b"\x09", b"\x10", b"\x59")
"""Tags of time_unix_nano, severity_number and observed_time_unix_nano. In these fields metrics and spans have text,
bytes or messages."""

# Fields of each kind of record and their wire types, as in opentelemetry-proto 1.x.
_V, _F64, _L, _F32 = wire.VARINT, wire.FIXED64, wire.LEN, wire.FIXED32
_FIELDS: Final[dict[Signal, dict[int, int]]] = {
    "logs": {1: _F64, 2: _V, 3: _L, 5: _L, 6: _L, 7: _V, 8: _F32, 9: _L, 10: _L, 11: _F64, 12: _L},
    "metrics": {1: _L, 2: _L, 3: _L, 5: _L, 7: _L, 9: _L, 10: _L, 11: _L, 12: _L},
    "traces": {
        1: _L, 2: _L, 3: _L, 4: _L, 5: _L, 6: _V, 7: _F64, 8: _F64, 9: _L, 10: _V, 11: _L, 12: _V, 13: _L, 14: _V,
        15: _L, 16: _F32,
    },
}  # fmt: skip


class Item(NamedTuple):
    """A record's bytes in the body, with its scope's and its resource's."""

    resource: wire.Field
    scope: wire.Field
    record: wire.Field


class Frames:
    """The walk through one body."""

    __slots__ = ("_body", "_tally", "damaged", "odd")

    def __init__(self, body: bytes, tally: DecodingBudget) -> None:
        self._body = body
        self._tally = tally
        self.damaged = False
        """Whether some bytes do not belong to a field, or a field does not end."""
        self.odd = False
        """Whether a field of the frame has the wrong wire type."""

    def items(self) -> Iterator[Item]:
        """Yield the records in order.

        Raises:
            TooManyElementsError: there are more frames or records than the limits allow.

        """
        tally = self._tally
        for resource in self._nested(wire.Field(0, wire.LEN, 0, len(self._body)), 1):
            tally.frame()
            for scope in self._nested(resource, 2):
                tally.frame()
                for field in wire.fields(self._body, scope.start, scope.stop):
                    if field.number == 2 and field.kind == wire.LEN:
                        tally.record()
                        yield Item(resource, scope, field)
                    else:
                        # a record that was cut off is not counted, because the missing part may contain counts
                        self._note(field, 2)

    def _nested(self, parent: wire.Field, number: int) -> Iterator[wire.Field]:
        for field in wire.fields(self._body, parent.start, parent.stop):
            if field.number == number and field.kind in (wire.LEN, wire.CUT):
                yield field
            self._note(field, number)

    def _note(self, field: wire.Field, number: int) -> None:
        if field.kind < 0:
            self.damaged = True
        elif field.number == number and field.kind != wire.LEN:
            self.odd = True


def is_log_record(raw: bytes) -> bool:
    """Whether a record has only fields of a log record, and its first one has a type that it has in no other record.

    This gives the same answer as `shape` does for a body that begins with this record, at a tenth of the cost. False
    means that the record must be examined field by field.
    """
    if raw[:1] not in _ONLY_LOGS:
        return False
    try:
        found = LogRecordFields.FromString(raw)
    except DecodeError:
        return False
    return not len(UnknownFieldSet(found))


def shape(body: bytes, preferred: Signal, limits: Limits) -> Signal:
    """Return the signal that the first records look like; `preferred` when it is possible.

    Raises:
        InvalidBodyError: they do not look like any signal.

    """
    frames = Frames(body, DecodingBudget(limits))
    total = dict.fromkeys(_FIELDS, 0)
    readable = sampled = 0
    for item in islice(frames.items(), _SAMPLE):
        sampled += 1
        found = {signal: _strangeness(body, item.record, signal) for signal in _FIELDS}
        if found["logs"] >= _NEVER:
            continue
        readable += 1
        if sum(not strange for strange in found.values()) == 1 and readable == 1:
            return min(found, key=lambda signal: found[signal])
        for signal, strange in found.items():
            total[signal] += strange
    if not sampled and (frames.odd or frames.damaged or (body and not any(f.number == 1 for f in _top(body)))):
        raise not_otlp("its fields are not those of a request, or it is truncated")
    if sampled and not readable:
        raise not_otlp("its records are not logs, metrics or spans")
    return min(total, key=lambda signal: (total[signal], signal != preferred))


def _top(body: bytes) -> Iterator[wire.Field]:
    return wire.fields(body, 0, len(body))


def refuse_other_shapes(body: bytes, signal: Signal, limits: Limits) -> None:
    """Raise InvalidBodyError when a request looks like another signal's, or is not a request."""
    found = shape(body, signal, limits)
    if found != signal:
        raise misplaced(found, signal)


def not_otlp(why: str) -> InvalidBodyError:
    """Return the error for bytes that are not protobuf of the expected kind."""
    return InvalidBodyError(f"the body is not a valid OTLP request in protobuf: {why}", _HINT)


def points(body: bytes, metric: wire.Field) -> int:
    """Return how many points a metric has."""
    kinds = (f for f in wire.fields(body, metric.start, metric.stop) if f.number in _POINT_FIELDS and f.kind == _L)
    return sum((p.number, p.kind) == (1, _L) for kind in kinds for p in wire.fields(body, kind.start, kind.stop))


def _strangeness(body: bytes, record: wire.Field, signal: Signal) -> int:
    """Return how many features of a record contradict the signal: unknown fields, and missing required ones."""
    expected = _FIELDS[signal]
    strange = 0
    lengths = dict.fromkeys((1, 2), 0)
    data = False
    for field in wire.fields(body, record.start, record.stop):
        if field.kind < 0:
            return _NEVER
        strange += expected.get(field.number) != field.kind
        if field.kind == _L and field.number in lengths:
            lengths[field.number] = field.stop - field.start
        data |= field.kind == _L and field.number in _POINT_FIELDS
    if signal == "metrics":
        strange += (not lengths[1]) + (not data)
    elif signal == "traces":
        strange += (lengths[1] != 16) + (lengths[2] != 8)
    return strange
