"""Claude Code (measured: 2.1.330).

- The event `api_request` is the one that costs. Input, cache read and cache creation are disjoint, output includes
  thinking.
- Cache creation is split by lifetime (5 minutes, 1 hour); without a split it counts as 5 minutes, the default.
- A refused batch is sent again, so records arrive twice: `request_id` is the identity. `event.sequence` restarts with
  each process and `session.id` outlives it, so neither would work. Without a request id, all fields that distinguish
  two records form the identity.
- It estimates the cost itself; that estimate is reported beside ours.
"""

from __future__ import annotations

import re
from typing import Any

from tallystream.schemas.clients.base import (
    Normaliser,
    Usage,
    count,
    first,
    identity,
    model_of,
    occurred_at,
    reported_usd,
    session_of,
    side_count,
    text,
)
from tallystream.schemas.clients.payer import Payer, payer
from tallystream.schemas.clients.request_ids import known
from tallystream.schemas.otlp.records import LogRecord

EVENT = "api_request"
CLOUDS = ("bedrock", "vertex", "foundry")
"""Values of `anthropic.provider` for Claude's models in a cloud; `firstParty` is Anthropic itself."""
_BEDROCK = re.compile(r"^(?:[a-z]{2,6}\.)?anthropic\.claude")
"""Names of Claude's models on AWS, which only AWS's prices know."""


def user(record: LogRecord) -> str | None:
    """Return the account's user, or the random id of the installation."""
    names = ("user.email", "user.account_uuid", "user.id")
    return next((found for name in names if (found := text(record.attributes.get(name)))), None)


def payer_of(record: LogRecord) -> Payer:
    """Return the organisation or account; a cloud's models are always on its bill. A login to Anthropic may be a
    subscription or a Console account, which Claude Code does not tell.
    """
    attributes = record.attributes
    found = payer(None, attributes.get("organization.id"), attributes.get("user.account_uuid"))
    return found._replace(billing="api") if attributes.get("anthropic.provider") in CLOUDS else found


def normalise(record: LogRecord) -> Usage | None:
    """Return the response's usage, or None when the event is not a response.

    Raises:
        InvalidRecordError: `invalid_counts` or `no_time`.

    """
    attributes = record.attributes
    fresh = count(record, "input_tokens")
    read = count(record, "cache_read_tokens")
    output = count(record, "output_tokens")
    written_5m, written_1h, consistent = _written(record)
    if not (fresh or read or output or written_5m or written_1h):
        return None
    session = session_of(record, "session.id", "session_id")
    model = model_of(record, "model")
    prompt = text(attributes.get("prompt.id"))
    request = known(first(record, "request_id", "request.id"))
    event: dict[str, Any] = {
        "event_id": identity("claude", session, request)
        if request
        else identity(
            "claude",
            session,
            record.time_ns,
            record.observed_ns,
            text(attributes.get("event.timestamp")),
            model,
            fresh,
            read,
            written_5m,
            written_1h,
            output,
            text(attributes.get("duration_ms")),
            text(attributes.get("event.sequence")),
            prompt,
            record.trace_id,
        ),
        "occurred_at": occurred_at(record),
        "model": model,
        "input_uncached": fresh,
        "cache_read": read,
        "cache_write_5m": written_5m,
        "cache_write_1h": written_1h,
        "output": output,
        "reasoning": 0,
        "tool": 0,
    }
    optional = {
        "turn_id": prompt,
        "speed": text(attributes.get("speed")),
        "reported_cost_usd": reported_usd(attributes.get("cost_usd")),
    }
    event |= {name: value for name, value in optional.items() if value is not None}
    if not consistent:
        event["inconsistent"] = True
    provider = "aws" if _BEDROCK.search(model) else None
    return Usage(session, event, user(record), _agent(record), provider, payer_of(record))


def _written(record: LogRecord) -> tuple[int, int, bool]:
    """Return cache creation by lifetime (5 minutes, 1 hour), and whether the record's figures for it add up.

    The total is what counts; a breakdown that exceeds it is ignored.
    """
    if record.attributes.get("cache_creation_tokens") is None:
        return count(record, "cache_creation_5m_tokens"), count(record, "cache_creation_1h_tokens"), True
    whole = count(record, "cache_creation_tokens")
    short = side_count(record, "cache_creation_5m_tokens")
    long = side_count(record, "cache_creation_1h_tokens")
    if short is None or long is None or short + long > whole:
        return whole, 0, False
    return whole - long, long, True


def _agent(record: LogRecord) -> str | None:
    """Return the subagent, else the caller: the session itself, one of its tools, or the SDK."""
    return text(record.attributes.get("agent.name")) or text(record.attributes.get("query_source"))


CLAUDE_CODE = Normaliser(
    client="claude",
    provider="anthropic",
    event=EVENT,
    prefix="claude_code.",
    scopes=("com.anthropic.claude_code",),
    services=("claude-code", "claude_code"),
    signature=frozenset(
        {"session.id", "model", "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens"}
    ),
    normalise=normalise,
    user=user,
    payer=payer_of,
    # the sum of requests that have their own events; the size of a context, which is not usage
    repeats=frozenset({"subagent_completed", "compaction"}),
    fields=(
        "event.timestamp",
        "event.sequence",
        "session.id",
        "prompt.id",
        "request_id",
        "model",
        "speed",
        "query_source",
        "input_tokens",
        "output_tokens",
        "cache_read_tokens",
        "cache_creation_tokens",
        "cache_creation_5m_tokens",
        "cache_creation_1h_tokens",
        "cost_usd",
        "duration_ms",
    ),
)
