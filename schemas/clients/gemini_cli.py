"""Gemini CLI (measured: 0.61.0).

- The event `gemini_cli.api_response` is the one that costs. Input includes cached, thoughts are not included in output,
  and tool tokens are a separate count.
- A refused batch is sent again, and records have no request id, so all fields that distinguish two records form the
  identity. Times are milliseconds, so of two identical parallel calls only duration and prompt id may differ.
- `gen_ai.client.inference.operation.details` repeats the usage under other names.
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

EVENT = "gemini_cli.api_response"


def user(record: LogRecord) -> str | None:
    """Return the user of the Google account."""
    return text(record.attributes.get("user.email"))


def payer_of(record: LogRecord) -> Payer:
    """Return the way of logging in."""
    return payer(record.attributes.get("auth_type"))


def normalise(record: LogRecord) -> Usage | None:
    """Return the response's usage, or None when the event is not a response.

    Raises:
        InvalidRecordError: `invalid_counts` or `no_time`.

    """
    attributes = record.attributes
    whole = count(record, "input_token_count")
    cached = side_count(record, "cached_content_token_count")
    output = count(record, "output_token_count")
    thoughts = count(record, "thoughts_token_count")
    tool = count(record, "tool_token_count")
    if not (whole or output or thoughts or tool):
        nothing_counted(cached=cached)
        return None
    # a part cannot exceed its whole: the whole is billed, so the part is reduced
    read = min(cached or 0, whole)
    session = session_of(record, "session.id", "session_id")
    model = model_of(record, "model")
    prompt = text(attributes.get("prompt_id"))
    event: dict[str, Any] = {
        "event_id": identity(
            "gemini",
            session,
            record.time_ns,
            record.observed_ns,
            text(attributes.get("event.timestamp")),
            model,
            whole,
            cached,
            output,
            thoughts,
            tool,
            text(attributes.get("duration_ms")),
            prompt,
            record.trace_id,
        ),
        "occurred_at": occurred_at(record),
        "model": model,
        "input_uncached": whole - read,
        "cache_read": read,
        "cache_write_5m": 0,
        "cache_write_1h": 0,
        "output": output + thoughts,
        "reasoning": thoughts,
        "tool": tool,
    }
    if prompt is not None:
        event["turn_id"] = prompt
    if read != cached:
        event["inconsistent"] = True
    return Usage(session, event, user(record), text(attributes.get("role")), payer=payer_of(record))


GEMINI_CLI = Normaliser(
    client="gemini",
    provider="google",
    event=EVENT,
    prefix="gemini_cli.",
    scopes=("gemini-cli",),
    services=("gemini-cli",),
    signature=frozenset(
        {"session.id", "input_token_count", "output_token_count", "cached_content_token_count", "thoughts_token_count"}
    ),
    normalise=normalise,
    user=user,
    payer=payer_of,
    repeats=frozenset({"gen_ai.client.inference.operation.details"}),
    fields=(
        "event.timestamp",
        "session.id",
        "prompt_id",
        "model",
        "role",
        "auth_type",
        "input_token_count",
        "cached_content_token_count",
        "output_token_count",
        "thoughts_token_count",
        "tool_token_count",
        "total_token_count",
        "duration_ms",
    ),
)
