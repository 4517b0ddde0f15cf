"""The log records of Codex 0.169, as recorded from the real client: names, attributes, their types and their order.

A shape is a run of records that always come together. Each comes in `VARIANTS` kinds of content.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from tallystream.simulator.model import CANARY
from tallystream.simulator.population import Person
from tallystream.simulator.wire import (
    COMMON,
    EXTRA,
    ISO,
    Hole,
    Pair,
    Template,
    Value,
    Wire,
    WirePart,
    WireRecord,
    hole,
)

VERSION = "0.169.0"
VARIANTS = 4
FLUSH = "event otel/src/metrics/client.rs:324"
"""A record of the scope `codex_otel::metrics::client`."""

Pairs = tuple[Pair, ...]
Event = tuple[str, Pairs]
"""`eventName` and the event's own attributes."""

_SESSION = "event otel/src/events/session_telemetry.rs:"
_AUTH: Pairs = (
    ("auth.env_openai_api_key_present", False),
    ("auth.env_codex_api_key_present", False),
    ("auth.env_codex_api_key_enabled", True),
    ("auth.env_provider_key_name", "configured"),
    ("auth.env_provider_key_present", True),
    ("auth.env_refresh_token_url_override_present", False),
)
_HEADER: Pairs = (
    ("auth.header_attached", True),
    ("auth.header_name", "authorization"),
    ("auth.retry_after_unauthorized", False),
    ("endpoint", "/responses"),
)
CALL = Hole(EXTRA, 25)
"""`call_id` of the tool call a shape is about."""
_OUTPUTS = (
    "\nTotal output lines: 1\n\nok\n",
    "\nTotal output lines: 4\n\n" + "src/ledger/rounding.py: 100% covered \\o/ “half even”\n" * 4,
    "\nTotal output lines: 3\n\n" + "Traceback: ...\n" * 3,
    "\nTotal output lines: 12\n\n" + "drwxr-xr-x 2 dev dev 4096 feature_store | ingest\n" * 12,
)


def _sse(kind: str, duration_ms: int) -> Event:
    pairs = (("event.name", "codex.sse_event"), ("event.kind", kind), ("duration_ms", str(duration_ms)))
    return f"{_SESSION}1089", pairs


def _phase(phase: str, duration_ms: int, *, status: bool = True) -> Event:
    ready: Pairs = (("startup.status", "ready"),) if status else ()
    head: Pairs = (("event.name", "codex.startup_phase"), ("startup.phase", phase))
    return f"{_SESSION}377", (*head, *ready, ("duration_ms", str(duration_ms)))


def _api_request(status: int, attempt: int) -> Event:
    failed = status >= 400
    message: Pairs = (("error.message", f"http {status}"),) if failed else ()
    request: Pairs = (("auth.request_id", "req_22160c5bec9c"),) if failed else ()
    head: Pairs = (
        ("event.name", "codex.api_request"),
        ("duration_ms", "14"),
        ("http.response.status_code", status),
    )
    return f"{_SESSION}803", (*head, *message, ("attempt", attempt), *_HEADER, *_AUTH, *request)


def _websocket_request() -> Event:
    head: Pairs = (("event.name", "codex.websocket_request"), ("duration_ms", "1"), ("success", "true"))
    return f"{_SESSION}920", (*head, *_AUTH, ("auth.connection_reused", True))


def _reasoning(variant: int) -> tuple[Event, ...]:
    return (
        _sse("response.output_item.added", 11),
        _sse("response.reasoning_summary_part.added", 10),
        _sse("response.reasoning_summary_text.delta", 10 + variant),
        _sse("response.output_item.done", 12),
    )


def _decision(name: str, namespace: str) -> Event:
    pairs: Pairs = (
        ("event.name", "codex.tool_decision"),
        ("tool_name", name),
        ("tool_namespace", namespace),
        ("call_id", CALL),
        ("decision", "approved"),
        ("source", "Config"),
    )
    return f"{_SESSION}1225", pairs


def _result(name: str, namespace: str, variant: int, arguments: str, output: str) -> Event:
    pairs: Pairs = (
        ("event.name", "codex.tool_result"),
        ("tool_result_seq", variant + 1),
        ("tool_name", name),
        ("tool_namespace", namespace),
        ("call_id", CALL),
        ("duration_ms", str(17 + 40 * variant)),
        ("success", "false" if variant == 2 else "true"),
        ("output_truncated", variant == 3),
        ("agent_name", "/root"),
        ("arguments", arguments),
        ("output", output),
        ("mcp_server", ""),
        ("mcp_server_origin", ""),
    )
    return "event otel/src/tool_result.rs:54", pairs


def _start(variant: int) -> tuple[Event, ...]:
    effort: Pairs = (("reasoning_effort", ("low", "medium", "high")[variant - 1]),) if variant else ()
    pairs: Pairs = (
        ("event.name", "codex.conversation_starts"),
        ("config.legacy_multi_agent_disabled_sources", "none"),
        ("provider_name", "OpenAI"),
        *_AUTH,
        *effort,
        ("reasoning_summary", "auto"),
        ("approval_policy", "never"),
        ("sandbox_policy", "danger-full-access"),
        ("mcp_servers", "codex_apps" if variant == 3 else ""),
    )
    return (
        (f"{_SESSION}703", pairs),
        _phase("thread_start_create_thread", 15),
        _phase("thread_start_total", 19),
    )


