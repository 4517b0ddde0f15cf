"""Which signal a body holds, and how much of it.

A base URL posted to verbatim says nothing about the signal, and a client whose log endpoint is another signal's URL
would otherwise be answered 200 and count as nothing. OTLP does not name the signal: JSON shows it by its first key,
protobuf only by the shape of what is inside, since all three requests nest alike and reuse field numbers.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tallystream.schemas.connections import Signal
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp.encoding import Encoding
from tallystream.schemas.otlp.json_values import load, member, objects
from tallystream.schemas.otlp.protobuf_messages import LogsRequest, MetricsRequest, SpansRequest

_KEYS: Final[dict[Signal, tuple[str, str, str]]] = {
    "logs": ("resourceLogs", "scopeLogs", "logRecords"),
    "metrics": ("resourceMetrics", "scopeMetrics", "metrics"),
    "traces": ("resourceSpans", "scopeSpans", "spans"),
}
_HINT: Final = "send an Export*ServiceRequest with Content-Type application/x-protobuf, or JSON with application/json"
_NEVER: Final = 1_000_000
_POINTS: Final = ("gauge", "sum", "histogram", "exponentialHistogram", "summary")
_POINT_FIELDS: Final = ("gauge", "sum", "histogram", "exponential", "summary")


def inspect(body: bytes, encoding: Encoding, signal: Signal) -> int:
    """Return how many log records, metric points or spans the body holds.

    Raises:
        InvalidBodyError: it is not OTLP, or plainly another signal's.

    """
    if encoding is Encoding.JSON:
        document = load(body)
        refuse_other_signals(document, signal)
        return sum(_json_size(entry, signal) for entry in _json_entries(document, signal))
    return _protobuf_size(body, signal)


def detect_signal(body: bytes, encoding: Encoding) -> Signal:
    """Return the signal of a body that came without one. An empty request is taken for logs.

    Raises:
        InvalidBodyError: it is not OTLP.

    """
    if encoding is Encoding.JSON:
        document = load(body)
        for signal, keys in _KEYS.items():
            if keys[0] in document:
                return signal
        refuse_other_signals(document, "logs")
        return "logs"
    return _shape(body, "logs")


def refuse_other_signals(document: dict[str, Any], signal: Signal) -> None:
    """Raise InvalidBodyError when a JSON request is another signal's."""
    for other, keys in _KEYS.items():
        objects(document, keys[0])
        if other != signal and keys[0] in document and _KEYS[signal][0] not in document:
            raise _misplaced(other, signal)


def refuse_other_shapes(body: bytes, signal: Signal) -> None:
    """Raise InvalidBodyError when a protobuf request looks like another signal's."""
    found = _shape(body, signal)
    if found != signal:
        raise _misplaced(found, signal)


def undecodable(exc: DecodeError, where: str = "") -> InvalidBodyError:
    """Return the error for bytes that are no protobuf of the kind expected."""
    return InvalidBodyError(f"the body is not a valid OTLP request in protobuf{where}: {exc}", _HINT)


def _misplaced(found: Signal, wanted: Signal) -> InvalidBodyError:
    return InvalidBodyError(
        f"the body holds {found}, but came to the endpoint for {wanted}",
        f"set the client's endpoint for {found} to the URL that ends in /v1/{found}",
    )


def _json_entries(document: dict[str, Any], signal: Signal) -> list[dict[str, Any]]:
    top, middle, bottom = _KEYS[signal]
    return [
        entry
        for resource in objects(document, top)
        for scope in objects(resource, middle)
        for entry in objects(scope, bottom)
    ]


def _json_size(entry: dict[str, Any], signal: Signal) -> int:
    if signal != "metrics":
        return 1
    return sum(len(objects(member(entry, kind), "dataPoints")) for kind in _POINTS if entry.get(kind) is not None)


def _protobuf_size(body: bytes, signal: Signal) -> int:
    refuse_other_shapes(body, signal)
    request = _parse(MetricsRequest if signal == "metrics" else LogsRequest if signal == "logs" else SpansRequest, body)
    scopes = chain.from_iterable(resource.scopes for resource in request.resources)
    if signal != "metrics":
        return sum(len(scope.records) for scope in scopes)
    metrics = chain.from_iterable(scope.metrics for scope in scopes)
    return sum(len(getattr(metric, kind).points) for metric in metrics for kind in _POINT_FIELDS)


def _parse(kind: Any, body: bytes) -> Any:
    try:
        return kind.FromString(body)
    except DecodeError as exc:
        raise undecodable(exc) from exc


def _shape(body: bytes, preferred: Signal) -> Signal:
    """Return whose records the first one looks like, `preferred` when nothing speaks against it."""
    # all three requests have this frame: resources, scopes, and bytes in field 2
    request = _parse(SpansRequest, body)
    scopes = [scope for resource in request.resources for scope in resource.scopes]
    first = next((scope.records[0] for scope in scopes if scope.records), None)
    if first is None:
        frame = ((request, 1), *((part, 2) for part in (*request.resources, *scopes)))
        if (body and not request.resources) or any(_has_unknown(part, number) for part, number in frame):
            raise InvalidBodyError("the body is not an OTLP request in protobuf: its fields are of other types", _HINT)
        return preferred
    strangeness = {signal: _strangeness(first, signal) for signal in _KEYS}
    best = min(strangeness, key=lambda signal: (strangeness[signal], signal != preferred))
    if strangeness[best] >= _NEVER:
        raise InvalidBodyError(
            "the body is not an OTLP request in protobuf: its records are no logs, metrics or spans", _HINT
        )
    return best


def _has_unknown(message: Message, number: int) -> bool:
    """Whether a field came with another wire type than its own, which protobuf takes for an unknown field."""
    fields = UnknownFieldSet(message)
    return any(fields[place].field_number == number for place in range(len(fields)))


def _strangeness(raw: bytes, signal: Signal) -> int:
    """Return how much about the bytes speaks against the signal: fields it does not have, and what it must have."""
    message: Message = {"logs": LogRecord, "metrics": Metric, "traces": Span}[signal]()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        return _NEVER
    strange = len(UnknownFieldSet(message))
    if isinstance(message, Metric):
        strange += (not message.name) + (message.WhichOneof("data") is None)
    elif isinstance(message, Span):
        strange += (len(message.trace_id) != 16) + (len(message.span_id) != 8)
    return strange
