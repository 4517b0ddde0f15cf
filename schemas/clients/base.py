"""The interface of a client's normaliser: a pure function from a log record to one billed response, and its tables.

To add a client, write a module like `codex.py` and register it in `registry.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final

import orjson

from tallystream.schemas.clients.payer import NOBODY, Payer
from tallystream.schemas.errors import InvalidRecordError, Reason
from tallystream.schemas.money import reported_pico, to_usd
from tallystream.schemas.otlp.numbers import whole_number
from tallystream.schemas.otlp.records import OPAQUE, LogRecord, Value
from tallystream.schemas.otlp.times import EARLIEST, LATEST, NS, read_time
from tallystream.schemas.usage import Client

RESOURCE_FIELDS: Final = ("service.name", "service.version")
"""Resource attributes that a dead letter keeps, besides the attribution."""

_INHERITED: Final = ("session.id", "conversation.id", "model")
"""Fields that `session_of` and `model_of` also read from the resource."""

MAX_TEXT_BYTES: Final = 256
"""Maximum UTF-8 bytes of any text we keep; longer texts are cut, always at the same place."""

_SURELY_SHORT: Final = MAX_TEXT_BYTES // 4
"""A text of so many characters has at most MAX_TEXT_BYTES."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OUR_NAME: Final = re.compile(r"(?:codex|claude_code|gemini_cli)\.[a-z0-9_.]{1,64}", re.ASCII)
_SAFE_DIGITS: Final = 16
"""A number with fewer digits is below 2**53."""
_LONGEST_COUNT: Final = 40
_EARLIEST_NS: Final = EARLIEST * NS
_LATEST_NS: Final = LATEST * NS
_UTC: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}", re.ASCII)
"""The form in which all known clients write a time, without the fraction and the Z after it."""
_LONGEST_UTC: Final = 30
"""Length of such a time in nanoseconds."""


@dataclass(slots=True)
class Usage:
    """One billed model response, as a normaliser returns it. Never changed; frozen would make creating it three times
    as slow.
    """

    session_id: str
    """As the client wrote it; empty when it did not send one."""
    event: dict[str, Any]
    """A UsageEvent as a plain dict, without None values."""
    user: str | None
    """The user that the client itself reports."""
    agent: str | None = None
    """The agent of the session that asked for the response; None for the session's main agent."""
    provider: str | None = None
    """The provider whose prices apply, when it may differ from the normaliser's `provider`."""
    payer: Payer = NOBODY


@dataclass(frozen=True, slots=True)
class Normaliser:
    """The rules for one client."""

    client: Client
    provider: str
    """Whose prices apply."""
    event: str
    """The one event that costs, as the client writes it."""
    prefix: str
    """The prefix of the client's event names, which clients or pipelines add: `codex.`."""
    scopes: tuple[str, ...]
    """Prefixes of the names of its instrumentation scopes."""
    services: tuple[str, ...]
    """Prefixes of its `service.name`, when nobody changed it."""
    signature: frozenset[str]
    """Attributes that only `event` has in combination: they identify it when a pipeline dropped its name."""
    normalise: Callable[[LogRecord], Usage | None]
    """Return the usage, or None when the record costs nothing. Raises InvalidRecordError when it cannot be counted."""
    user: Callable[[LogRecord], str | None]
    """The user that the client itself reports."""
    payer: Callable[[LogRecord], Payer]
    """How the request is paid, as far as the client reports it."""
    repeats: frozenset[str]
    """Events whose token counts are already in `event`, or are not usage at all."""
    fields: tuple[str, ...]
    """Attributes that a dead letter may keep: those the rules read, never content and never a user."""


def first(record: LogRecord, *names: str) -> Value:
    """Return the first of these attributes that is present."""
    for name in names:
        value = record.attributes.get(name)
        if value is not None:
            return value
    return None


def session_of(record: LogRecord, *names: str) -> str:
    """Return the session's id as the client wrote it; empty when it did not send one.

    Pipelines that group records by an attribute move it to the resource, and some turn an id of digits into a number.
    """
    value = first(record, *names)
    if isinstance(value, str) and value:
        return value
    return _id(value) or next((found for name in names if (found := _id(record.resource.get(name)))), "")


def _id(value: Value) -> str:
    """Return an id as text, empty when it is none."""
    if type(value) is float and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    return value if type(value) is str else str(value) if type(value) is int else ""


def model_of(record: LogRecord, *names: str) -> str:
    """Return the model's name, `unknown` when the record and its resource do not name one."""
    for name in names:
        if (found := text(record.attributes.get(name))) is not None:
            return found
    for name in names:
        if (found := text(record.resource.get(name))) is not None:
            return found
    return "unknown"


def text(value: Value) -> str | None:
    """Return a value as bounded text; None when it is absent, blank or not a text."""
    if type(value) is str:
        bare = value.strip()
        return (bare if len(bare) <= _SURELY_SHORT else bounded(bare)) or None
    return str(value) if type(value) is int else None


def bounded(value: str) -> str:
    """Cut text to MAX_TEXT_BYTES of UTF-8, between characters."""
    if len(value) <= _SURELY_SHORT:
        return value
    raw = value.encode()
    return value if len(raw) <= MAX_TEXT_BYTES else raw[:MAX_TEXT_BYTES].decode(errors="ignore")


def count(record: LogRecord, name: str) -> int:
    """Return a record's token count, 0 when it is absent; raises as `counted`."""
    return counted(record.attributes.get(name), name)


