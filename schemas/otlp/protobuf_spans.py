"""Spans in protobuf: the ids of every span are decoded, its other fields only when its bytes may be relevant."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.message import DecodeError

from tallystream.schemas.otlp import wire
from tallystream.schemas.otlp.attributes import MapAttributes
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget, Limits
from tallystream.schemas.otlp.protobuf_frames import Frames, refuse_other_shapes
from tallystream.schemas.otlp.protobuf_messages import SpanIdsMessage, SpanMessage
from tallystream.schemas.otlp.protobuf_records import resource_attributes
from tallystream.schemas.otlp.records import Value
from tallystream.schemas.otlp.spans import ERROR, BrokenSpan, Hint, Span, SpansBody


def read_spans(body: bytes, hint: Hint, limits: Limits = LIMITS) -> SpansBody:
    """Decode an ExportTraceServiceRequest.

    Raises:
        InvalidBodyError: now, or while walking the spans: its spans cannot be separated, or it exceeds a limit.

    """
    refuse_other_shapes(body, "traces", limits)
    tally = DecodingBudget(limits)
    return SpansBody(tally, _spans(body, hint, tally))


def _spans(body: bytes, hint: Hint, tally: DecodingBudget) -> Iterator[Span | BrokenSpan]:
    frames = Frames(body, tally)
    matter = hint.in_bytes.search(body) is not None
    owner = inside = None
    described: dict[str, Value] = {}
    name = ""
    for resource, scope, found in frames.items():
        if not matter:
            continue
        if owner is not resource:
            owner, described = resource, resource_attributes(body, resource, tally.limits)
        if inside is not scope:
            inside, name = scope, _name(body, scope)
        if hint.in_bytes.search(body, found.start, found.stop):
            tally.usage_record()
            yield _span(body[found.start : found.stop], tally.records - 1, name, described, tally.limits)
        else:
            yield from _place(body[found.start : found.stop], tally.records - 1, name, described)
    if frames.damaged:
        tally.record()
        yield BrokenSpan(tally.records - 1, "a part of the body is not OTLP; it may have been cut off")


def _span(raw: bytes, index: int, scope: str, resource: dict[str, Value], limits: Limits) -> Span | BrokenSpan:
    if len(raw) > limits.record_bytes:
        return BrokenSpan(index, f"it has {len(raw)} bytes, more than {limits.record_bytes}")
    try:
        message = SpanMessage.FromString(raw)
    except DecodeError:
        return BrokenSpan(index, "it is not a span in protobuf")
    if len(message.attributes) > limits.attributes:
        return BrokenSpan(index, f"it has more than {limits.attributes} attributes")
    return Span(
        index,
        message.trace_id.hex(),
        message.span_id.hex(),
        message.parent_span_id.hex(),
        message.start_time_unix_nano,
        message.end_time_unix_nano,
        message.status.code == ERROR,
        scope,
        resource,
        MapAttributes(message.attributes),
    )


def _place(raw: bytes, index: int, scope: str, resource: dict[str, Value]) -> Iterator[Span]:
    """Yield a span with only its ids; nothing when it cannot be decoded, because such a span has no usage to lose."""
    try:
        message = SpanIdsMessage.FromString(raw)
    except DecodeError:
        return
    ids = message.trace_id.hex(), message.span_id.hex(), message.parent_span_id.hex()
    yield Span(index, *ids, 0, 0, False, scope, resource, None)


def _name(body: bytes, scope: wire.Field) -> str:
    for field in wire.fields(body, scope.start, scope.stop):
        if (field.number, field.kind) == (1, wire.LEN):
            for inner in wire.fields(body, field.start, field.stop):
                if (inner.number, inner.kind) == (1, wire.LEN):
                    return wire.text(body, inner)
    return ""
