"""The log records of Claude Code 2.1, as recorded from the real client: names, attributes, their types and their order.

A shape is a run of records that always come together. Each comes in `VARIANTS` kinds of content. The numbers of
`api_request` are ints, those of tools and prompts strings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

from tallystream.simulator.model import CANARY
from tallystream.simulator.population import Person, uuid_of
from tallystream.simulator.wire import (
    COMMON,
    EXTRA,
    ISO,
    MARK,
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

VERSION = "2.1.330"
EVENTS = WireScope("com.anthropic.claude_code.events", VERSION)
VARIANTS = 4
SUBAGENT = "agent:builtin:general-purpose"
"""The `query_source` of what a subagent asks."""
# What fills the holes of a shape, in this order.
PROMPT, REQUEST, TOOL, MESSAGE, AGENT = (
    Hole(EXTRA, 36), Hole(EXTRA + 1, 28), Hole(EXTRA + 2, 28), Hole(EXTRA + 3, 36), Hole(EXTRA + 4, 17),
)  # fmt: skip

Pairs = tuple[Pair, ...]
Event = tuple[str, Pairs]
"""Its name and what follows `event.sequence`."""
_PROMPTED: Pairs = (("prompt.id", PROMPT),)


@dataclass(frozen=True)
class ClaudeRecordKind:
    """What the records of a process differ in, beside ids."""

    model: str
    source: str
    """`query_source`: what in the client asks."""
    shown: bool
    """Whether the user lets prompts, answers and tools be logged."""
    traced: bool
    """Whether there are spans, so that records name them."""


def _start(variant: int, _: ClaudeRecordKind) -> Sequence[Event]:
    settings: Pairs = (
        ("managed_settings.trigger", "startup"),
        ("managed_settings.sources", ("policy",) if variant == 3 else ()),
        ("managed_settings.source_behavior", "first-wins"),
        ("managed_settings.helper.state", "none"),
        ("managed_settings.helper.applied", "none"),
    )
    return ("managed_settings_resolved", settings), *(_plugin(name) for name in ("review", "metrics", "secrets", "kit"))


def _plugin(name: str) -> Event:
    pairs: Pairs = (
        ("plugin.name", f"house-{name}"),
        ("marketplace.name", "builtin"),
        ("plugin.scope", "default-bundle"),
        ("enabled_via", "default-enable"),
        ("plugin_id_hash", uuid_of(name).replace("-", "")[:16]),
        ("has_hooks", name != "kit"),
        ("has_mcp", False),
        ("host_owned_mcp", False),
        ("skill_path_count", 0),
        ("command_path_count", len(name) % 3),
        ("agent_path_count", 0),
        ("safe_mode", "false"),
    )
    return "plugin_loaded", pairs


def _prompt(variant: int, kind: ClaudeRecordKind) -> Sequence[Event]:
    text = f"Fix {CANARY}, please: {'lorem ipsum ' * 9 * variant}"
    said = text if kind.shown else "<REDACTED>"
    return (
        ("user_prompt", (*_PROMPTED, ("prompt_length", str(len(text))), ("prompt", said), ("prompt_text", said),
                         ("message.uuid", MESSAGE))),
    )  # fmt: skip


def _tool(variant: int, kind: ClaudeRecordKind) -> tuple[str, str, Pairs]:
    """Return a tool's name, its input, and what tells of it when the user lets it."""
    name = ("Bash", "Edit", "Grep", "Bash")[variant]
    given = f'{{"command":"grep -rn {CANARY} src | head -{variant + 1}","description":"Look for it"}}'
    told = f'{{"bash_command":"grep","full_command":"grep -rn {CANARY} src","description":"Look for it"}}'
    return name, given, (("tool_parameters", told),) if kind.shown else ()


def _call(variant: int, kind: ClaudeRecordKind) -> Sequence[Event]:
    name, _, told = _tool(variant, kind)
    pairs: Pairs = (
        ("decision", "accept"),
        ("source", "config"),
        ("tool_name", name),
        ("tool_use_id", TOOL),
        ("tool_source", "builtin"),
        *told,
        ("permission_mode", "acceptEdits"),
        ("request_id", REQUEST),
    )
    return (("tool_decision", (*_PROMPTED, *pairs)),)


def _called(variant: int, kind: ClaudeRecordKind) -> Sequence[Event]:
    name, given, told = _tool(variant, kind)
    pairs: Pairs = (
        ("tool_name", name),
        ("tool_use_id", TOOL),
        ("success", "false" if variant == 2 else "true"),
        ("duration_ms", str(19 + 50 * variant)),
        *told,
        *((("tool_input", given),) if kind.shown else ()),
        ("tool_input_size_bytes", str(len(given))),
        ("tool_result_size_bytes", str(211 * variant)),
        ("request_id", REQUEST),
    )
    return (("tool_result", (*_PROMPTED, *pairs)),)


