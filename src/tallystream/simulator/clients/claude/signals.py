"""Claude Code's metrics and traces: the same usage and cost once more, which must never add to the logs' counts.

Metrics are deltas. Time and session are spliced in. The metric of tokens and the span of a request have what the run
used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystream.simulator import signals
from tallystream.simulator.agent import RunUsage
from tallystream.simulator.clients.claude.records import VERSION
from tallystream.simulator.model import CANARY, Signal
from tallystream.simulator.signals import SESSION, TIME, attributes
from tallystream.simulator.wire import Wire

_WHO = {
    "user.id": "5e" * 32,
    "session.id": SESSION,
    "anthropic.provider": "firstParty",
    "anthropic.custom_base_url": False,
    "terminal.type": "xterm-256color",
}
_ASKED = {"model": "claude-opus-5-5", "query_source": "main", "effort": "medium"}
_TIMES = {"startTimeUnixNano": str(TIME), "timeUnixNano": str(TIME)}
_ABOUT = {"droppedAttributesCount": 0, "droppedEventsCount": 0, "droppedLinksCount": 0, "links": []}


def _resource() -> dict[str, Any]:
    said = {"host.arch": "amd64", "os.type": "linux", "os.version": "6.12.9", "service.name": "claude-code"}
    return {"attributes": attributes((said | {"service.version": VERSION}).items()), "droppedAttributesCount": 0}


def _sum(name: str, about: str, unit: str, points: list[tuple[dict[str, Any], float]]) -> dict[str, Any]:
    data = [{"attributes": attributes((_WHO | own).items()), **_TIMES, "asDouble": number} for own, number in points]
    return {
        "name": name, "description": about, "unit": unit,
        "sum": {"aggregationTemporality": 1, "isMonotonic": True, "dataPoints": data},
    }  # fmt: skip


def _kinds(used: RunUsage) -> dict[str, int]:
    return {"input": used.fresh, "output": used.output, "cacheRead": used.cached, "cacheCreation": used.written}


def _usage(session_id: str, used: RunUsage, at_ns: int) -> dict[str, Any]:
    points: list[tuple[dict[str, Any], float]] = [
        (_ASKED | {"type": kind, "session.id": session_id}, number) for kind, number in _kinds(used).items()
    ]
    metric = _sum("claude_code.token.usage", "Number of tokens used", "tokens", points)
    for point in metric["sum"]["dataPoints"]:
        point |= {"startTimeUnixNano": str(at_ns - 1_000_000_000), "timeUnixNano": str(at_ns)}
    return metric


def _metrics() -> tuple[dict[str, Any], int]:
    metrics = [
        _sum("claude_code.session.count", "Count of CLI sessions started", "", [({"start_type": "fresh"}, 1)]),
        _sum("claude_code.cost.usage", "Cost of the Claude Code session", "USD", [(_ASKED, 0.0293)]),
        _sum("claude_code.active_time.total", "Total active time in seconds", "s", [({"type": "cli"}, 4.2)]),
    ]
    return _enclosed("metrics", metrics), 3


def _enclosed(signal: Signal, records: list[dict[str, Any]]) -> dict[str, Any]:
    if signal == "metrics":
        scope = {"name": "com.anthropic.claude_code", "version": VERSION}
        return {"resourceMetrics": [{"resource": _resource(), "scopeMetrics": [{"scope": scope, "metrics": records}]}]}
    scope = {"name": "com.anthropic.claude_code.tracing", "version": "1.0.0"}
    return {"resourceSpans": [{"resource": _resource(), "scopeSpans": [{"scope": scope, "spans": records}]}]}


def _span(number: int, name: str, parent: int | None, own: dict[str, Any]) -> dict[str, Any]:
    who = _WHO | {"gen_ai.provider.name": "anthropic", "span.type": name, "gen_ai.conversation.id": SESSION}
    span = {
        "traceId": "4be1d0c3a2957f6e8d1c0b9a3f5e7d21",
        "spanId": f"{number + 1:016x}",
        "name": f"claude_code.{name}",
        "kind": 1,
        "startTimeUnixNano": str(TIME),
        "endTimeUnixNano": str(TIME),
        "attributes": attributes((who | own).items()),
        "events": [],
        "status": {"code": 0},
        "flags": 257,
        **_ABOUT,
    }
    return span if parent is None else span | {"parentSpanId": f"{parent + 1:016x}"}


def _asked(session_id: str, used: RunUsage, at_ns: int) -> dict[str, Any]:
    usage = {
        "duration_ms": 1118, "input_tokens": used.fresh, "output_tokens": used.output,
        "cache_read_tokens": used.cached, "cache_creation_tokens": used.written,
    }  # fmt: skip
    request = f"req_011C{signals.run_id(session_id, at_ns, 'request', 80)}"
    stop = "end_turn"
    about = {
        "model": "claude-opus-5-5", "gen_ai.system": "anthropic", "gen_ai.request.model": "claude-opus-5-5",
        "llm_request.context": "interaction", "speed": "normal", "query_source_safe": "sdk",
    }  # fmt: skip
    ended = {
        "success": True, "attempt": 1, "request_id": request, "gen_ai.response.id": request, "ttft_ms": 16,
        "first_content_ms": 20, "stop_reason": stop, "gen_ai.response.finish_reasons": [stop],
    }  # fmt: skip
    whose = {"session.id": session_id, "gen_ai.conversation.id": session_id}
    span = _span(1, "llm_request", 0, about | usage | ended | whose)
    ids = {
        "traceId": signals.run_id(session_id, at_ns, "request", 128),
        "spanId": signals.run_id(session_id, at_ns, "request", 64),
    }
    return span | ids | {"startTimeUnixNano": str(at_ns - 1_000_000_000), "endTimeUnixNano": str(at_ns)}


def _traces() -> tuple[dict[str, Any], int]:
    prompt = f"Fix {CANARY}, please."
    interaction = {
        "gen_ai.operation.name": "invoke_agent", "user_prompt": prompt, "user_prompt_length": len(prompt),
        "interaction.sequence": 1, "parent.source": "none", "queued_sends": 0, "interaction.duration_ms": 2383,
    }  # fmt: skip
    tool = {
        "tool_name": "Bash", "tool_name_safe": "Bash", "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "Bash", "bash_command_class": "other", "bash_argv0": "grep", "duration_ms": 47,
    }  # fmt: skip
    spans = [
        _span(4, "tool.blocked_on_user", 3, {"duration_ms": 12, "decision": "accept", "source": "config"}),
        _span(5, "tool.execution", 3, {"duration_ms": 34, "success": True}),
        _span(3, "tool", 0, tool),
        _span(0, "interaction", None, interaction),
    ]
    return _enclosed("traces", spans), len(spans)


def _document(signal: Signal) -> tuple[dict[str, Any], int]:
    return _traces() if signal == "traces" else _metrics()


def body(signal: Signal, wire: Wire, session_id: str, at_ns: int, used: Mapping[str, RunUsage]) -> tuple[bytes, int]:
    """Return a body of one of the two signals and how many spans or points it holds; `used` is the run's usage."""
    if signal == "traces":
        told = [_asked(session, one, at_ns) for session, one in used.items()]
        more = len(told)
    else:
        told = [_usage(session, one, at_ns) for session, one in used.items()]
        more = sum(len(metric["sum"]["dataPoints"]) for metric in told)
    return signals.body(_document, signal, wire, session_id, at_ns, _enclosed(signal, told), more)
