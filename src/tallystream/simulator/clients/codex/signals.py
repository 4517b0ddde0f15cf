"""Codex's metrics and traces: large, and full of the same usage once more, which must never add to the logs' counts.

A span's time and session are spliced in. The span of a turn and the metric of its tokens have what the run used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystream.simulator import signals
from tallystream.simulator.agent import RunUsage
from tallystream.simulator.model import Signal
from tallystream.simulator.signals import BOUNDS, TIME
from tallystream.simulator.wire import Wire

_SPANS = 48
_PLACE = {"thread__name": "tokio-rt-worker", "target": "codex_core::session::turn", "busy_ns": 1045, "idle_ns": 2543}
_COMMON = {"app__version": "0.169.0", "model": "gpt-5.1-codex", "originator": "codex_exec", "session_source": "exec"}


def _kinds(used: RunUsage) -> dict[str, int]:
    return {
        "input": used.input,
        "cached_input": used.cached,
        "cache_write_input": used.written,
        "output": used.output,
        "reasoning_output": used.reasoning,
        "total": used.input + used.output,
    }


def _attributes(**pairs: object) -> list[dict[str, Any]]:
    return signals.attributes(((key.replace("__", "."), given) for key, given in pairs.items()), quoted=True)


_ABOUT: dict[str, Any] = {"description": "", "metadata": []}


def _resource() -> dict[str, Any]:
    attributes = _attributes(
        service__name="codex_exec", service__version="0.169.0", telemetry__sdk__name="opentelemetry",
        telemetry__sdk__language="rust", telemetry__sdk__version="0.31.0", env="dev",
    )  # fmt: skip
    return {"attributes": attributes, "droppedAttributesCount": 0}


def _span(n: int) -> dict[str, Any]:
    if n % 16 == 1:
        usage = {
            "gen_ai__usage__input_tokens": 12411, "gen_ai__usage__cache_read__input_tokens": 7936,
            "gen_ai__usage__cache_write__input_tokens": 0, "gen_ai__usage__output_tokens": 379,
            "codex__usage__reasoning_output_tokens": 192, "codex__usage__total_tokens": 12790,
        }  # fmt: skip
        name, pairs = "handle_responses", {"from": "output_item_added"} | usage
    else:
        name, pairs = "append_items", {"thread__id": n, "item_count": "1"}
    return _span_of("9c89e5079f4666471f5e518797fdee4b", f"{n + 1:016x}", name, TIME, pairs)


def _turn(session_id: str, used: RunUsage, at_ns: int) -> dict[str, Any]:
    usage = {f"codex__turn__token_usage__{name}_tokens": count for name, count in _kinds(used).items()}
    trace_id, span_id = (signals.run_id(session_id, at_ns, "turn", bits) for bits in (128, 64))
    about: dict[str, object] = {"thread__id": session_id, "model": "gpt-5.1-codex"}
    return _span_of(trace_id, span_id, "session_task.turn", at_ns, about | usage)


def _span_of(trace_id: str, span_id: str, name: str, at_ns: int, pairs: Mapping[str, object]) -> dict[str, Any]:
    return {
        "traceId": trace_id,
        "spanId": span_id,
        "traceState": "",
        "parentSpanId": "812056623a36889d",
        "flags": 257,
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(at_ns),
        "endTimeUnixNano": str(at_ns),
        "attributes": _attributes(**pairs, **_PLACE),
        "droppedAttributesCount": 0,
        "events": [],
        "droppedEventsCount": 0,
        "links": [],
        "droppedLinksCount": 0,
        "status": {"message": "", "code": 0},
    }


def _usage(used: RunUsage, at_ns: int) -> dict[str, Any]:
    times = {"startTimeUnixNano": str(at_ns - 1_000_000_000), "timeUnixNano": str(at_ns)}
    points = [
        {
            "attributes": _attributes(**_COMMON, tmp_mem_enabled="false", token_type=kind),
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
        for kind, count in _kinds(used).items()
    ]
    data = {"dataPoints": points, "aggregationTemporality": 1}
    return {"name": "codex.turn.token_usage", **_ABOUT, "unit": "", "histogram": data}


def _metrics() -> list[dict[str, Any]]:
    times = {"startTimeUnixNano": str(TIME), "timeUnixNano": str(TIME)}
    calls = [
        {"attributes": _attributes(**_COMMON, status=status, success=str(status == "200").lower()), **times,
         "exemplars": [], "flags": 0, "asInt": 2}
        for status in ("200", "429")
    ]  # fmt: skip
    return [
        {"name": "codex.api_request", **_ABOUT, "unit": "",
         "sum": {"dataPoints": calls, "aggregationTemporality": 1, "isMonotonic": True}},
    ]  # fmt: skip


def _enclosed(signal: Signal, records: list[dict[str, Any]]) -> dict[str, Any]:
    scope = {"name": "codex_exec" if signal == "traces" else "codex", "version": ""}
    if signal == "traces":
        group = {"scope": scope, "spans": records, "schemaUrl": ""}
        return {"resourceSpans": [{"resource": _resource(), "scopeSpans": [group], "schemaUrl": ""}]}
    group = {"scope": scope, "metrics": records, "schemaUrl": ""}
    return {"resourceMetrics": [{"resource": _resource(), "scopeMetrics": [group], "schemaUrl": ""}]}


def _document(signal: Signal) -> tuple[dict[str, Any], int]:
    if signal == "traces":
        return _enclosed(signal, [_span(n) for n in range(1, _SPANS)]), _SPANS - 1
    return _enclosed(signal, _metrics()), 2


def body(signal: Signal, wire: Wire, session_id: str, at_ns: int, used: Mapping[str, RunUsage]) -> tuple[bytes, int]:
    """Return a body of one of the two signals and how many spans or points it holds.

    `used` is the run's usage by session: a span for each one's turn, and one metric for all, which names no session.
    """
    if signal == "traces":
        told = [_turn(session, one, at_ns) for session, one in used.items()]
    else:
        whole = RunUsage.of(used.values())
        told = [_usage(whole, at_ns)]
    more = len(told) if signal == "traces" else len(_kinds(whole))
    return signals.body(_document, signal, wire, session_id, at_ns, _enclosed(signal, told), more)
