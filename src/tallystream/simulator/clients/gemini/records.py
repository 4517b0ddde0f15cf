"""The log records of Gemini CLI 0.61, as recorded from the real client: names, attributes, their types and their order.

A shape is a run of records that always come together. Each comes in `VARIANTS` kinds of content. What is asked of the
model goes out with every request and every response, 23 KB of instructions each, whether or not prompts are logged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import orjson

from tallystream.simulator.model import CANARY
from tallystream.simulator.population import Person, uuid_of
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
    WireScope,
    hole,
)

LOGS = WireScope("gemini-cli")
VARIANTS = 4
DETAILS = "gen_ai.client.inference.operation.details"
PROMPT = Hole(EXTRA, 0)
"""A prompt's id, in shapes of noise."""
_OWN, _BODY, _ID = hole(EXTRA), Hole(EXTRA + 1, 0), Hole(EXTRA + 2, 0)
"""Attributes, body and response id of a separate record. JSON has no length prefixes, so no size is fixed."""
INSTRUCTIONS = "\n".join(
    f"## Rule {n}\n\nWork on {CANARY} alone. Read before you write, say what you did, and leave the rest as it was: "
    "a change that nobody asked for is a mistake, however right it looks. Ask when two files say different things."
    for n in range(1, 88)
)
"""What the model is told before all else."""

Pairs = tuple[Pair, ...]


@dataclass(frozen=True)
class GeminiRecordKind:
    """What the records of a process differ in, beside ids."""

    model: str
    shown: bool
    """Whether the user lets prompts, answers and tools be logged."""
    headless: bool
    role: str = "main"


@dataclass(frozen=True)
class Event:
    """One record: its name, body and own attributes, and whether it happens inside of a span."""

    name: str
    body: str
    own: Pairs
    traced: bool = False


def _start(variant: int, kind: GeminiRecordKind) -> Sequence[Event]:
    mode = "yolo" if kind.headless else "default"
    config: Pairs = (
        ("model", kind.model),
        ("embedding_model", "gemini-embedding-001"),
        ("sandbox_enabled", variant == 0),
        ("core_tools_enabled", ""),
        ("approval_mode", mode),
        ("api_key_enabled", variant < 2),
        ("vertex_ai_enabled", variant == 3),
        ("log_user_prompts_enabled", kind.shown),
        ("file_filtering_respect_git_ignore", True),
        ("debug_mode", False),
        ("mcp_servers", "issues" if variant == 3 else ""),
        ("mcp_servers_count", int(variant == 3)),
        ("mcp_tools", None),
        ("mcp_tools_count", None),
        ("output_format", "json" if kind.headless else "text"),
        ("extensions", ""),
        ("extensions_count", 0),
        ("extension_ids", ""),
        ("worktree_active", False),
    )
    names = ("cli_startup", "load_settings", "parse_arguments", "load_cli_config", "initialize_app")
    phases = [
        {"name": name, "duration_ms": 9 + 7 * n, "cpu_usage_user_usec": 9100 + n, "cpu_usage_system_usec": 410}
        for n, name in enumerate(names)
    ]
    stats: Pairs = (
        ("phases", orjson.dumps(phases).decode()),
        ("os_platform", "linux"),
        ("os_release", "6.12.9"),
        ("is_docker", False),
    )
    fallback = Event("gemini_cli.ripgrep_fallback", "Switching to grep as fallback.", (("error", None),))
    return (
        Event("gemini_cli.config", "CLI configuration loaded.", config),
        *((fallback,) if variant == 1 else ()),
        Event("gemini_cli.startup_stats", f"Startup stats: {len(names)} phases recorded.", stats),
    )


