"""Qwen Code (measured: 0.15.10 and 0.24.4), a relative of Gemini CLI.

- The event `qwen-code.api_response` is the one that costs. Input includes cached, and unlike Gemini CLI's, output
  includes thoughts.
- It has the provider's response id. Without one, or with one that a server of local models gives to several responses,
  all fields that distinguish two records form the identity.
- It works with models of any provider, which only the model's name identifies.
- Its spans and metrics repeat the same usage.
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
from tallystream.schemas.clients.providers import provider_of
from tallystream.schemas.clients.request_ids import known, unique_id
from tallystream.schemas.otlp.records import LogRecord

EVENT = "qwen-code.api_response"


def user(record: LogRecord) -> str | None:
    """Return the account's user."""
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
    output = count(record, "output_token_count")
    cached = side_count(record, "cached_content_token_count")
    thoughts = side_count(record, "thoughts_token_count")
    if not (whole or output):
        nothing_counted(cached=cached, thoughts=thoughts)
        return None
    # a part cannot exceed its whole: the whole is billed, so the part is reduced
    read, reasoning = min(cached or 0, whole), min(thoughts or 0, output)
    session = session_of(record, "session.id", "session_id")
    provider, model = provider_of(None, model_of(record, "model"))
    prompt = text(attributes.get("prompt_id"))
    response = attributes.get("response_id")
    unique, named = unique_id(response), known(response)
    event: dict[str, Any] = {
        "event_id": identity("qwen", unique)
        if unique
        else identity(
            "qwen",
            session,
            record.time_ns,
            record.observed_ns,
            text(attributes.get("event.timestamp")),
            model,
            whole,
            cached,
            output,
            thoughts,
            text(attributes.get("duration_ms")),
            prompt,
            record.trace_id,
            *((named,) if named else ()),
        ),
        "occurred_at": occurred_at(record),
        "model": model,
        "input_uncached": whole - read,
        "cache_read": read,
        "cache_write_5m": 0,
        "cache_write_1h": 0,
        "output": output,
        "reasoning": reasoning,
        "tool": 0,
    }
    if prompt is not None:
        event["turn_id"] = prompt
    if (read, reasoning) != (cached, thoughts):
        event["inconsistent"] = True
    return Usage(session, event, user(record), text(attributes.get("subagent_name")), provider, payer_of(record))


QWEN_CODE = Normaliser(
    client="qwen",
    provider="unknown",
    event=EVENT,
    prefix="qwen-code.",
    scopes=("qwen-code",),
    services=("qwen-code",),
    signature=frozenset(
        {
            "session.id",
            "response_id",
            "input_token_count",
            "output_token_count",
            "cached_content_token_count",
            "thoughts_token_count",
        }
    ),
    normalise=normalise,
    user=user,
    payer=payer_of,
    repeats=frozenset({"gen_ai.client.inference.operation.details"}),
    fields=(
        "event.timestamp",
        "session.id",
        "prompt_id",
        "response_id",
        "model",
        "subagent_name",
        "auth_type",
        "input_token_count",
        "output_token_count",
        "cached_content_token_count",
        "thoughts_token_count",
        "total_token_count",
        "duration_ms",
    ),
)
