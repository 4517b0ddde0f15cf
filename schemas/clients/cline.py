"""Cline (by its source code and documentation, 2026; not recorded, because its exporter needs an account or a build).

- The event `task.tokens` is the one that costs: one for each request of a task. Its name is the record's body.
- `tokensIn` has only what was not cached; `cacheReadTokens` and `cacheWriteTokens` are beside it. Versions before the
  SDK leave these two out, so the cached part of their requests is not counted.
- `task.conversation_turn` repeats the usage in those versions. Subagents do not report any.
- It has no request id, so all fields that distinguish two records form the identity. The session is the task (`ulid`).
- A value that is missing may be written as the text `undefined`.
"""

from __future__ import annotations

from typing import Any

from tallystream.schemas.clients.base import (
    Normaliser,
    Usage,
    count,
    identity,
    occurred_at,
    reported_usd,
    session_of,
    text,
)
from tallystream.schemas.clients.payer import Payer, payer
from tallystream.schemas.clients.providers import provider_of
from tallystream.schemas.otlp.records import LogRecord

EVENT = "task.tokens"
_MISSING = frozenset({"undefined", "null"})


def user(record: LogRecord) -> str | None:
    """Return the user of the Cline account."""
    return _text(record, "user_id")


def payer_of(record: LogRecord) -> Payer:
    """Return the organisation; Cline does not tell how its providers are paid."""
    return payer(None, _text(record, "organization_id"))


def normalise(record: LogRecord) -> Usage | None:
    """Return the request's usage, or None when the event is not a request.

    Raises:
        InvalidRecordError: `invalid_counts` or `no_time`.

    """
    if record.attributes.get("source") is not None:
        return None  # a conversation turn whose name a pipeline dropped: a dead letter, not a second count
    fresh, read, written, output = (
        _count(record, name) for name in ("tokensIn", "cacheReadTokens", "cacheWriteTokens", "tokensOut")
    )
    if not (fresh or read or written or output):
        return None
    session = session_of(record, "ulid")
    provider, model = provider_of(_text(record, "provider"), _text(record, "model") or "unknown")
    agent = _text(record, "agentId")
    event: dict[str, Any] = {
        "event_id": identity(
            "cline", session, record.time_ns, record.observed_ns, model, fresh, read, written, output, agent
        ),
        "occurred_at": occurred_at(record),
        "model": model,
        "input_uncached": fresh,
        "cache_read": read,
        "cache_write_5m": written,
        "cache_write_1h": 0,
        "output": output,
        "reasoning": 0,
        "tool": 0,
    }
    reported = reported_usd(record.attributes.get("totalCost"))
    if reported is not None:
        event["reported_cost_usd"] = reported
    return Usage(session, event, user(record), _text(record, "agentKind"), provider, payer_of(record))


def _count(record: LogRecord, name: str) -> int:
    return 0 if record.attributes.get(name) in _MISSING else count(record, name)


def _text(record: LogRecord, name: str) -> str | None:
    value = text(record.attributes.get(name))
    return None if value in _MISSING else value


CLINE = Normaliser(
    client="cline",
    provider="unknown",
    event=EVENT,
    prefix="cline.",
    scopes=("cline",),
    services=("cline",),
    signature=frozenset({"ulid", "tokensIn", "tokensOut", "model"}),
    normalise=normalise,
    user=user,
    payer=payer_of,
    # the same usage once more, the sum of a task, the speed of a request
    repeats=frozenset({"task.conversation_turn", "task.completed", "task.gemini_api_performance"}),
    fields=(
        "ulid",
        "model",
        "provider",
        "tokensIn",
        "tokensOut",
        "cacheReadTokens",
        "cacheWriteTokens",
        "totalCost",
        "agentId",
        "agentKind",
        "source",
    ),
)
