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
    counted,
    identity,
    model_of,
    nothing_counted,
    session_of,
    side_counted,
    text,
    time_of,
)
from tallystream.schemas.clients.payer import Payer, payer
from tallystream.schemas.otlp.records import LogRecord

EVENT = "codex.sse_event"
_READ = (
    "input_token_count",
    "output_token_count",
    "cached_token_count",
    "cache_write_token_count",
    "reasoning_token_count",
    "conversation.id",
    "model",
    "service_tier",
    "event.timestamp",
    "event_timestamp",
    "tool_token_count",
    "duration_ms",
    "ttft_ms",
    "turn.id",
    "agent_name",
    "originator",
    "user.email",
    "user.account_id",
    "auth_mode",
)
"""The attributes that `normalise` reads, all in one call."""


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
    (
        input_tokens, output_tokens, cached_tokens, written_tokens, reasoning_tokens, conversation, named, tier,
        timestamp, other_timestamp, total, duration, ttft, turn, agent_name, originator, email, account, mode,
    ) = record.attributes.values_of(_READ)  # fmt: skip
    if input_tokens is None:
        return None
    whole = counted(input_tokens, "input_token_count")
    output = counted(output_tokens, "output_token_count")
    # parts of the two totals: a part that is not a count, or exceeds its total, does not make the total wrong
    cached = side_counted(cached_tokens, "cached_token_count")
    written = side_counted(written_tokens, "cache_write_token_count")
    told = side_counted(reasoning_tokens, "reasoning_token_count")
    if not (whole or output):
        nothing_counted(cached=cached, written=written, reasoning=told)
        return None
    read = min(cached or 0, whole)
    fresh_write = min(written or 0, whole - read)
    reasoning = min(told or 0, output)
    session = conversation if isinstance(conversation, str) else ""
    if not session:
        session = session_of(record, "conversation.id", "conversation_id")
    model = text(named) or model_of(record, "model", "slug")
    event: dict[str, Any] = {
        "event_id": identity(
            "codex",
            session,
            record.time_ns,
            record.observed_ns,
            text(timestamp),
            model,
            whole,
            cached,
            written,
            output,
            told,
            text(total),
            text(duration),
            text(ttft),
            text(turn),
            record.trace_id,
        ),
        "occurred_at": time_of(record, other_timestamp if timestamp is None else timestamp),
        "model": model,
        "input_uncached": whole - read - fresh_write,
        "cache_read": read,
        "cache_write_5m": fresh_write,
        "cache_write_1h": 0,
        "output": output,
        "reasoning": reasoning,
        "tool": 0,
    }
    if tier is not None and (service := text(tier)):
        event["service_tier"] = service
    if read != cached or fresh_write != written or reasoning != told:
        event["inconsistent"] = True
    agent = text(agent_name) or text(originator)
    return Usage(session, event, text(email) or text(account), agent, payer=payer(mode, account))


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
