"""A plain reading of OTLP logs by the official classes, and of what they say Codex used: independent of our decoders.

Rules as recorded from the real client: an `sse_event` of kind `response.completed` with `input_token_count` is a
response, unless all its counts are 0; input holds what was cached and written to cache, output the reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from genai_prices import Usage, calc_price
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest as BinaryLogs
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest as BinaryMetrics
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest as BinaryTraces
from opentelemetry.proto_json.collector.logs.v1.logs_service import ExportLogsServiceRequest as JsonLogs
from opentelemetry.proto_json.collector.metrics.v1.metrics_service import ExportMetricsServiceRequest as JsonMetrics
from opentelemetry.proto_json.collector.trace.v1.trace_service import ExportTraceServiceRequest as JsonTraces

JSON = "application/json"


@dataclass(frozen=True)
class Logged:
    """A log record, its attributes with the kind each value has on the wire."""

    resource: dict[str, Any]
    scope: str
    observed_ns: int
    name: str
    body: str | None
    attributes: list[tuple[str, str, Any]]
    trace_id: bytes

    def get(self, key: str) -> Any:
        """Return an attribute's value, None when it is not there."""
        return next((value for name, _, value in self.attributes if name == key), None)

    @property
    def event(self) -> tuple[str | None, str | None, bool]:
        """Return event name, kind, and whether it carries tokens."""
        return self.get("event.name"), self.get("event.kind"), self.get("input_token_count") is not None


def value_of(value: Any) -> tuple[str, Any]:
    """Return the kind and the value of an AnyValue of either library."""
    if hasattr(value, "WhichOneof"):
        kind = value.WhichOneof("value")
        return str(kind).removesuffix("_value"), getattr(value, kind)
    for kind in ("string", "bool", "int", "double"):
        if (found := getattr(value, f"{kind}_value")) is not None:
            return kind, found
    raise AssertionError(value)


def read_logs(body: bytes, content_type: str) -> list[Logged]:
    """Decode a logs request."""
    request: Any = JsonLogs.from_dict(json.loads(body)) if content_type == JSON else BinaryLogs.FromString(body)
    records = []
    for group in request.resource_logs:
        resource = {pair.key: value_of(pair.value)[1] for pair in group.resource.attributes}
        for scope in group.scope_logs:
            for record in scope.log_records:
                text = (
                    record.body and value_of(record.body)[1]
                    if content_type == JSON or record.HasField("body")
                    else None
                )
                attributes = [(pair.key, *value_of(pair.value)) for pair in record.attributes]
                records.append(
                    Logged(
                        resource, scope.scope.name, int(record.observed_time_unix_nano), record.event_name, text,
                        attributes, record.trace_id or b"",
                    )
                )  # fmt: skip
    return records


def count_items(body: bytes, content_type: str, signal: str) -> int:
    """Return how many spans or metric points a request holds."""
    is_json = content_type == JSON
    request: Any
    if signal == "traces":
        request = JsonTraces.from_dict(json.loads(body)) if is_json else BinaryTraces.FromString(body)
        return sum(len(scope.spans) for group in request.resource_spans for scope in group.scope_spans)
    request = JsonMetrics.from_dict(json.loads(body)) if is_json else BinaryMetrics.FromString(body)
    metrics = [m for group in request.resource_metrics for scope in group.scope_metrics for m in scope.metrics]
    kinds = ("sum", "histogram", "gauge")
    return sum(len(data.data_points) for m in metrics for kind in kinds if (data := getattr(m, kind)) is not None)


@dataclass(frozen=True)
class Used:
    """One response as its token record says it."""

    session_id: str
    model: str
    service_tier: str | None
    at_ns: int
    input_tokens: int
    cached: int
    written: int
    output: int
    reasoning: int
    attribution: tuple[tuple[str, str], ...]

    @property
    def hour(self) -> str:
        """Return the UTC hour as rows write it."""
        return datetime.fromtimestamp(self.at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:00:00Z")


SAID = {
    "team": "team",
    "repo": "repo",
    "branch": "branch",
    "env": "env",
    "host.name": "host",
    "cost.center": "cost_center",
}


def codex_usage(records: Iterable[Logged]) -> list[Used]:
    """Return the responses that the records report, copies too."""
    used = []
    for record in records:
        if record.event != ("codex.sse_event", "response.completed", True):
            continue
        counts = [
            int(record.get(f"{name}_token_count") or 0)
            for name in ("input", "cached", "cache_write", "output", "reasoning")
        ]
        if any(counts):
            said = tuple(sorted((SAID[k], v) for k, v in record.resource.items() if k in SAID))
            total, cached, written, output, reasoning = counts
            used.append(
                Used(
                    record.get("conversation.id"), record.get("model"), record.get("service_tier"), record.observed_ns,
                    total, cached, written, output, reasoning, said,
                )
            )  # fmt: skip
    return used


LIST_PRICE = (None, "default")


@cache
def price(used: Used) -> Decimal | None:
    """Return its price in dollars: None for a model, or a tier of it, that the price book does not have."""
    context = None if used.service_tier in LIST_PRICE else {"service_tier": str(used.service_tier)}
    try:
        found = calc_price(
            Usage(
                input_tokens=used.input_tokens, cache_read_tokens=used.cached, cache_write_tokens=used.written,
                output_tokens=used.output,
            ),
            used.model,
            provider_id="openai",
            genai_request_timestamp=datetime.fromtimestamp(used.at_ns / 1e9, UTC),
            price_context=context,
        )  # fmt: skip
    except LookupError:
        return None
    sold = {tier for variant in found.model.price_variants or () for tier in variant.when.values()}
    return found.total_price if context is None or context["service_tier"] in sold else None


def rows(distinct: Iterable[Used]) -> list[dict[str, Any]]:
    """Return rows of `cost session-hours` for responses, each given once."""
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for used in distinct:
        key = (used.session_id, used.hour, used.model, used.service_tier, used.attribution)
        names = ("session_id", "hour", "model", "service_tier", "attribution")
        fresh = dict(zip(names, key, strict=True)) | {"attribution": dict(used.attribution), "cost_usd": None}
        counts = {
            "requests": 1,
            "input_uncached": used.input_tokens - used.cached - used.written,
            "cache_read": used.cached,
            "cache_write_5m": used.written,
            "cache_write_1h": 0,
            "output": used.output,
            "reasoning": used.reasoning,
            "tool": 0,
            "total_tokens": used.input_tokens + used.output,
            "unpriced_requests": 0,
        }
        row = sums.setdefault(key, fresh | dict.fromkeys(counts, 0))
        for name, count in counts.items():
            row[name] += count
        cost = price(used)
        if cost is None:
            row["unpriced_requests"] += 1
        else:
            row["cost_usd"] = str(Decimal(row["cost_usd"] or 0) + cost)
    return list(sums.values())


def same_money(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with its dollars as a number, so that 1.50 equals 1.5."""
    cost = row["cost_usd"]
    return dict(row) | {"cost_usd": None if cost is None else Decimal(cost)}
