"""What every client's normaliser is: a pure function from a log record to one billed response, and its tables.

To add a client: a module like `codex.py`, and its place in `registry.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import orjson

from tallystream.schemas.errors import InvalidRecordError, Reason
from tallystream.schemas.otlp.records import LogRecord, Value
from tallystream.schemas.usage import Client

MAX_TEXT_BYTES: Final = 256
"""UTF-8 bytes of any text we keep; longer ones are cut, always at the same place."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FRACTION: Final = re.compile(r"\.([0-9]{1,9})[0-9]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Usage:
    """One billed model response, as a normaliser found it."""

    session_id: str
    """As the client wrote it; empty when it named none."""
    event: dict[str, Any]
    """A UsageEvent as a plain dict, None left out."""
    user: str | None
    """Whom the client itself says it works for."""


@dataclass(frozen=True, slots=True)
class Normaliser:
    """A client's rules."""

    client: Client
    provider: str
    """Whose prices apply."""
    event: str
    """The one event that costs."""
    recognises: Callable[[LogRecord], bool]
    """Whether a record of some event is this client's."""
    normalise: Callable[[LogRecord], Usage | None]
    """Return the usage, or None when the record costs nothing. Raises InvalidRecordError when it cannot be counted."""
    repeats: frozenset[str]
    """Events that carry token counts which `event` already has, or that are no usage at all."""
    fields: tuple[str, ...]
    """Attributes a dead letter may keep: what the rules read, never content and never a user."""


def text(value: Value) -> str | None:
    """Return a value as bounded text, None when it is absent, blank or no text."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        return None
    return bounded(value.strip()) or None


def bounded(value: str) -> str:
    """Cut text to MAX_TEXT_BYTES of UTF-8, between characters."""
    if len(value) * 4 <= MAX_TEXT_BYTES:
        return value
    raw = value.encode()
    return value if len(raw) <= MAX_TEXT_BYTES else raw[:MAX_TEXT_BYTES].decode(errors="ignore")


def count(record: LogRecord, name: str) -> int:
    """Return a token count, 0 when it is absent.

    Raises:
        InvalidRecordError: it is negative, 2**53 or more, or no whole number; a float is none, whatever its value.

    """
    value = record.attributes.get(name)
    if value is None:
        return 0
    if type(value) is str and value.isascii() and value.isdigit() and len(value) <= 20:
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**53:
        raise InvalidRecordError(
            Reason.INVALID_COUNTS, f"{name} is {shown(value)}, not a whole number from 0 to 2**53 - 1"
        )
    return value


def shown(value: Value) -> str:
    """Return a value for a message."""
    return repr(bounded(value)[:40] if isinstance(value, str) else value)


def occurred_at(record: LogRecord) -> int:
    """Return the event time in ns: the record's time, else `event.timestamp`, else when it was observed.

    Raises:
        InvalidRecordError: it has none of them; our own clock is never used instead.

    """
    at = record.time_ns or _timestamp(record.attributes.get("event.timestamp")) or record.observed_ns
    if not at:
        raise InvalidRecordError(
            Reason.NO_TIME, "the record has no timeUnixNano, event.timestamp or observedTimeUnixNano"
        )
    if at >= 2**63:
        raise InvalidRecordError(Reason.NO_TIME, f"the record's time, {at} ns, is no time")
    return at


def _timestamp(value: Value) -> int:
    """Return an ISO 8601 time in ns since the epoch (UTC when it names no zone), 0 when it is none."""
    if not isinstance(value, str):
        return 0
    # datetime holds microseconds: the fraction is read apart
    fraction = _FRACTION.search(value)
    whole = value if fraction is None else value[: fraction.start()] + value[fraction.end() :]
    try:
        at = datetime.fromisoformat(whole)
    except ValueError:
        return 0
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    seconds = (at - _EPOCH) // timedelta(seconds=1)
    return max(0, seconds * 1_000_000_000 + (int(fraction[1].ljust(9, "0")) if fraction else 0))


def identity(*parts: Value) -> str:
    """Return the 64-bit identity of an event as 16 hex digits.

    What goes in, and its order, must never change: the same event would get a second identity and count twice.
    """
    return blake2b(orjson.dumps(parts), digest_size=8).hexdigest()


def kept(record: LogRecord, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the allow-listed attributes of a record for a dead letter."""
    found: dict[str, Any] = {}
    for name in fields:
        value = record.attributes.get(name)
        if isinstance(value, str):
            found[name] = bounded(value)
        elif isinstance(value, int | float):
            found[name] = value
    found["event.name"] = bounded(record.event_name)
    found["timeUnixNano"] = record.time_ns
    found["observedTimeUnixNano"] = record.observed_ns
    return found
