"""Gemini CLI's metrics and traces: the same usage once more, which must never add to the logs' counts.

Metrics are cumulative. Spans hold what the model is told, 45 KB each. Time and session are spliced in. The metric of
tokens has what the run used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from tallystream.simulator import signals
from tallystream.simulator.agent import RunUsage
from tallystream.simulator.clients.gemini.records import INSTRUCTIONS
from tallystream.simulator.model import CANARY, Signal
from tallystream.simulator.signals import BOUNDS, SESSION, TIME, attributes, buckets
from tallystream.simulator.wire import Wire

_SESSION = {"session.id": SESSION, "installation.id": "6f1d2c3b-4a59-4768-8796-a5b4c3d2e1f0", "interactive": False}
_WHO = _SESSION | {"auth_type": "gemini-api-key"}
_MODEL = {"model": "gemini-2.5-pro"}
_USAGE = {"input": 16_202, "output": 272, "cache": 9_002, "thought": 142, "tool": 31}
_TIMES = {"startTimeUnixNano": str(TIME), "timeUnixNano": str(TIME)}
_GENAI = {
    "gen_ai.operation.name": "generate_content",
    "gen_ai.provider.name": "gcp.gen_ai",
    "gen_ai.request.model": "gemini-2.5-pro",
    "gen_ai.response.model": "gemini-2.5-pro",
}
_TOOLS = [
    {
        "name": f"tool_{n}",
        "description": f"Does one thing to {CANARY}, and only when asked. " * 18,
        "parametersJsonSchema": {"type": "object", "properties": {"path": {"type": "string"}}},
    }
    for n in range(21)
]


def _resource() -> dict[str, Any]:
    said = {
        "host.name": "devbox-0000", "host.arch": "amd64", "process.pid": 5221, "process.executable.name": "node",
        "process.command_args": ["/usr/bin/node", "/usr/local/bin/gemini", "-p", f"Fix {CANARY}, please."],
        "process.runtime.name": "nodejs", "process.owner": "dev", "service.name": "gemini-cli",
        "service.version": "v22.11.0", "session.id": SESSION,
    }  # fmt: skip
    return {"attributes": attributes(said.items()), "droppedAttributesCount": 0}


def _sum(name: str, about: str, points: list[tuple[dict[str, Any], int]]) -> dict[str, Any]:
    data = [{"attributes": attributes(own.items()), **_TIMES, "asInt": number} for own, number in points]
    return {
        "name": name, "description": about, "unit": "",
        "sum": {"aggregationTemporality": 2, "isMonotonic": True, "dataPoints": data},
    }  # fmt: skip


def _histogram(name: str, about: str, unit: str, points: list[tuple[dict[str, Any], list[float]]]) -> dict[str, Any]:
    data = [
        {
            "attributes": attributes((_WHO | own).items()), "bucketCounts": buckets(seen), "explicitBounds": BOUNDS,
            "count": len(seen), "sum": sum(seen), "min": min(seen), "max": max(seen), **_TIMES,
        }
        for own, seen in points
    ]  # fmt: skip
    about_it = {"name": name, "description": about, "unit": unit}
    return about_it | {"histogram": {"aggregationTemporality": 2, "dataPoints": data}}


def _usage(session_id: str, used: RunUsage, at_ns: int) -> dict[str, Any]:
    kinds = {
        "input": used.input, "output": used.output - used.reasoning, "cache": used.cached, "thought": used.reasoning,
        "tool": used.tool,
    }  # fmt: skip
    points: list[tuple[dict[str, Any], int]] = [
        (_WHO | _MODEL | {"type": kind, "session.id": session_id}, number) for kind, number in kinds.items()
    ]
    metric = _sum("gemini_cli.token.usage", "Counts the tokens used.", points)
    for point in metric["sum"]["dataPoints"]:
        point |= {"startTimeUnixNano": str(at_ns - 1_000_000_000), "timeUnixNano": str(at_ns)}
    return metric


def _metrics() -> tuple[dict[str, Any], int]:
    tool = {"function_name": "run_shell_command"}
    called = _WHO | tool | {"success": True, "decision": "accept", "tool_type": "native"}
    kinds: list[tuple[dict[str, Any], list[float]]] = [
        (_GENAI | {"gen_ai.token.type": kind}, [_USAGE[kind] // 2, _USAGE[kind] // 2]) for kind in ("input", "output")
    ]
    phases: list[tuple[dict[str, Any], list[float]]] = [
        ({"phase": name, "os_platform": "linux", "os_arch": "x64", "os_release": "6.12.9", "is_docker": False,
          "cpu_usage_user": 9100, "cpu_usage_system": 410}, [30.5 + n])
        for n, name in enumerate(("cli_startup", "load_settings", "initialize_app"))
    ]  # fmt: skip
    metrics = [
        _sum("gemini_cli.tool.call.count", "Counts tool calls.", [(called, 1)]),
        _sum("gemini_cli.api.request.count", "Counts API requests.", [(_WHO | _MODEL | {"status_code": 200}, 2)]),
        _sum("gemini_cli.session.count", "Count of CLI sessions started.", [(_SESSION, 1)]),
        _histogram("gemini_cli.tool.call.latency", "Latency of tool calls.", "ms", [(tool, [48])]),
        _histogram("gemini_cli.api.request.latency", "Latency of API requests.", "ms", [(_MODEL, [117, 47])]),
        _histogram("gen_ai.client.token.usage", "Number of tokens used.", "token", kinds),
        _histogram("gen_ai.client.operation.duration", "GenAI operation duration.", "s", [(_GENAI, [0.117, 0.047])]),
        _histogram("gemini_cli.startup.duration", "CLI startup time by phase.", "ms", phases),
    ]
    points = sum(len((m.get("sum") or m["histogram"])["dataPoints"]) for m in metrics)
    return _enclosed(metrics), points


def _enclosed(metrics: list[dict[str, Any]]) -> dict[str, Any]:
    group = {"scope": {"name": "gemini-cli", "version": ""}, "metrics": metrics}
    return {"resourceMetrics": [{"resource": _resource(), "scopeMetrics": [group]}]}


def _span(number: int, name: str, own: dict[str, Any], parent: int | None = None) -> dict[str, Any]:
    about = {
        "gen_ai.conversation.id": SESSION, "gen_ai.operation.name": name, "gen_ai.agent.name": "gemini-cli",
        "gen_ai.agent.description": "Gemini CLI is an agent that works in a terminal. " * 4,
    }  # fmt: skip
    span = {
        "traceId": f"{0xB5C4D3E2F1A0 + (number if parent is None else parent):032x}",
        "spanId": f"{number + 1:016x}",
        "name": name,
        "kind": 1,
        "startTimeUnixNano": str(TIME),
        "endTimeUnixNano": str(TIME),
        "attributes": attributes((own | about).items()),
        "droppedAttributesCount": 0,
        "events": [],
        "droppedEventsCount": 0,
        "status": {"code": 1},
        "links": [],
        "droppedLinksCount": 0,
        "flags": 257,
    }
    return span if parent is None else span | {"parentSpanId": f"{parent + 1:016x}"}


def _traces() -> tuple[dict[str, Any], int]:
    asked = {
        "gen_ai.request.model": "gemini-2.5-pro",
        "gen_ai.prompt.name": SESSION,
        "gen_ai.system_instructions": orjson.dumps(INSTRUCTIONS).decode(),
        "gen_ai.tool.definitions": orjson.dumps([{"functionDeclarations": _TOOLS}]).decode(),
    }
    call = {
        "gen_ai.tool.name": "run_shell_command",
        "gen_ai.tool.call_id": "run_shell_command__1_0",
        "gen_ai.tool.description": f"Runs a command on {CANARY}. " * 30,
    }
    spans = [
        _span(0, "llm_call", asked),
        _span(2, "tool_call", call, 1),
        _span(1, "schedule_tool_calls", {}),
        _span(3, "llm_call", asked),
    ]
    group = {"scope": {"name": "gemini-cli", "version": "v1"}, "spans": spans}
    return {"resourceSpans": [{"resource": _resource(), "scopeSpans": [group]}]}, len(spans)


def _document(signal: Signal) -> tuple[dict[str, Any], int]:
    return _traces() if signal == "traces" else _metrics()


def body(signal: Signal, wire: Wire, session_id: str, at_ns: int, used: Mapping[str, RunUsage]) -> tuple[bytes, int]:
    """Return a body of one of the two signals and how many spans or points it holds; `used` is the run's usage."""
    if signal == "traces":
        return signals.body(_document, signal, wire, session_id, at_ns)
    told = [_usage(session, one, at_ns) for session, one in used.items()]
    more = sum(len(metric["sum"]["dataPoints"]) for metric in told)
    return signals.body(_document, signal, wire, session_id, at_ns, _enclosed(told), more)