def _prompt(variant: int, kind: GeminiRecordKind) -> Sequence[Event]:
    text = f"Fix {CANARY}, please: {'lorem ipsum ' * 9 * variant}"
    told: Pairs = (("prompt", text),) if kind.shown else ()
    routing: Pairs = (
        ("decision_model", kind.model),
        ("decision_source", "agent-router/override" if kind.headless else "agent-router/default"),
        ("routing_latency_ms", 2 * variant),
        ("failed", False),
        ("approval_mode", "yolo" if kind.headless else "default"),
        ("reasoning", f"{kind.model} was asked for."),
        ("enable_numerical_routing", True),
        ("classifier_threshold", "90"),
    )
    routed = f"Model routing decision. Model: {kind.model}, Source: {routing[1][1]}"
    prompt: Pairs = (("prompt_length", len(text)), ("prompt_id", PROMPT), *told)
    return (
        Event("gemini_cli.user_prompt", f"User prompt. Length: {len(text)}.", prompt),
        Event("gemini_cli.model_routing", routed, routing),
    )


def _asked(kind: GeminiRecordKind) -> Pairs:
    """Return what a request and its response repeat of each other, up to the model."""
    nothing = ("choice.count", "seed", "frequency_penalty", "presence_penalty", "max_tokens")
    said = [{"role": "user", "parts": [{"type": "text", "content": f"Fix {CANARY}, please."}]}]
    told: Pairs = (("gen_ai.input.messages", orjson.dumps(said).decode()),) if kind.shown else ()
    return (
        ("gen_ai.request.temperature", 1),
        ("gen_ai.request.top_p", 0.95),
        ("gen_ai.request.top_k", 64),
        *((f"gen_ai.request.{name}", None) for name in nothing),
        ("gen_ai.output.type", None),
        ("gen_ai.request.stop_sequences", None),
        ("gen_ai.system_instructions", orjson.dumps([{"type": "text", "content": INSTRUCTIONS}]).decode()),
        *told,
        ("gen_ai.operation.name", "generate_content"),
        ("gen_ai.provider.name", "gcp.gen_ai"),
        ("gen_ai.request.model", kind.model),
    )


_SERVER: Pairs = (("server.address", "generativelanguage.googleapis.com"), ("server.port", 443))


def _request(_: int, kind: GeminiRecordKind) -> Sequence[Event]:
    told: Pairs = (("request_text", f'[{{"role":"user","text":"{CANARY}"}}]'),) if kind.shown else ()
    request: Pairs = (("model", kind.model), ("prompt_id", PROMPT), ("role", kind.role), *told)
    details = f"GenAI operation request details from {kind.model}."
    return (
        Event("gemini_cli.api_request", f"API request to {kind.model}.", request, traced=True),
        Event(DETAILS, details, (*_asked(kind), *_SERVER), traced=True),
    )


def _failed(variant: int, kind: GeminiRecordKind) -> Sequence[Event]:
    status, ms = (429, 503)[variant % 2], 20 + variant
    message = f'{{"error":{{"code":{status},"message":"try later","status":"UNAVAILABLE"}}}}'
    pairs: Pairs = (
        ("error.message", message),
        ("model_name", kind.model),
        ("duration", ms),
        ("model", kind.model),
        ("error", message),
        ("status_code", status),
        ("duration_ms", ms),
        ("prompt_id", PROMPT),
        ("role", kind.role),
        ("error.type", "ApiError"),
        ("http.status_code", status),
    )
    told = f"from {kind.model}. Error: {message}. Duration: {ms}ms."
    details: Pairs = (*_asked(kind), ("gen_ai.response.model", kind.model), *_SERVER)
    return (
        Event("gemini_cli.api_error", f"API error for {told[5:]}", pairs, traced=True),
        Event(DETAILS, f"GenAI operation error details {told}", details, traced=True),
    )


def _called(variant: int, kind: GeminiRecordKind) -> Sequence[Event]:
    name, success, ms = (
        ("run_shell_command", "replace", "grep_search", "read_file")[variant],
        variant != 2,
        20 + variant,
    )
    nothing = ("mcp_server_name", "extension_name", "extension_id", "start_time", "end_time")
    told: Pairs = (("function_args", f'{{"command":"grep -rn {CANARY} src"}}'),) if kind.shown else ()
    pairs: Pairs = (
        ("function_name", name),
        ("duration_ms", ms),
        ("success", success),
        ("decision", "accept"),
        ("prompt_id", PROMPT),
        ("tool_type", "native"),
        ("content_length", 77 * variant),
        *((other, None) for other in nothing),
        *told,
    )
    body = f"Tool call: {name}. Decision: accept. Success: {str(success).lower()}. Duration: {ms}ms."
    return (Event("gemini_cli.tool_call", body, pairs, traced=True),)