def _said(variant: int, kind: ClaudeRecordKind) -> Sequence[Event]:
    text = f"It was {CANARY}. " * (variant + 1)
    pairs: Pairs = (
        ("response_length", len(text)),
        ("response", text if kind.shown else "<REDACTED>"),
        ("request_id", REQUEST),
        ("message.uuid", MESSAGE),
        ("model", kind.model),
        ("query_source", kind.source),
        *((("agent_id", AGENT),) if kind.source == SUBAGENT else ()),
    )
    return (("assistant_response", (*_PROMPTED, *pairs)),)


def _joined(variant: int, kind: ClaudeRecordKind) -> Sequence[Event]:
    """Return what a subagent's end says: a sum of tokens that were all reported before."""
    pairs: Pairs = (
        ("agent_type", "general-purpose"),
        ("agent.source", "built-in"),
        ("is_built_in", True),
        ("is_async", True),
        ("total_tokens", 24_680 + variant),
        ("total_tool_uses", variant),
        ("duration_ms", 2_100 + variant),
        ("model", kind.model),
        ("final_model", kind.model),
        ("model_swapped", False),
        ("agent_id", AGENT),
    )
    return (("subagent_completed", (*_PROMPTED, *pairs)),)


def _swept(_: int, __: ClaudeRecordKind) -> Sequence[Event]:
    counted = ("transcripts_deleted", "transcripts_exempted_desktop", "session_files_deleted", "artifacts_deleted")
    pairs: Pairs = (
        ("result", "complete"),
        ("period_days", "30"),
        ("used_default", "true"),
        *((name, "0") for name in counted),
        ("files_retained_fresh", "17"),
        ("files_past_cutoff", "0"),
        ("error_count", "0"),
        ("history_entries_pruned", "0"),
    )
    return (("retention_sweep", (*_PROMPTED, *pairs)),)


_SHAPES: dict[str, Callable[[int, ClaudeRecordKind], Sequence[Event]]] = {
    "start": _start,
    "prompt": _prompt,
    "call": _call,
    "called": _called,
    "said": _said,
    "joined": _joined,
    "swept": _swept,
}


def _record(wire: Wire, name: str, own: Sequence[Pair | WirePart], *, traced: bool) -> WireRecord:
    """Return an event: what all have, its name, time and number, then its own attributes."""
    head: Sequence[Pair | WirePart] = (
        hole(COMMON),
        ("event.name", name),
        ("event.timestamp", Hole(ISO, 24)),
        hole(MARK),
    )
    return WireRecord(wire.attributes([*head, *own]), traced, body=f"claude_code.{name}")


@cache
def template(wire: Wire, shape: str, variant: int, kind: ClaudeRecordKind) -> Template:
    """Return the shape's template. Records from the client's start have no span yet."""
    return wire.template(
        [
            _record(wire, name, own, traced=kind.traced and shape != "start")
            for name, own in _SHAPES[shape](variant, kind)
        ]
    )


@cache
def token_template(wire: Wire, traced: bool) -> Template:
    """Return the template of the record that carries tokens, whose own attributes are its extra."""
    return wire.template([_record(wire, "api_request", (hole(EXTRA),), traced=traced)])


def common(
    wire: Wire, person: Person, session_id: str, told: Sequence[tuple[str, str]], terminal: str, *, login: bool
) -> bytes:
    """Encode what every event of a process begins with: what the user set for the process, then who and where."""
    account: Sequence[tuple[str, Value]] = (
        ("organization.id", uuid_of("organization")),
        ("user.email", person.email),
        ("user.account_uuid", uuid_of(person.account)),
        ("user.account_id", person.account),
    )
    pairs: Sequence[tuple[str, Value]] = (
        *told,
        ("user.id", person.installation),
        ("session.id", session_id),
        *(account if login else ()),
        ("anthropic.provider", "firstParty"),
        ("anthropic.custom_base_url", False),
        ("terminal.type", terminal),
    )
    return wire.between.join([wire.attribute(key, value) for key, value in pairs])


def resource(wire: Wire, told: Sequence[tuple[str, str]]) -> bytes:
    """Encode the resource."""
    own = (("host.arch", "amd64"), ("os.type", "linux"), ("os.version", "6.12.9"), ("service.name", "claude-code"))
    return wire.resource([*told, *own, ("service.version", VERSION)])
