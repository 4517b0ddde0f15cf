"""Codex CLI (measured: 0.80.0 and 0.169.0).

- Each response produces one `codex.sse_event` with counts, and over HTTP a second one without; the warm-up of a
  WebSocket produces one whose counts are all 0. Only an event with `input_token_count` and some count above 0 is a
  response.
- Counts come as strings or ints. Input includes cached and cache_write, output includes reasoning.
- `tool_token_count` is, despite its name, the response's total, so it is not counted.
- Codex sends no response id. All fields that distinguish two records form the identity.
- `codex.turn_cost` is an estimate per turn, not per response, and is never added to anything.
"""

from __future__ import annotations

from typing import Any

from tallystream.schemas.clients.base import (
    Normaliser,
    Usage,
    count,
    identity,
    model_of,
    nothing_counted,
    occurred_at,
    session_of,
    side_count,
    text,
)
from tallystream.schemas.clients.payer import Payer, payer
from tallystream.schemas.otlp.records import LogRecord

EVENT = "codex.sse_event"


def user(record: LogRecord) -> str | None:
    """Return the user of the ChatGPT account."""
    return text(record.attributes.get("user.email")) or text(record.attributes.get("user.account_id"))


def payer_of(record: LogRecord) -> Payer:
    """Return the way of logging in and the ChatGPT account."""
    return payer(record.attributes.get("auth_mode"), record.attributes.get("user.account_id"))


def normalise(record: LogRecord) -> Usage | None:
    """Return the response's usage, or None when the event is not a response.

    Raises:
        InvalidRecordError: `invalid_counts` or `no_time`.

    """
    attributes = record.attributes
    if attributes.get("input_token_count") is None:
        return None
    whole = count(record, "input_token_count")
    output = count(record, "output_token_count")
    # parts of the two totals: a part that is not a count, or exceeds its total, does not make the total wrong
    cached = side_count(record, "cached_token_count")
    written = side_count(record, "cache_write_token_count")
    told = side_count(record, "reasoning_token_count")
    if not (whole or output):
        nothing_counted(cached=cached, written=written, reasoning=told)
        return None
    read = min(cached or 0, whole)
    fresh_write = min(written or 0, whole - read)
    reasoning = min(told or 0, output)
    session = session_of(record, "conversation.id", "conversation_id")
    model = model_of(record, "model", "slug")
    tier = text(attributes.get("service_tier"))
    event: dict[str, Any] = {
        "event_id": identity(
            "codex",
            session,
            record.time_ns,
            record.observed_ns,
            text(attributes.get("event.timestamp")),
            model,
            whole,
            cached,
            written,
            output,
            told,
            text(attributes.get("tool_token_count")),
            text(attributes.get("duration_ms")),
            text(attributes.get("ttft_ms")),
            text(attributes.get("turn.id")),
            record.trace_id,
        ),
        "occurred_at": occurred_at(record),
        "model": model,
        "input_uncached": whole - read - fresh_write,
        "cache_read": read,
        "cache_write_5m": fresh_write,
        "cache_write_1h": 0,
        "output": output,
        "reasoning": reasoning,
        "tool": 0,
    }
    if tier:
        event["service_tier"] = tier
    if (read, fresh_write, reasoning) != (cached, written, told):
        event["inconsistent"] = True
    agent = text(attributes.get("agent_name")) or text(attributes.get("originator"))
    return Usage(session, event, user(record), agent, payer=payer_of(record))


CODEX = Normaliser(
    client="codex",
    provider="openai",
    event=EVENT,
    prefix="codex.",
    scopes=("codex_otel",),
    services=("codex",),
    signature=frozenset({"conversation.id", "event.kind", "input_token_count", "output_token_count"}),
    normalise=normalise,
    user=user,
    payer=payer_of,
    repeats=frozenset(),
    fields=(
        "event.kind",
        "event.timestamp",
        "conversation.id",
        "model",
        "slug",
        "service_tier",
        "input_token_count",
        "cached_token_count",
        "cache_write_token_count",
        "output_token_count",
        "reasoning_token_count",
        "tool_token_count",
        "duration_ms",
        "ttft_ms",
        "turn.id",
        "app.version",
        "originator",
        "auth_mode",
    ),
)