def _prewarm(_: int) -> tuple[Event, ...]:
    connect: Pairs = (("event.name", "codex.websocket_connect"), ("duration_ms", "18"), ("success", "true"))
    reused: Pairs = (("auth.connection_reused", False), ("auth.reauth", False))
    return (
        _phase("startup_prewarm_create_turn_context", 3, status=False),
        (f"{_SESSION}868", (*connect, *_HEADER, *_AUTH, *reused)),
        _websocket_request(),
    )


def _prompt(variant: int) -> tuple[Event, ...]:
    text = "[REDACTED]" if variant < 2 else f"Fix {CANARY}, please: {'lorem ipsum ' * 12 * variant}"
    prompt: Pairs = (("event.name", "codex.user_prompt"), ("prompt_length", str(len(text))), ("prompt", text))
    return ((f"{_SESSION}1200", prompt), (f"{_SESSION}393", (("event.name", "codex.turn_ttft"), ("duration_ms", "88"))))


def _spoken(variant: int) -> tuple[Event, ...]:
    deltas = tuple(_sse("response.output_text.delta", 10 + n) for n in range(variant + 1))
    return (_sse("response.output_item.added", 10), *deltas, _sse("response.output_item.done", 10))


def _cut(_: int) -> tuple[Event, ...]:
    lost: Pairs = (
        ("event.name", "codex.sse_event"),
        ("duration_ms", "10"),
        ("error.message", "Transport error: network error: error decoding response body"),
    )
    completed: Pairs = (
        ("event.name", "codex.sse_event"),
        ("event.kind", "response.completed"),
        ("error.message", "stream disconnected before completion: Transport error: network error"),
    )
    return _api_request(200, 0), _sse("response.created", 0), (f"{_SESSION}1120", lost), (f"{_SESSION}1140", completed)


def _turn_cost(_: int) -> tuple[Event, ...]:
    pairs: Pairs = (
        ("event.name", "codex.turn_cost"),
        ("turn.id", "01a1ffa6-b61c-7ff0-8067-b53395f6ae46"),
        ("usage.estimated_usd", "0.0123450000"),
        ("turn.interrupted", False),
        ("speed", "standard"),
        ("reasoning_effort", "medium"),
    )
    return ((f"{_SESSION}451", pairs),)


def _called(variant: int) -> tuple[Event, ...]:
    arguments = f'{{"cmd": "grep -rn {CANARY} src | head -{variant + 1}"}}'
    output = f"Chunk ID: 69ac60\nWall time: 0.0{variant}00 seconds\n{CANARY}{_OUTPUTS[variant]}"
    return (_result("exec_command", "functions", variant, arguments, output),)


def _spawned(variant: int) -> tuple[Event, ...]:
    arguments = f'{{"message": "Count the files of {CANARY}."}}'
    output = f'{{"agent_id":"01a1ffa0-ba82-70b2-8c49-8b4fec05b4b6","nickname":"{CANARY}"}}'
    return (
        _decision("spawn_agent", "multi_agent_v1"),
        _result("spawn_agent", "multi_agent_v1", variant, arguments, output),
    )


_SHAPES: dict[str, Callable[[int], tuple[Event, ...]]] = {
    "start": _start,
    "prewarm": _prewarm,
    "prompt": _prompt,
    "http": lambda _: (_api_request(200, 0), _sse("response.created", 0)),
    "websocket": lambda _: (_websocket_request(),),
    "reasoning": _reasoning,
    "spoken": _spoken,
    "call": lambda _: (
        _sse("response.output_item.added", 11),
        _sse("response.output_item.done", 10),
        _decision("exec_command", "functions"),
    ),
    "called": _called,
    "spawned": _spawned,
    "completed": lambda variant: (_sse("response.completed", 10 + variant),),
    "retried": lambda variant: tuple(_api_request((429, 500)[variant % 2], n) for n in range(1 + variant // 2)),
    "cut": _cut,
    "turn_cost": _turn_cost,
}


def _record(wire: Wire, own: Pairs | tuple[WirePart], name: str, *, traced: bool) -> WireRecord:
    """Return an event: its own attributes, then its time and those that every event of the session has."""
    return WireRecord(wire.attributes([*own, ("event.timestamp", Hole(ISO, 24)), hole(COMMON)]), traced, name)


@cache
def template(wire: Wire, shape: str, variant: int) -> Template:
    """Return the shape's template; records of `codex.sse_event` carry no trace."""
    return wire.template(
        [_record(wire, pairs, name, traced=pairs[0][1] != "codex.sse_event") for name, pairs in _SHAPES[shape](variant)]
    )


@cache
def token_template(wire: Wire) -> Template:
    """Return the template of the record that carries tokens, whose own attributes are its extra."""
    return wire.template([_record(wire, (hole(EXTRA),), f"{_SESSION}1153", traced=False)])


@cache
def flush_template(wire: Wire) -> Template:
    """Return the template of what the exporter says when the client ends, without any attribute."""
    return wire.template([WireRecord(WirePart(b"", 0), False, FLUSH, (5, "DEBUG"), "flushing OTEL metrics")])


def common(wire: Wire, person: Person, session_id: str, model: str, originator: str, auth: str | None) -> bytes:
    """Encode what every event of a session has after its time, in Codex's order; a ChatGPT login brings an account."""
    login = auth == "Chatgpt"
    pairs: tuple[tuple[str, Value | None], ...] = (
        ("conversation.id", session_id),
        ("app.version", VERSION),
        ("auth_mode", auth),
        ("originator", originator),
        ("user.account_id", person.account if login else None),
        ("user.email", person.email if login else None),
        ("terminal.type", "xterm-256color"),
        ("model", model),
        ("slug", model),
    )
    return wire.between.join([wire.attribute(key, value) for key, value in pairs if value is not None])