def _ended(variant: int, kind: GeminiRecordKind) -> Sequence[Event]:
    mode, ms = "yolo" if kind.headless else "default", 4253.874377 + variant
    own: Pairs = (("mode", mode), ("duration_ms", ms))
    return (Event("gemini_cli.plan.approval_mode_duration", f"Approval mode {mode} was active for {ms}ms.", own),)


_SHAPES: dict[str, Callable[[int, GeminiRecordKind], Sequence[Event]]] = {
    "start": _start,
    "prompt": _prompt,
    "request": _request,
    "failed": _failed,
    "called": _called,
    "ended": _ended,
}


def _record(
    wire: Wire, name: str, own: Sequence[Pair | WirePart], body: str | Hole, *, traced: bool = False
) -> WireRecord:  # fmt: skip
    """Return an event: what all have, its name and time, then its own attributes."""
    return WireRecord(
        wire.attributes([hole(COMMON), ("event.name", name), ("event.timestamp", Hole(ISO, 24)), *own]),
        traced,
        body=body,
    )


@cache
def template(wire: Wire, shape: str, variant: int, kind: GeminiRecordKind) -> Template:
    """Return the shape's template."""
    events = _SHAPES[shape](variant, kind)
    return wire.template([_record(wire, e.name, e.own, e.body, traced=e.traced) for e in events])


@cache
def token_template(wire: Wire) -> Template:
    """Return the template of the record that carries tokens: its extras are its own attributes and its body."""
    return wire.template([_record(wire, "gemini_cli.api_response", (_OWN,), _BODY)])


@cache
def details_template(wire: Wire, kind: GeminiRecordKind) -> Template:
    """Return the template of the record that repeats the tokens: its extras are these, its body and a response id."""
    head: Pairs = (("gen_ai.response.id", _ID), ("gen_ai.response.finish_reasons", ("stop",)))
    said = f'[{{"role":"model","parts":[{{"type":"text","content":"{CANARY}"}}]}}]'
    told: Pairs = (("gen_ai.output.messages", said),) if kind.shown else ()
    own: Sequence[Pair | WirePart] = (
        *head,
        *_asked(kind),
        ("gen_ai.response.model", kind.model),
        *told,
        *_SERVER,
        _OWN,
    )
    return wire.template([_record(wire, DETAILS, own, _BODY)])


@cache
def answer(wire: Wire) -> bytes:
    """Encode what the model said, which the user lets be logged."""
    return wire.attribute("response_text", f"It was {CANARY}.")


def common(wire: Wire, person: Person, session_id: str, auth: str, *, headless: bool) -> bytes:
    """Encode what every event of a process begins with; a Google login brings an account."""
    login: Sequence[tuple[str, Value]] = (("user.email", person.email),) if auth == "oauth-personal" else ()
    pairs: Sequence[tuple[str, Value]] = (
        ("session.id", session_id),
        ("installation.id", uuid_of(person.installation)),
        ("interactive", not headless),
        *login,
        ("auth_type", auth),
    )
    return wire.between.join([wire.attribute(key, value) for key, value in pairs])


def resource(wire: Wire, told: Sequence[tuple[str, str]], session_id: str, pid: int, *, headless: bool) -> bytes:
    """Encode the resource; the command line holds the prompt."""
    host, *others = told
    program = "/usr/local/bin/gemini"
    prompt = ("-p", f"Fix {CANARY}, please.", "-y", "--output-format", "json") if headless else ()
    return wire.resource(
        [
            host,
            ("host.arch", "amd64"),
            ("process.pid", pid),
            ("process.executable.name", "node"),
            ("process.executable.path", "/usr/bin/node"),
            ("process.command_args", ("/usr/bin/node", program, *prompt)),
            ("process.runtime.version", "22.11.0"),
            ("process.runtime.name", "nodejs"),
            ("process.runtime.description", "Node.js"),
            ("process.command", program),
            ("process.owner", "dev"),
            *others,
            ("service.name", "gemini-cli"),
            ("service.version", "v22.11.0"),
            ("session.id", session_id),
        ]
    )
