"""What every client's normaliser is: a pure function from a log record to one billed response, and its tables.

To add a client: a module like `codex.py`, and its place in `registry.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final

import orjson

from tallystream.schemas.errors import InvalidRecordError, Reason
from tallystream.schemas.otlp.records import OPAQUE, LogRecord, Value
from tallystream.schemas.usage import Client

RESOURCE_FIELDS: Final = ("service.name", "service.version")
"""What a dead letter says of the resource, beside whose cost it is."""

MAX_TEXT_BYTES: Final = 256
"""UTF-8 bytes of any text we keep; longer ones are cut, always at the same place."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"[0-9]{9,20}(?:\.[0-9]{1,9})?", re.ASCII)
_OUR_NAME: Final = re.compile(r"(?:codex|claude_code|gemini_cli)\.[a-z0-9_.]{1,64}", re.ASCII)
_PLACEHOLDER: Final = re.compile(
    r"(?:req(?:uest)?[_.:-]?)?(?:id[_.:-]?)?"
    r"(?:|[0f]+(?:-[0f]+)*|[x*._?#-]+|unknown|undefined|none|null|nil|nan|n/?a|empty|missing|redacted|default|test|todo"
    r"|placeholder|object object|true|false"
    r"|(?:no|not)[ _-]?(?:set|available|provided|applicable|id|request[ _-]?id|found))",
    re.ASCII,
)
"""What stands where an id should: all zeros, `unknown`, `<nil>`, `[object Object]`, `req_unknown`."""
_EARLIEST: Final = 1_577_836_800
_LATEST: Final = 3_471_292_800
"""Seconds, 2020-01-01 and 2080-01-01: no agent we know is older, and no clock that tells a later time is right. What
is told in seconds, milliseconds or microseconds, or since another epoch, lies far outside of it."""
_NS: Final = 1_000_000_000
_UNITS: Final = (1, 1_000, 1_000_000, _NS)
"""Nanoseconds in what a time may have been told in by mistake."""
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
    agent: str | None = None
    """Which agent of the session the response was for; None for the session's own."""
    provider: str | None = None
    """Whose prices apply, where that is not always the normaliser's `provider`."""


@dataclass(frozen=True, slots=True)
class Normaliser:
    """A client's rules."""

    client: Client
    provider: str
    """Whose prices apply."""
    event: str
    """The one event that costs, as the client writes it."""
    prefix: str
    """What the client's events are called, or what a pipeline calls them: `codex.`."""
    scopes: tuple[str, ...]
    """What the names of its instrumentation scopes begin with."""
    services: tuple[str, ...]
    """What its `service.name` begins with, when nobody changed it."""
    signature: frozenset[str]
    """Attributes that together only `event` has: they name it where a pipeline dropped its name."""
    normalise: Callable[[LogRecord], Usage | None]
    """Return the usage, or None when the record costs nothing. Raises InvalidRecordError when it cannot be counted."""
    user: Callable[[LogRecord], str | None]
    """Whom the client itself says it works for."""
    repeats: frozenset[str]
    """Events that carry token counts which `event` already has, or that are no usage at all."""
    fields: tuple[str, ...]
    """Attributes a dead letter may keep: what the rules read, never content and never a user."""


def first(record: LogRecord, *names: str) -> Value:
    """Return the first of these attributes that is there."""
    for name in names:
        value = record.attributes.get(name)
        if value is not None:
            return value
    return None


def session_of(record: LogRecord, *names: str) -> str:
    """Return the session's id as the client wrote it; empty when it named none."""
    value = first(record, *names)
    return value if isinstance(value, str) else ""


def known(value: Value) -> str | None:
    """Return an id as bounded text, None when it is a placeholder, which stands for any number of things."""
    found = text(value)
    if found is None or _PLACEHOLDER.fullmatch(found.strip("<>[](){}\"'` ").casefold()):
        return None
    return found


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
        InvalidRecordError: it is negative, 2**53 or more, or no whole number. A double that is whole is one: some
            pipelines make that of integers.

    """
    value = record.attributes.get(name)
    if value is None:
        return 0
    if (type(value) is str and value.isascii() and value.isdigit() and len(value) <= 20) or (
        type(value) is float and value.is_integer()
    ):
        value = int(value)
    if type(value) is not int or not 0 <= value < 2**53:
        raise InvalidRecordError(
            Reason.INVALID_COUNTS, f"{name} is {shown(value)}, not a whole number from 0 to 2**53 - 1"
        )
    return value


def side_count(record: LogRecord, name: str) -> int | None:
    """Return a count that only breaks down another one, None when it is no count: that costs nobody the other."""
    try:
        return count(record, name)
    except InvalidRecordError:
        return None


def shown(value: Value) -> str:
    """Return a value for a message."""
    return repr(bounded(value)[:40] if isinstance(value, str) else value)


def occurred_at(record: LogRecord) -> int:
    """Return the event time in ns: the record's time, else `event.timestamp`, else when it was observed.

    A time that cannot be (see `_EARLIEST`) is passed over. Where none of them can be, one that was told in another
    unit than nanoseconds is taken for what it must mean.

    Raises:
        InvalidRecordError: it has no time; our own clock is never used instead.

    """
    told = (record.time_ns, _timestamp(first(record, "event.timestamp", "event_timestamp")), record.observed_ns)
    for at in told:
        if _possible(at):
            return at
    for at in told:
        for unit in _UNITS[1:]:
            if _possible(at * unit):
                return at * unit
    if not any(told):
        raise InvalidRecordError(
            Reason.NO_TIME, "the record has no timeUnixNano, event.timestamp or observedTimeUnixNano"
        )
    raise InvalidRecordError(Reason.NO_TIME, f"the record's time, {next(filter(None, told))} ns, is no time")


def _possible(at_ns: int) -> bool:
    return _EARLIEST * _NS <= at_ns < _LATEST * _NS


def _timestamp(value: Value) -> int:
    """Return an ISO 8601 time in ns since the epoch (UTC when it names no zone), 0 when it is none.

    A number is one too, as some pipelines write it; in whatever unit puts it into our century.
    """
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return next((ns for unit in _UNITS if _possible(ns := int(value * unit))), 0)
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
    """Return the allow-listed part of a record for a dead letter: enough to normalise it again."""
    found: dict[str, Any] = {}
    for name in fields:
        value = record.attributes.get(name)
        if value is not None and value != OPAQUE:
            found[name] = plain(value)
    found["event.name"] = bounded(record.event_name)
    # a body is content, unless it is a name that a client of ours writes there
    hint = next((name for name in record.hints if _OUR_NAME.fullmatch(name)), None)
    if hint is not None and not record.event_name:
        found["event.hint"] = hint
    if record.scope:
        found["scope.name"] = bounded(record.scope)
    for name in RESOURCE_FIELDS:
        if (shown := text(record.resource.get(name))) is not None:
            found[name] = shown
    if record.trace_id:
        found["traceId"] = bounded(record.trace_id)
    found["timeUnixNano"] = record.time_ns
    found["observedTimeUnixNano"] = record.observed_ns
    return found


def plain(value: Value) -> str | int | float | bool | None:
    """Return a value as JSON can write it, text bounded."""
    if isinstance(value, str):
        return bounded(value)
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return None if value is None else repr(value)
