"""Builds OTLP traces requests, the same one in both encodings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tallystream.schemas.clients.genai import Sighting, SpansResult, read_sightings
from tallystream.schemas.otlp import Encoding

Attribute = str | int | float | bool | list[str]

SECOND = 1_000_000_000
START_NS = 1_900_000_000 * SECOND
RESOURCE: dict[str, Attribute] = {"service.name": "app", "service.instance.id": "process-1", "team": "payments"}


@dataclass(frozen=True)
class MadeSpan:
    """A span; ids are short names that become hex, times are seconds after START_NS."""

    name: str
    attributes: dict[str, Attribute] = field(default_factory=dict)
    parent: str = ""
    trace: str = "t"
    start: float = 0.0
    end: float = 1.0
    failed: bool = False
    scope: str = "pydantic-ai"
    resource: dict[str, Attribute] = field(default_factory=lambda: dict(RESOURCE))

    @property
    def ids(self) -> tuple[bytes, bytes, bytes]:
        """Return trace, span and parent id."""
        return _id(self.trace, 16), _id(self.name, 8), _id(self.parent, 8) if self.parent else b""

    @property
    def times(self) -> tuple[int, int]:
        """Return start and end in ns."""
        return START_NS + int(self.start * SECOND), START_NS + int(self.end * SECOND)


def chat(name: str, tokens: tuple[int, int] | None = (100, 10), **more: Any) -> MadeSpan:
    """Return a span of one model call with the conventions' attribute names, plus `attributes`."""
    attributes: dict[str, Attribute] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.response.model": "gpt-5",
    }
    if tokens is not None:
        attributes |= {
            "gen_ai.usage.input_tokens": tokens[0],
            "gen_ai.usage.output_tokens": tokens[1],
            "gen_ai.response.finish_reasons": ["stop"],
        }
    attributes |= more.pop("attributes", {})
    return MadeSpan(name, attributes, **more)


def encode(spans: Sequence[MadeSpan], encoding: Encoding) -> bytes:
    """Return the request's body."""
    return protobuf(spans) if encoding is Encoding.PROTOBUF else as_json(spans)


def protobuf(spans: Sequence[MadeSpan]) -> bytes:
    """Return the request in protobuf, by the official classes."""
    request = ExportTraceServiceRequest()
    for span in spans:
        resource = request.resource_spans.add()
        for key, value in span.resource.items():
            resource.resource.attributes.add(key=key, value=_any(value))
        scope = resource.scope_spans.add()
        scope.scope.name = span.scope
        trace_id, span_id, parent_id = span.ids
        start, end = span.times
        made = scope.spans.add(
            trace_id=trace_id,
            span_id=span_id,
            parent_span_id=parent_id,
            name=span.name,
            start_time_unix_nano=start,
            end_time_unix_nano=end,
        )
        if span.failed:
            made.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR))
        for key, value in span.attributes.items():
            made.attributes.add(key=key, value=_any(value))
    return request.SerializeToString()


def as_json(spans: Sequence[MadeSpan]) -> bytes:
    """Return the request in OTLP/JSON."""
    resources = []
    for span in spans:
        trace_id, span_id, parent_id = span.ids
        start, end = span.times
        made = {
            "traceId": trace_id.hex(),
            "spanId": span_id.hex(),
            "parentSpanId": parent_id.hex(),
            "name": span.name,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(end),
            "status": {"code": 2} if span.failed else {},
            "attributes": [{"key": key, "value": _json_any(value)} for key, value in span.attributes.items()],
        }
        described = [{"key": key, "value": _json_any(value)} for key, value in span.resource.items()]
        resources.append(
            {
                "resource": {"attributes": described},
                "scopeSpans": [{"scope": {"name": span.scope}, "spans": [made]}],
            }
        )
    return json.dumps({"resourceSpans": resources}).encode()


def read(spans: Sequence[MadeSpan], encoding: Encoding = Encoding.PROTOBUF) -> SpansResult:
    """Return the result of reading a request of these spans."""
    return read_body(encode(spans, encoding), encoding)


def read_body(body: bytes, encoding: Encoding) -> SpansResult:
    """Return the result of reading a body."""
    return read_sightings(body, encoding)


def sightings(spans: Sequence[MadeSpan], encoding: Encoding = Encoding.PROTOBUF) -> list[Sighting]:
    """Return the sightings of a request of these spans."""
    result = read(spans, encoding)
    assert not result.rejected
    return [seen for pack in result.packs for seen in pack.sightings]


def _id(name: str, size: int) -> bytes:
    return name.encode().rjust(size, b"\x01")[-size:]


def _any(value: Attribute) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value)
    if isinstance(value, str):
        return AnyValue(string_value=value)
    return AnyValue(array_value=ArrayValue(values=[_any(entry) for entry in value]))


def _json_any(value: Attribute) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    return {"arrayValue": {"values": [_json_any(entry) for entry in value]}}
