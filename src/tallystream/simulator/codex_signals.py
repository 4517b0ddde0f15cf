"""Codex's metrics and traces: large, and full of the same usage once more, which must never add to the logs' counts.

Built once a process from plain dicts in OTLP/JSON shape; the session and the time are spliced in.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tallystream.simulator.model import Signal

_SESSION = "00000000-0000-7000-8000-00000c0de000"
_TIME = 0x1717_1717_1717_1717
"""Stands for the time: 8 bytes that occur nowhere else, in both encodings."""
_SPANS = 48
_BOUNDS = [0.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1000.0, 2500.0, 5000.0, 7500.0, 10000.0]
_USAGE = {
    "input": 12411,
    "cached_input": 7936,
    "cache_write_input": 0,
    "output": 379,
    "reasoning_output": 192,
    "total": 12790,
}


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"doubleValue": value}


def _attributes(**pairs: Any) -> list[dict[str, Any]]:
    return [{"key": key.replace("__", "."), "value": _value(value)} for key, value in pairs.items()]


def _resource() -> dict[str, Any]:
    attributes = _attributes(
        service__name="codex_exec", service__version="0.169.0", telemetry__sdk__name="opentelemetry",
        telemetry__sdk__language="rust", telemetry__sdk__version="0.31.0", env="dev",
    )  # fmt: skip
    return {"attributes": attributes, "droppedAttributesCount": 0}


def _span(n: int) -> dict[str, Any]:
    place = {"thread__name": "tokio-rt-worker", "target": "codex_core::session::turn", "busy_ns": 1045, "idle_ns": 2543}
    if n == 0:
        usage = {f"codex__turn__token_usage__{name}_tokens": count for name, count in _USAGE.items()}
        name, pairs = "session_task.turn", {"thread__id": _SESSION, "model": "gpt-5.1-codex"} | usage
    elif n % 16 == 1:
        usage = {
            "gen_ai__usage__input_tokens": 12411, "gen_ai__usage__cache_read__input_tokens": 7936,
            "gen_ai__usage__cache_write__input_tokens": 0, "gen_ai__usage__output_tokens": 379,
            "codex__usage__reasoning_output_tokens": 192, "codex__usage__total_tokens": 12790,
        }  # fmt: skip
        name, pairs = "handle_responses", {"from": "output_item_added"} | usage
    else:
        name, pairs = "append_items", {"thread__id": n, "item_count": "1"}
    return {
        "traceId": "9c89e5079f4666471f5e518797fdee4b",
        "spanId": f"{n + 1:016x}",
        "traceState": "",
        "parentSpanId": "812056623a36889d",
        "flags": 257,
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(_TIME),
        "endTimeUnixNano": str(_TIME),
        "attributes": _attributes(**pairs, **place),
        "droppedAttributesCount": 0,
        "events": [],
        "droppedEventsCount": 0,
        "links": [],
        "droppedLinksCount": 0,
        "status": {"message": "", "code": 0},
    }


def _metrics() -> list[dict[str, Any]]:
    common = {"app__version": "0.169.0", "model": "gpt-5.1-codex", "originator": "codex_exec", "session_source": "exec"}
    times = {"startTimeUnixNano": str(_TIME), "timeUnixNano": str(_TIME)}
    usage = [
        {
            "attributes": _attributes(**common, tmp_mem_enabled="false", token_type=kind),
            **times,
            "count": 1,
            "sum": float(count),
            "bucketCounts": [int(n == sum(bound < count for bound in _BOUNDS)) for n in range(len(_BOUNDS) + 1)],
            "explicitBounds": _BOUNDS,
            "exemplars": [],
            "flags": 0,
            "min": float(count),
            "max": float(count),
        }
        for kind, count in _USAGE.items()
    ]
    calls = [
        {"attributes": _attributes(**common, status=status, success=str(status == "200").lower()), **times,
         "exemplars": [], "flags": 0, "asInt": 2}
        for status in ("200", "429")
    ]  # fmt: skip
    about = {"description": "", "metadata": []}
    return [
        {"name": "codex.turn.token_usage", **about, "unit": "",
         "histogram": {"dataPoints": usage, "aggregationTemporality": 1}},
        {"name": "codex.api_request", **about, "unit": "",
         "sum": {"dataPoints": calls, "aggregationTemporality": 1, "isMonotonic": True}},
    ]  # fmt: skip


def _document(signal: Signal) -> tuple[dict[str, Any], int]:
    scope = {"name": "codex_exec" if signal == "traces" else "codex", "version": ""}
    if signal == "traces":
        group = {"scope": scope, "spans": [_span(n) for n in range(_SPANS)], "schemaUrl": ""}
        return {"resourceSpans": [{"resource": _resource(), "scopeSpans": [group], "schemaUrl": ""}]}, _SPANS
    group = {"scope": scope, "metrics": _metrics(), "schemaUrl": ""}
    return {"resourceMetrics": [{"resource": _resource(), "scopeMetrics": [group], "schemaUrl": ""}]}, len(_USAGE) + 2


def _base64_ids(node: Any) -> Any:
    """`json_format` reads ids as base64, OTLP/JSON writes them as hex."""
    if isinstance(node, dict):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode()
            if key.endswith(("raceId", "panId"))
            else _base64_ids(value)
            for key, value in node.items()
        }
    return [_base64_ids(item) for item in node] if isinstance(node, list) else node


@cache
def _template(signal: Signal, content_type: str) -> tuple[bytes, int]:
    document, records = _document(signal)
    if content_type == "application/json":
        return orjson.dumps(document, option=orjson.OPT_INDENT_2), records
    message = ExportTraceServiceRequest() if signal == "traces" else ExportMetricsServiceRequest()
    return ParseDict(_base64_ids(document), message).SerializeToString(deterministic=True), records


def body(signal: Signal, content_type: str, session_id: str, at_ns: int) -> tuple[bytes, int]:
    """Return a body of one of the two signals and how many spans or points it holds."""
    data, records = _template(signal, content_type)
    if content_type == "application/json":
        data = data.replace(str(_TIME).encode(), str(at_ns).encode())
    else:
        data = data.replace(_TIME.to_bytes(8, "little"), at_ns.to_bytes(8, "little"))
    return data.replace(_SESSION.encode(), session_id.encode()), records
