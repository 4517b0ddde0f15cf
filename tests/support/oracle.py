"""Reads OTLP logs with the official classes and computes the usage in them, independently of our decoders.

The rules were derived from recordings of the real clients. A record whose counts are all 0 is not a response.

- Codex: an `sse_event` of kind `response.completed` with `input_token_count` is a response. Input includes cached
  tokens and cache writes; output includes reasoning.
- Claude Code: an `api_request` is a response, identified by its request id; its counts do not overlap.
- Gemini CLI: an `api_response` is a response. Input includes cached tokens; output does not include thoughts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

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
    time_ns: int
    observed_ns: int
    name: str
    body: str | None
    attributes: list[tuple[str, str, Any]]
    trace_id: bytes

    def get(self, key: str) -> Any:
        """Return an attribute's value, None if it is missing."""
        return next((value for name, _, value in self.attributes if name == key), None)

    @property
    def event(self) -> tuple[str | None, str | None, bool]:
        """Return event name, kind, and whether it carries tokens."""
        return self.get("event.name"), self.get("event.kind"), self.get("input_token_count") is not None


def value_of(value: object) -> tuple[str, Any]:
    """Return the kind and the value of an AnyValue of either library."""
    if hasattr(value, "WhichOneof"):
        kind = (value.WhichOneof("value") or "empty").removesuffix("_value")
    else:
        kinds = ("string", "bool", "int", "double", "array")
        kind = next((kind for kind in kinds if getattr(value, f"{kind}_value") is not None), "empty")
    if kind == "empty":
        return kind, None
    found = getattr(value, f"{kind}_value")
    return kind, tuple(value_of(one)[1] for one in found.values) if kind == "array" else found


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
                        resource, scope.scope.name, int(record.time_unix_nano), int(record.observed_time_unix_nano),
                        record.event_name, text, attributes, record.trace_id or b"",
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
    """One response according to its token record; counts do not overlap, except `reasoning`, a part of `output`."""

    client: Literal["codex", "claude", "gemini"]
    session_id: str
    model: str
    at_ns: int
    input_uncached: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int
    reasoning: int
    tool: int
    attribution: tuple[tuple[str, str], ...]
    service_tier: str | None = None
    speed: str | None = None
    reported: Decimal | None = None
    """Dollars, as estimated by the client itself."""
    known_by: tuple[Any, ...] = ()
    """Further values that distinguish it from other responses."""

    @property
    def hour(self) -> str:
        """Return the UTC hour as rows write it."""
        return datetime.fromtimestamp(self.at_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:00:00Z")

    @property
    def total_tokens(self) -> int:
        """Return the sum of the disjoint counts."""
        written = self.cache_write_5m + self.cache_write_1h
        return self.input_uncached + self.cache_read + written + self.output + self.tool


SAID = MappingProxyType(
    {
        "team": "team",
        "team.name": "team",
        "repo": "repo",
        "vcs.repository.name": "repo",
        "repository": "repo",
        "branch": "branch",
        "vcs.ref.head.name": "branch",
        "git.branch": "branch",
        "env": "env",
        "deployment.environment.name": "env",
        "environment": "env",
        "host.name": "host",
        "cost.center": "cost_center",
        "cost_center": "cost_center",
    }
)


def usage(records: Iterable[Logged]) -> list[Used]:
    """Return the responses that the records of any client report, copies too."""
    read = {"codex.sse_event": _codex, "api_request": _claude, "gemini_cli.api_response": _gemini}
    found = []
    for record in records:
        reader = read.get(record.get("event.name"))
        used = reader and reader(record, tuple(sorted((SAID[k], v) for k, v in record.resource.items() if k in SAID)))
        if used and used.total_tokens:
            found.append(used)
    return found


def _counts(record: Logged, *names: str) -> list[int]:
    return [int(record.get(name) or 0) for name in names]


def _codex(record: Logged, said: tuple[tuple[str, str], ...]) -> Used | None:
    if record.event[1:] != ("response.completed", True):
        return None
    names = ("input", "cached", "cache_write", "output", "reasoning")
    whole, cached, written, output, reasoning = _counts(record, *(f"{name}_token_count" for name in names))
    return Used(
        "codex", record.get("conversation.id"), record.get("model"), record.observed_ns, whole - cached - written,
        cached, written, 0, output, reasoning, 0, said, service_tier=record.get("service_tier"),
    )  # fmt: skip


def _claude(record: Logged, said: tuple[tuple[str, str], ...]) -> Used:
    plain, read, short, long, output = _counts(
        record, "input_tokens", "cache_read_tokens", "cache_creation_5m_tokens", "cache_creation_1h_tokens",
        "output_tokens",
    )  # fmt: skip
    assert short + long == record.get("cache_creation_tokens")
    return Used(
        "claude", record.get("session.id"), record.get("model"), record.time_ns, plain, read, short, long, output, 0, 0,
        said, speed=record.get("speed"), reported=round(Decimal(repr(record.get("cost_usd"))), 12),
        known_by=(record.get("request_id"),),
    )  # fmt: skip


def _gemini(record: Logged, said: tuple[tuple[str, str], ...]) -> Used:
    names = ("input", "cached_content", "output", "thoughts", "tool")
    whole, cached, output, thoughts, tool = _counts(record, *(f"{name}_token_count" for name in names))
    return Used(
        "gemini", record.get("session.id"), record.get("model"), record.time_ns, whole - cached, cached, 0, 0,
        output + thoughts, thoughts, tool, said, known_by=(record.get("prompt_id"), record.get("duration_ms")),
    )  # fmt: skip


PROVIDERS = MappingProxyType({"codex": "openai", "claude": "anthropic", "gemini": "google"})
PLAIN = (None, "default", "normal")


@cache
def price(used: Used) -> Decimal | None:
    """Return its price in dollars: None for a model, or a tier or speed of it, that the price book does not have."""
    asked = {"service_tier": used.service_tier, "speed": used.speed}
    context = {name: value for name, value in asked.items() if value is not None and value not in PLAIN}
    written = used.cache_write_5m + used.cache_write_1h
    tokens = Usage(
        input_tokens=used.total_tokens - used.output, cache_read_tokens=used.cache_read, cache_write_tokens=written,
        cache_write_1h_tokens=used.cache_write_1h or None, output_tokens=used.output,
    )  # fmt: skip
    try:
        found = calc_price(
            tokens,
            used.model,
            provider_id=PROVIDERS[used.client],
            genai_request_timestamp=datetime.fromtimestamp(used.at_ns / 1e9, UTC),
            price_context=context or None,
        )
    except LookupError:
        return None
    sold = [variant.when for variant in found.model.price_variants or ()]
    return found.total_price if not context or context in sold else None


def rows(distinct: Iterable[Used]) -> list[dict[str, Any]]:
    """Return rows of `cost session-hours` for responses, each given once."""
    sums: dict[tuple[Any, ...], dict[str, Any]] = {}
    for used in distinct:
        key = (used.client, used.session_id, used.hour, used.model, used.service_tier, used.attribution)
        names = ("client", "session_id", "hour", "model", "service_tier", "attribution")
        money: dict[str, Any] = {"cost_usd": None, "reported_cost_usd": None}
        fresh = dict(zip(names, key, strict=True)) | {"attribution": dict(used.attribution)} | money
        counted = (
            "input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool",
            "total_tokens",
        )  # fmt: skip
        cost = price(used)
        counts = {name: getattr(used, name) for name in counted}
        counts |= {"requests": 1, "unpriced_requests": int(cost is None)}
        row = sums.setdefault(key, fresh | dict.fromkeys(counts, 0))
        for name, count in counts.items():
            row[name] += count
        for name, amount in (("cost_usd", cost), ("reported_cost_usd", used.reported)):
            if amount is not None:
                row[name] = format(Decimal(row[name] or 0) + amount, "f")
    return list(sums.values())


def same_money(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with its dollars as numbers, so that 1.50 equals 1.5."""
    amounts = {name: row[name] for name in ("cost_usd", "reported_cost_usd")}
    return dict(row) | {name: None if usd is None else Decimal(usd) for name, usd in amounts.items()}
