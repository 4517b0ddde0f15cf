"""Spans in protobuf: the frame and each span's ids are decoded, the rest of a span only when its bytes may matter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError

from tallystream.schemas.otlp.protobuf_logs import MapAttributes
from tallystream.schemas.otlp.protobuf_messages import SpanIdsMessage, SpanMessage, SpansRequest
from tallystream.schemas.otlp.records import Value
from tallystream.schemas.otlp.signals import refuse_other_shapes, undecodable
from tallystream.schemas.otlp.spans import ERROR, Span, SpansBody


def read_spans(body: bytes, hint: re.Pattern[bytes]) -> SpansBody:
    """Decode an ExportTraceServiceRequest; `hint` is found in the bytes of every span that matters.

    Raises:
        InvalidBodyError: now for a broken frame, while walking the spans for a broken one.

    """
    try:
        request = SpansRequest.FromString(body)
    except DecodeError as exc:
        raise undecodable(exc) from exc
    refuse_other_shapes(body, "traces")
    records = sum(len(scope.records) for resource in request.resources for scope in resource.scopes)
    return SpansBody(records, _spans(request, hint) if hint.search(body) else iter(()))


def _spans(request: Any, hint: re.Pattern[bytes]) -> Iterator[Span]:
    index = 0
    for resource in request.resources:
        described = MapAttributes(resource.resource.attributes)
        attributes: dict[str, Value] = {key: described.get(key) for key in described.names()}
        for scope in resource.scopes:
            name = scope.scope.name
            for raw in scope.records:
                yield _span(raw, index, name, attributes, bool(hint.search(raw)))
                index += 1


def _span(raw: bytes, index: int, scope: str, resource: dict[str, Value], matters: bool) -> Span:
    try:
        message = (SpanMessage if matters else SpanIdsMessage).FromString(raw)
    except DecodeError as exc:
        raise undecodable(exc, f" (span {index})") from exc
    return Span(
        index,
        message.trace_id.hex(),
        message.span_id.hex(),
        message.parent_span_id.hex(),
        message.start_time_unix_nano if matters else 0,
        message.end_time_unix_nano if matters else 0,
        matters and message.status.code == ERROR,
        scope,
        resource,
        MapAttributes(message.attributes) if matters else None,
    )
