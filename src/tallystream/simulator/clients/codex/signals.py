"""Codex's metrics and traces: large, and full of the same usage once more, which must never add to the logs' counts.

A span's time and session are spliced in, the counts are always the same.
"""

from __future__ import annotations

from typing import Any

from tallystream.simulator import signals
from tallystream.simulator.model import Signal
from tallystream.simulator.signals import BOUNDS, SESSION, TIME
from tallystream.simulator.wire import Wire

_SPANS = 48
_USAGE = {
    "input": 12411,
    "cached_input": 7936,
    "cache_write_input": 0,
    "output": 379,
    "reasoning_output": 192,
    "total": 12790,
}


def _attributes(**pairs: object) -> list[dict[str, Any]]:
    return signals.attributes(((key.replace("__", "."), given) for key, given in pairs.items()), quoted=True)


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
        name, pairs = "session_task.turn", {"thread__id": SESSION, "model": "gpt-5.1-codex"} | usage
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
        "startTimeUnixNano": str(TIME),
        "endTimeUnixNano": str(TIME),
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
    times = {"startTimeUnixNano": str(TIME), "timeUnixNano": str(TIME)}
    usage = [
        {
            "attributes": _attributes(**common, tmp_mem_enabled="false", token_type=kind),
            **times,
            "count": 1,
            "sum": float(count),
            "bucketCounts": signals.buckets([count]),
            "explicitBounds": BOUNDS,
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


def body(signal: Signal, wire: Wire, session_id: str, at_ns: int) -> tuple[bytes, int]:
    """Return a body of one of the two signals and how many spans or points it holds."""
    return signals.body(_document, signal, wire, session_id, at_ns)
