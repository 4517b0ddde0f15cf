"""Builds OTLP metrics requests, the same one in both encodings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from tallystream.schemas.otlp import Encoding

SECOND = 1_000_000_000
START_NS = 1_900_000_000 * SECOND
DELTA, CUMULATIVE = 1, 2


@dataclass(frozen=True)
class MadePoint:
    """A point of a metric; times are seconds after START_NS."""

    metric: str
    value: float
    attributes: dict[str, str] = field(default_factory=dict)
    start: float = 0.0
    at: float = 1.0
    temporality: int = DELTA
    histogram: bool = False
    resource: dict[str, str] = field(default_factory=lambda: {"service.version": "1.2.3"})

    @property
    def times(self) -> tuple[int, int]:
        """Return start and time in ns."""
        return START_NS + int(self.start * SECOND), START_NS + int(self.at * SECOND)


def claude(
    kind: str, value: float, session: str = "s-1", *, start: float = 0.0, at: float = 1.0, temporality: int = DELTA
) -> MadePoint:
    """Return a point of Claude Code's token metric."""
    named = {"session.id": session, "model": "claude-opus-5-5", "type": kind}
    return MadePoint("claude_code.token.usage", value, named, start, at, temporality)


def codex(kind: str, value: float, *, at: float = 1.0) -> MadePoint:
    """Return a point of Codex's token metric, which names no session."""
    named = {"model": "gpt-5.1-codex", "originator": "codex_exec", "token_type": kind, "app.version": "0.169.0"}
    return MadePoint("codex.turn.token_usage", value, named, 0.0, at, histogram=True)


def encode_points(points: Sequence[MadePoint], encoding: Encoding) -> bytes:
    """Return the request's body."""
    return _protobuf(points) if encoding is Encoding.PROTOBUF else json.dumps(_json(points)).encode()


def _protobuf(points: Sequence[MadePoint]) -> bytes:
    request = ExportMetricsServiceRequest()
    for point in points:
        resource = request.resource_metrics.add()
        resource.resource.attributes.extend(_pairs(point.resource))
        metric = resource.scope_metrics.add().metrics.add(name=point.metric)
        start, at = point.times
        if point.histogram:
            metric.histogram.aggregation_temporality = point.temporality  # type: ignore[assignment]
            metric.histogram.data_points.add(
                start_time_unix_nano=start, time_unix_nano=at, count=1, sum=point.value,
                attributes=_pairs(point.attributes),
            )  # fmt: skip
            continue
        metric.sum.aggregation_temporality = point.temporality  # type: ignore[assignment]
        made = metric.sum.data_points.add(
            start_time_unix_nano=start, time_unix_nano=at, attributes=_pairs(point.attributes)
        )
        if isinstance(point.value, int):
            made.as_int = point.value
        else:
            made.as_double = point.value
    return request.SerializeToString()


def _pairs(attributes: dict[str, str]) -> list[KeyValue]:
    made = [KeyValue(key=key) for key in attributes]
    for pair in made:
        pair.value.string_value = attributes[pair.key]
    return made


def _json(points: Sequence[MadePoint]) -> dict[str, Any]:
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": _members(point.resource)},
                "scopeMetrics": [{"scope": {"name": "meter"}, "metrics": [_metric(point)]}],
            }
            for point in points
        ]
    }


def _metric(point: MadePoint) -> dict[str, Any]:
    start, at = point.times
    made: dict[str, Any] = {
        "startTimeUnixNano": str(start),
        "timeUnixNano": str(at),
        "attributes": _members(point.attributes),
    }
    if point.histogram:
        data: dict[str, dict[str, Any]] = {"histogram": {"dataPoints": [made | {"count": "1", "sum": point.value}]}}
    else:
        value = {"asInt": str(point.value)} if isinstance(point.value, int) else {"asDouble": point.value}
        data = {"sum": {"isMonotonic": True, "dataPoints": [made | value]}}
    for whole in data.values():
        whole["aggregationTemporality"] = point.temporality
    return {"name": point.metric, "unit": "tokens"} | data


def _members(attributes: dict[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()]
