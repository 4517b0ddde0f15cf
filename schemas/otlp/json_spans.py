"""Spans in JSON: the attributes of one are decoded only when one of their names may matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tallystream.schemas.errors import InvalidBodyError, TooManyElementsError
from tallystream.schemas.otlp.attributes import JsonAttributes
from tallystream.schemas.otlp.json_attributes import (
    any_value,
    attribute_names,
    attributes,
    described,
    nanoseconds,
)
from tallystream.schemas.otlp.json_frames import Part, walk
from tallystream.schemas.otlp.json_values import (
    hex_id,
    member,
    text,
    utf8,
)
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget, Limits
from tallystream.schemas.otlp.records import BrokenRecord, Value
from tallystream.schemas.otlp.spans import ERROR, BrokenSpan, Hint, Span, SpansBody


def read_spans(body: bytes, hint: Hint, limits: Limits = LIMITS) -> SpansBody:
    """Decode an ExportTraceServiceRequest. Walking the spans may raise InvalidBodyError."""
    tally = DecodingBudget(limits)
    return SpansBody(tally, _spans(utf8(body), hint, tally))


def _spans(body: bytes, hint: Hint, tally: DecodingBudget) -> Iterator[Span | BrokenSpan]:
    owner: dict[str, Any] | None = None
    shown: dict[str, Value] = {}
    for resource, scope, record in walk(body, "traces", tally):
        index = tally.records - 1
        if isinstance(record, BrokenRecord):
            yield BrokenSpan(index, record.why)
            continue
        whole = True
        if isinstance(record, Part):
            found, whole = record.parsed()
            if type(found) is not dict:
                yield BrokenSpan(
                    index, f"it is not JSON, or too large to be a span: {record.stop - record.start} bytes"
                )
                continue
            record = found
        if not whole:
            yield BrokenSpan(index, "its brackets do not pair")
            continue
        if owner is not resource:
            owner = resource
            shown = described(member(resource, "resource"))
        try:
            yield _span(record, index, text(member(scope, "scope"), "name"), shown, hint, tally)
        except TooManyElementsError:
            raise
        except InvalidBodyError as exc:
            yield BrokenSpan(index, exc.message)


def _span(
    span: dict[str, Any], index: int, scope: str, resource: dict[str, Value], hint: Hint, tally: DecodingBudget
) -> Span | BrokenSpan:
    ids = hex_id(span, "traceId"), hex_id(span, "spanId"), hex_id(span, "parentSpanId")
    if not hint.in_names.search(attribute_names(span)):
        return Span(index, *ids, 0, 0, False, scope, resource, None)
    tally.usage_record()
    values = attributes(span)
    if len(values) > tally.limits.attributes:
        return BrokenSpan(index, f"it has more than {tally.limits.attributes} attributes")
    return Span(
        index,
        *ids,
        nanoseconds(span, "startTimeUnixNano"),
        nanoseconds(span, "endTimeUnixNano"),
        member(span, "status").get("code") in (ERROR, "STATUS_CODE_ERROR"),
        scope,
        resource,
        JsonAttributes(values, any_value),
    )
