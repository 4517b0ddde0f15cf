"""Codex CLI (measured: 0.80.0 and 0.169.0).

- Each response gives one `codex.sse_event` with counts, and over HTTP a second one without; a WebSocket's warm-up gives
  one whose counts are all 0. Only an event with `input_token_count` and some count above 0 is a response.
- Counts come as strings or ints. Input includes cached and cache_write, output includes reasoning.
- `tool_token_count` is in truth the response's total: it is not counted.
- Codex sends no response id. Its record's identity is everything that tells two of them apart.
- `codex.turn_cost` is an estimate a turn, not a response, and is never added to anything.
"""

from __future__ import annotations

from tallystream.schemas.clients.base import Normaliser, Usage, count, identity, occurred_at, text
from tallystream.schemas.errors import InvalidRecordError, Reason
from tallystream.schemas.otlp.records import LogRecord

EVENT = "codex.sse_event"


def recognises(record: LogRecord) -> bool:
    """Whether the record is Codex's."""
    return record.event_name.startswith("codex.") or record.scope.startswith("codex_otel")


def normalise(record: LogRecord) -> Usage | None:
    """Return the response's usage, or None when the event is none.

    Raises:
        InvalidRecordError: `invalid_counts` or `no_time`.

    """
    attributes = record.attributes
    if attributes.get("input_token_count") is None:
        return None
    whole = count(record, "input_token_count")
    cached = count(record, "cached_token_count")
    written = count(record, "cache_write_token_count")
    output = count(record, "output_token_count")
    reasoning = count(record, "reasoning_token_count")
    if not (whole or cached or written or output or reasoning):
        return None
    if cached + written > whole:
        raise InvalidRecordError(
            Reason.INVALID_COUNTS, f"cached ({cached}) and cache write ({written}) exceed the input ({whole})"
        )
    if reasoning > output:
        raise InvalidRecordError(Reason.INVALID_COUNTS, f"reasoning ({reasoning}) exceeds the output ({output})")
    session = attributes.get("conversation.id")
    session = session if isinstance(session, str) else ""
    model = text(attributes.get("model")) or text(attributes.get("slug")) or "unknown"
    tier = text(attributes.get("service_tier"))
    event = {
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
            reasoning,
            text(attributes.get("tool_token_count")),
            text(attributes.get("duration_ms")),
            text(attributes.get("ttft_ms")),
            text(attributes.get("turn.id")),
            record.trace_id,
        ),
        "occurred_at": occurred_at(record),
        "model": model,
        "input_uncached": whole - cached - written,
        "cache_read": cached,
        "cache_write_5m": written,
        "cache_write_1h": 0,
        "output": output,
        "reasoning": reasoning,
        "tool": 0,
    }
    if tier:
        event["service_tier"] = tier
    return Usage(session, event, text(attributes.get("user.email")) or text(attributes.get("user.account_id")))


CODEX = Normaliser(
    client="codex",
    provider="openai",
    event=EVENT,
    recognises=recognises,
    normalise=normalise,
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
        "app.version",
        "originator",
    ),
)
