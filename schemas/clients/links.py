"""Finds which session started which: the spawn tool's result in the parent's telemetry names the session it started.

Measured: Codex 0.169.0. A subagent gets a conversation of its own, and none of its records names the parent. But the
parent's `codex.tool_result` of the tool `spawn_agent` has an output whose `agent_id` is the child's `conversation.id`,
also when prompts are redacted. Only that id is read; the rest of the output is content.

The other clients need no link: Claude Code, Gemini CLI, Qwen Code and Copilot give a subagent its parent's session, and
for GenAI spans the outermost span's session is taken.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tallystream.schemas.clients.base import session_of
from tallystream.schemas.clients.codex import CODEX
from tallystream.schemas.clients.registry import select
from tallystream.schemas.otlp import LIMITS, Encoding, Limits, LogRecord, read_logs
from tallystream.schemas.otlp.records import RecordHint
from tallystream.schemas.usage import MAX_SESSION_BYTES

TOOL: Final = "spawn_agent"
MARK: Final = TOOL.encode()
HINT: Final = RecordHint(MARK, re.compile(re.escape(MARK)), re.compile("tool_name"))
MAX_LINKS: Final = 256
"""Maximum number of links taken from one body; a real session starts a handful of agents."""
_STARTED: Final = re.compile(
    r'"(?:agent_id|thread_id|conversation_id)"\s*:\s*"([0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})"', re.ASCII
)
_SEARCHED: Final = 4096
"""Characters of a tool's output that are searched; Codex writes the id first."""


class FoundLink(NamedTuple):
    """`parent` started `session`."""

    session: str
    parent: str


def session_links(body: bytes, encoding: Encoding, limits: Limits = LIMITS) -> list[FoundLink]:
    """Return the links that a logs request tells, each once.

    A body without the tool's name, which is nearly every body, costs one search.

    Raises:
        InvalidBodyError: it is not a logs request, or exceeds a limit.

    """
    if MARK not in body:
        return []
    found: dict[FoundLink, None] = {}
    for record in read_logs(body, encoding, limits, HINT).candidates:
        if isinstance(record, LogRecord) and (link := _link(record)) is not None and len(found) < MAX_LINKS:
            found[link] = None
    return list(found)


def _link(record: LogRecord) -> FoundLink | None:
    tool, output = record.attributes.get("tool_name"), record.attributes.get("output")
    if not isinstance(tool, str) or tool.rpartition(".")[2] != TOOL or not isinstance(output, str):
        return None
    parent = session_of(record, "conversation.id", "conversation_id")
    started = _STARTED.search(output[:_SEARCHED])
    if started is None or not parent or select(record) is not CODEX or len(parent.encode()) > MAX_SESSION_BYTES:
        return None
    return FoundLink(started[1], parent) if started[1] != parent else None