def counted(value: Value, name: str) -> int:
    """Return the token count that an attribute of this name has as its value, 0 when it is absent.

    Raises:
        InvalidRecordError: it is negative, 2**53 or more, or not a whole number. A double with a whole value is
            accepted, and so is its text (`12.0`), because some pipelines convert integers to these.

    """
    if value is None:
        return 0
    if type(value) is str and len(value) < _SAFE_DIGITS and value.isascii() and value.isdigit():
        return int(value)
    if type(value) is int and 0 <= value < 2**53:
        return value
    number: Value = value
    if type(value) is str:
        number = whole_number(value.strip()) if len(value) <= _LONGEST_COUNT else None
    elif type(value) is float and value.is_integer():
        number = int(value)
    if type(number) is not int or not 0 <= number < 2**53:
        raise InvalidRecordError(
            Reason.INVALID_COUNTS, f"{name} is {shown(value)}, not a whole number from 0 to 2**53 - 1"
        )
    return number


def side_count(record: LogRecord, name: str) -> int | None:
    """Return a count that only breaks down another one; None when it is invalid, so that the other count is still
    used.
    """
    return side_counted(record.attributes.get(name), name)


def side_counted(value: Value, name: str) -> int | None:
    """Return the count that an attribute has as its value, as `side_count` does."""
    try:
        return counted(value, name)
    except InvalidRecordError:
        return None


def nothing_counted(**parts: int | None) -> None:
    """Accept a record in which every total is 0, which is neither a response nor usage.

    Raises:
        InvalidRecordError: a part of a total is above 0, or is not a count, so no count in the record is sound.

    """
    said = ", ".join(f"{name} {'invalid' if value is None else value}" for name, value in parts.items() if value != 0)
    if said:
        raise InvalidRecordError(Reason.INVALID_COUNTS, f"every total is 0, but its parts are not: {said}")


def shown(value: Value) -> str:
    """Return a value as an error message shows it."""
    if value is OPAQUE:
        return "a list, a map or bytes"
    return repr(bounded(value)[:40] if isinstance(value, str) else value)


def occurred_at(record: LogRecord) -> int:
    """Return the event time in ns; `event.timestamp` is the record's own. See `time_of`."""
    return time_of(record, None if _possible(record.time_ns) else first(record, "event.timestamp", "event_timestamp"))


def time_of(record: LogRecord, stamp: Value) -> int:
    """Return the event time in ns: the record's time, else `event.timestamp`, else the observed time.

    Implausible times (see `EARLIEST`) are skipped. When all are implausible, a value that makes sense in another unit
    than nanoseconds is read in that unit.

    Raises:
        InvalidRecordError: it has no time; our own clock is never used instead.

    """
    if _possible(record.time_ns):
        return record.time_ns
    shown_at = _timestamp(stamp)
    if _possible(shown_at):
        return shown_at
    if _possible(record.observed_ns):
        return record.observed_ns
    told = (record.time_ns, shown_at, record.observed_ns)
    for at in told:
        if at and (found := read_time(at)):
            return found
    if not any(told) and stamp is None:
        raise InvalidRecordError(
            Reason.NO_TIME, "the record has no timeUnixNano, event.timestamp or observedTimeUnixNano that can be read"
        )
    raise InvalidRecordError(
        Reason.NO_TIME,
        f"the record's time, {next((f'{at} ns' for at in told if at), shown(stamp))}, is not between 2020 and 2080",
    )


def _possible(at_ns: int) -> bool:
    return _EARLIEST_NS <= at_ns < _LATEST_NS


@lru_cache(maxsize=1_024)
def _second(text: str) -> int | None:
    """Return `2026-07-01T12:00:00` (UTC) in seconds since the epoch, None when it is not written like this; the events
    of a second share one reading.

    Raises:
        ValueError: it is not a time.

    """
    if not _UTC.fullmatch(text):
        return None
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)


def _timestamp(value: Value) -> int:
    """Return a time in ns since the epoch; 0 when it is not a time."""
    if type(value) is str and len(value) <= _LONGEST_UTC and value[19:20] == "." and value[-1] == "Z":
        fraction = value[20:-1]
        if fraction.isascii() and fraction.isdigit():
            try:
                second = _second(value[:19])
            except ValueError:
                return 0
            if second is not None:
                return max(0, second * NS + int(fraction.ljust(9, "0")))
    return read_time(value)


def reported_usd(value: Value) -> str | None:
    """Return a client's own estimate as a decimal string; None when it is not an amount below MAX_USD."""
    if type(value) is str:
        found = value.strip()
    elif type(value) is int or type(value) is float:
        found = repr(value)
    else:
        return None
    try:
        return to_usd(reported_pico(found))
    except ValueError:
        return None


def identity(*parts: Value) -> str:
    """Return the 64-bit identity of an event as 16 hex digits.

    The inputs and their order must never change: otherwise the same event would get a second identity and count twice.
    """
    return blake2b(orjson.dumps(parts), digest_size=8).hexdigest()


def kept(record: LogRecord, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the allow-listed part of a record for a dead letter, which is enough to normalise it again."""
    found: dict[str, Any] = {}
    for name in fields:
        # under the name that it has, so that it is normalised again as it was
        for spelled in (name, name.replace(".", "_")):
            value = record.attributes.get(spelled)
            if value is not None and value != OPAQUE:
                found[spelled] = plain(value)
                break
    found["event.name"] = bounded(record.event_name)
    # a body is content, unless it is an event name that a known client writes there
    hint = next((name for name in record.hints if _OUR_NAME.fullmatch(name)), None)
    if hint is not None and not record.event_name:
        found["event.hint"] = hint
    for name in _INHERITED:
        if name in fields and (inherited := _id(record.resource.get(name))):
            found.setdefault(name, bounded(inherited))
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
    """Return a value that JSON can represent, with bounded text."""
    if isinstance(value, str):
        return bounded(value)
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return None if value is None else repr(value)
