"""Finds which session started which: the spawn tool's result in the parent's logs names the session it started, and in
its traces the session's spans are below the span of the tool.

Measured: Codex 0.169.0. A subagent gets a conversation of its own, and none of its records names the parent. But the
parent's `codex.tool_result` of the tool `spawn_agent` has an output whose `agent_id` is the child's `conversation.id`,
also when prompts are redacted. Only that id is read; the rest of the output is content. In traces the tool's span names
the parent, and the spans of the child below it the child; this also links a child whose parent sends no logs. A link is
found when both spans are in one body, as they are when the exporter sends them together.

The other clients need no link: Claude Code, Gemini CLI, Qwen Code and Copilot give a subagent its parent's session, and
for GenAI spans the outermost span's session is taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from tallystream.schemas.clients.base import session_of
from tallystream.schemas.clients.codex import CODEX
from tallystream.schemas.clients.registry import select
from tallystream.schemas.otlp import LIMITS, Encoding, Limits, LogRecord, json_spans, protobuf_spans, read_logs
from tallystream.schemas.otlp.records import RecordHint
from tallystream.schemas.otlp.spans import BrokenSpan, Hint
from tallystream.schemas.usage import MAX_SESSION_BYTES

TOOL: Final = "spawn_agent"
MARK: Final = TOOL.encode()
HINT: Final = RecordHint(MARK, re.compile(re.escape(MARK)), re.compile("tool_name"), "tool_name", ("tool_name",))
MAX_LINKS: Final = 256
"""Maximum number of links taken from one body; a real session starts a handful of agents."""
_STARTED: Final = re.compile(
    r'"(?:agent_id|thread_id|conversation_id)"\s*:\s*"([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})"', re.ASCII
)
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.ASCII)
_SpanKey = tuple[str, str]
"""Trace and span id."""
_SEARCHED: Final = 4096
"""Characters of a tool's output that are searched; Codex writes the id first."""
_RARE: Final = b"w"
"""The byte of the tool's name that bodies have least of."""
_RARE_PLACE: Final = MARK.index(_RARE)
_LOOKS: Final = 32
_SPARSE: Final = 2_048
"""The byte is looked at so many times, and once more for so many bytes of a body; then the text is searched."""


_SPAN_HINT: Final = Hint(re.compile(rb"conversation\.id"), re.compile(r"^conversation\.id$", re.MULTILINE))
MAX_SPANS: Final = 16_384
"""Maximum number of spans of a body that are remembered with their place; further ones are left out."""
MAX_DEPTH: Final = 256
"""Maximum number of ancestors that are visited. A deeper trace may contain a cycle."""


class FoundLink(NamedTuple):
    """`parent` started `session`."""

    session: str
    parent: str


def mentions_tool(body: bytes) -> bool:
    """Whether the tool's name is anywhere in a body, content included.

    CPython finds a single byte ten times as fast as a text, and a request of Codex has this one a few times in 10 kB. A
    body that has it often is searched for the text.
    """
    at = body.find(_RARE)
    for _ in range(_LOOKS + len(body) // _SPARSE):
        if at < 0:
            return False
        if body.startswith(MARK, max(0, at - _RARE_PLACE)):
            return True
        at = body.find(_RARE, at + 1)
    return at >= 0 and body.find(MARK, max(0, at - _RARE_PLACE)) >= 0


def session_links(body: bytes, encoding: Encoding, limits: Limits = LIMITS) -> list[FoundLink]:
    """Return the links that a logs request tells, each once.

    A body without the tool's name, which is nearly every body, costs one search.

    Raises:
        InvalidBodyError: it is not a logs request, or exceeds a limit.

    """
    if not mentions_tool(body):
        return []
    found: dict[FoundLink, None] = {}
    for record in read_logs(body, encoding, limits, HINT).candidates:
        if isinstance(record, LogRecord) and (link := _link(record)) is not None and len(found) < MAX_LINKS:
            found[link] = None
    return list(found)


def span_links(body: bytes, encoding: Encoding, limits: Limits = LIMITS) -> list[FoundLink]:
    """Return the links that a traces request tells, each once.

    A body without the tool's name, which is nearly every body, costs one search.

    Raises:
        InvalidBodyError: it is not a traces request, or exceeds a limit.

    """
    if not mentions_tool(body):
        return []
    above: dict[_SpanKey, _SpanKey] = {}
    spawns: dict[_SpanKey, str] = {}
    named: list[tuple[_SpanKey, str]] = []
    read_spans = json_spans.read_spans if encoding is Encoding.JSON else protobuf_spans.read_spans
    for span in read_spans(body, _SPAN_HINT, limits).spans:
        if isinstance(span, BrokenSpan) or not span.is_identified or len(above) >= MAX_SPANS:
            continue
        key = span.trace_id, span.span_id
        above[key] = span.trace_id, span.parent_id
        session = None if span.attributes is None else span.attributes.get("conversation.id")
        if not isinstance(session, str) or not span.scope.startswith("codex") or not _UUID.fullmatch(session):
            continue
        tool = span.attributes.get("tool_name") if span.attributes is not None else None
        if isinstance(tool, str) and tool.endswith(TOOL):
            spawns[key] = session
        named.append((key, session))
    found: dict[FoundLink, None] = {}
    for key, session in named:
        parent = spawns.get(_spawn_above(key, above, spawns), session)
        if parent != session and len(found) < MAX_LINKS:
            found[FoundLink(session, parent)] = None
    return list(found)


def _spawn_above(key: _SpanKey, above: Mapping[_SpanKey, _SpanKey], spawns: Mapping[_SpanKey, str]) -> _SpanKey:
    """Return the nearest span of the spawn tool above a span; a span that is not known when there is none."""
    for _ in range(MAX_DEPTH):
        key = above.get(key, ("", ""))
        if key in spawns or key not in above:
            break
    return key


def _link(record: LogRecord) -> FoundLink | None:
    tool, output = record.attributes.get("tool_name"), record.attributes.get("output")
    if not isinstance(tool, str) or tool.rpartition(".")[2] != TOOL or not isinstance(output, str):
        return None
    parent = session_of(record, "conversation.id", "conversation_id")
    started = _STARTED.search(output[:_SEARCHED])
    if started is None or not parent or select(record) is not CODEX or len(parent.encode()) > MAX_SESSION_BYTES:
        return None
    return FoundLink(started[1], parent) if started[1] != parent else None
