"""Spans in JSON: parsed by orjson, a span's attributes decoded only when one of their names may matter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tallystream.schemas.otlp.json_logs import DictAttributes
from tallystream.schemas.otlp.json_values import (
    any_value,
    attribute_names,
    attributes,
    hex_id,
    load,
    member,
    nanoseconds,
    objects,
    text,
)
from tallystream.schemas.otlp.records import Value
from tallystream.schemas.otlp.signals import refuse_other_signals
from tallystream.schemas.otlp.spans import ERROR, Span, SpansBody


def read_spans(body: bytes, hint: re.Pattern[str]) -> SpansBody:
    """Decode an ExportTraceServiceRequest; `hint` is found in the attribute names of every span that matters.

    Raises:
        InvalidBodyError: now for what is no such request, while walking the spans for a broken one.

    """
    document = load(body)
    refuse_other_signals(document, "traces")
    scopes = [
        (resource, scope, objects(scope, "spans"))
        for resource in objects(document, "resourceSpans")
        for scope in objects(resource, "scopeSpans")
    ]
    return SpansBody(sum(len(spans) for _, _, spans in scopes), _spans(scopes, hint))


def _spans(
    scopes: list[tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]], hint: re.Pattern[str]
) -> Iterator[Span]:
    index = 0
    owner: dict[str, Any] | None = None
    described: dict[str, Value] = {}
    for resource, scope, spans in scopes:
        if owner is not resource:
            owner = resource
            described = {key: any_value(value) for key, value in attributes(member(resource, "resource")).items()}
        name = text(member(scope, "scope"), "name")
        for span in spans:
            matters = bool(hint.search(attribute_names(span)))
            yield Span(
                index,
                hex_id(span, "traceId"),
                hex_id(span, "spanId"),
                hex_id(span, "parentSpanId"),
                nanoseconds(span, "startTimeUnixNano"),
                nanoseconds(span, "endTimeUnixNano"),
                matters and member(span, "status").get("code") in (ERROR, "STATUS_CODE_ERROR"),
                name,
                described,
                DictAttributes(attributes(span)) if matters else None,
            )
            index += 1
