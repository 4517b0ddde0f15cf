"""Parses a `usage` message to a Batch of plain tuples, with the same checks as the models of `schemas.usage` but much
faster.

Whatever a message contains, `parse` raises only InvalidMessageError. An invalid event does not affect the others of its
message: it is listed in `Batch.bad` by its index. Error details name fields and rules, never a value, because a value
might be content. A property test holds `parse` and `UsageBatch` equal; beyond the models it bounds texts and sizes, so
that no row made of them can outgrow a Kafka message.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, NamedTuple

import orjson

from tallystream.agents.pricing.book import Book
from tallystream.agents.session_cost.errors import InvalidMessageError
from tallystream.schemas import keys
from tallystream.schemas.money import reported_pico
from tallystream.schemas.usage import (
    ATTRIBUTION_KEYS,
    MAX_BYTES,
    MAX_EVENT_TOKENS,
    MAX_EVENTS,
    MAX_SEEN_BY,
    MAX_SESSION_BYTES,
    TOKEN_COUNTS,
    UsageBatch,
    UsageEvent,
)

MAX_TEXT_BYTES = 256
"""UTF-8 bytes of a model, tier, speed or connection id at most."""
MAX_ATTRIBUTION_BYTES = 14 * 1024
"""Bytes of the attribution's JSON at most: eight texts of 256 bytes, each of them escaped, fit."""
Event = tuple[int, int, str, str | None, str | None, int, int, int, int, int, int, int, int | None, int, bool]
"""event_id, occurred_at, model, service_tier, speed, input_uncached, cache_read, cache_write_5m, cache_write_1h,
output, reasoning, tool, reported cost in pico-dollars, index in the message, whether the record contradicts itself."""

_BATCH_KEYS = frozenset(UsageBatch.model_fields)
_EVENT_KEYS = frozenset(UsageEvent.model_fields)
_ATTRIBUTION_KEYS = frozenset(ATTRIBUTION_KEYS)
_ZERO = dict.fromkeys(TOKEN_COUNTS, 0)
MAIN = ("event_id", "occurred_at", "model", *TOKEN_COUNTS)
"""The fields of every event that a gateway writes; others are optional."""
_MAIN = itemgetter(*MAIN)
_MAIN_LENGTH = len(MAIN)
is_id = re.compile("[0-9a-f]{16}").fullmatch


def price(book: Book, provider: str, event: Event) -> int | None:
    """Return what an event costs by a book, in pico-dollars; None when the book cannot price it."""
    return book.price(
        provider,
        event[2],
        event[3],
        event[1],
        event[5] + event[11],  # Gemini bills the prompt tokens of its tools as input
        event[6],
        event[7],
        event[8],
        event[9],
        speed=event[4],
    )


class Head(NamedTuple):
    """All of a message but its events."""

    connection_id: str
    client: str
    provider: str
    session_id: str
    attribution: str
    """Canonical JSON: sorted, without empty values."""
    team: str | None


@dataclass(slots=True)
class ParsedBatch:
    """One session's events from one request."""

    connection_id: str
    client: str
    provider: str
    session_id: str
    attribution: str
    """Canonical JSON: sorted, without empty values."""
    team: str | None
    events: list[Event]
    bad: list[tuple[int, str]]
    """Index and detail of each invalid event."""
    raw: list[Any]
    """The events as they came, by index."""


def parse(key: bytes | None, value: bytes | None) -> ParsedBatch:
    """Parse the batch of a message.

    Raises:
        InvalidMessageError: the message as a whole cannot be counted.

    """
    if value is None or len(value) > MAX_BYTES:
        raise InvalidMessageError("the message is empty" if value is None else f"the message exceeds {MAX_BYTES} bytes")
    try:
        message = orjson.loads(value)
    except orjson.JSONDecodeError:
        raise InvalidMessageError("the message is not JSON") from None
    if type(message) is not dict:
        raise InvalidMessageError("the message is not an object")
    return parse_events(parse_head(key, message), message.get("events"))


def parse_head(key: bytes | None, message: dict[str, Any]) -> Head:
    """Parse all of a message but its events.

    Raises:
        InvalidMessageError: the message as a whole cannot be counted.

    """
    if not message.keys() <= _BATCH_KEYS:
        raise InvalidMessageError("the message has fields that UsageBatch does not have")
    connection, session = _text(message, "connection_id"), _text(message, "session_id", MAX_SESSION_BYTES)
    if not session:
        raise InvalidMessageError("session_id is empty")
    if key != keys.join(connection, session):
        raise InvalidMessageError("the message's key is not connection_id|session_id")
    client, provider = _text(message, "client"), _text(message, "provider")
    attribution, team = _attribution(message.get("attribution", {}))
    return Head(connection, client, provider, session, attribution, team)


def parse_events(head: Head, raw: object) -> ParsedBatch:
    """Parse the events of a message with this head.

    Raises:
        InvalidMessageError: the message as a whole cannot be counted.

    """
    if type(raw) is not list or not 1 <= len(raw) <= MAX_EVENTS:
        raise InvalidMessageError(f"events is not a list of 1 to {MAX_EVENTS}")
    batch = ParsedBatch(*head, [], [], raw)
    _events(raw, batch.events, batch.bad)
    return batch


def _text(message: dict[str, Any], name: str, limit: int = MAX_TEXT_BYTES) -> str:
    value = message.get(name)
    if type(value) is not str:
        raise InvalidMessageError(f"{name} is not a text")
    if _long(value, limit):
        raise InvalidMessageError(f"{name} exceeds {limit} bytes")
    return value


def _long(text: str, limit: int = MAX_TEXT_BYTES) -> bool:
    return len(text) * 4 > limit and len(text.encode()) > limit


def _attribution(value: object) -> tuple[str, str | None]:
    """Return the canonical JSON and the team; empty values are treated as missing."""
    if type(value) is not dict or not value.keys() <= _ATTRIBUTION_KEYS:
        raise InvalidMessageError("attribution is not an object with the fields of Attribution")
    for text in value.values():
        if type(text) is not str and text is not None:
            raise InvalidMessageError("attribution has a value that is not a string")
    if not all(value.values()):
        value = {name: text for name, text in value.items() if text}
    canonical = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if len(canonical) > MAX_ATTRIBUTION_BYTES:
        raise InvalidMessageError(f"attribution exceeds {MAX_ATTRIBUTION_BYTES} bytes")
    return canonical.decode(), value.get("team")


def _events(raw: list[Any], good: list[Event], bad: list[tuple[int, str]]) -> None:
    for index, event in enumerate(raw):
        try:
            ident, at, model, plain, read, write_5m, write_1h, out, reasoning, tool = _MAIN(event)
        except (KeyError, TypeError, IndexError):
            if type(event) is not dict:
                bad.append((index, "the event is not an object"))
                continue
            event = _ZERO | event
            try:
                ident, at, model, plain, read, write_5m, write_1h, out, reasoning, tool = _MAIN(event)
            except KeyError:
                bad.append((index, "the event has no event_id, occurred_at or model"))
                continue
        tier = speed = reported = None
        odd = False
        if len(event) != _MAIN_LENGTH:
            try:
                tier, speed, reported = _extras(event)
                odd = event.get("inconsistent") is True
            except InvalidMessageError as exc:
                bad.append((index, exc.message))
                continue
        # An `or` of numbers is negative if one of them is, and reaches 2**53 if one of them does.
        if not (
            type(at)
            is type(plain)
            is type(read)
            is type(write_5m)
            is type(write_1h)
            is type(out)
            is type(reasoning)
            is type(tool)
            is int
        ) or not (0 <= (plain | read | write_5m | write_1h | out | tool | reasoning) < 2**53 and 0 <= at < 2**63):
            bad.append((index, "a count or occurred_at is not a whole number within its bounds"))
        elif reasoning > out:
            bad.append((index, "reasoning exceeds output, which it is a part of"))
        elif type(ident) is not str or not is_id(ident):
            bad.append((index, "event_id is not 16 lowercase hex digits"))
        elif type(model) is not str or _long(model):
            bad.append((index, f"model is not a text of at most {MAX_TEXT_BYTES} bytes"))
        elif plain + read + write_5m + write_1h + out + tool >= MAX_EVENT_TOKENS:
            bad.append((index, f"a response cannot have {MAX_EVENT_TOKENS} tokens or more"))
        else:
            number = int(ident, 16)
            good.append(
                (
                    number, at, model, tier, speed, plain, read, write_5m, write_1h, out, reasoning, tool, reported,
                    index, odd,
                )
            )  # fmt: skip


def _extras(event: dict[str, Any]) -> tuple[str | None, str | None, int | None]:
    """Return tier, speed and reported cost; an empty tier or speed is treated as missing."""
    if not event.keys() <= _EVENT_KEYS:
        raise InvalidMessageError("the event has fields that UsageEvent does not have")
    get = event.get
    tier, speed, turn, usd = get("service_tier"), get("speed"), get("turn_id"), get("reported_cost_usd")
    for name, text in (("service_tier", tier), ("speed", speed), ("turn_id", turn), ("reported_cost_usd", usd)):
        if text is not None and (type(text) is not str or (name != "turn_id" and _long(text))):
            raise InvalidMessageError(f"{name} is not a text of at most {MAX_TEXT_BYTES} bytes")
    if type(get("inconsistent", False)) is not bool and get("inconsistent") is not None:
        raise InvalidMessageError("inconsistent is neither true nor false")
    if "basis" in event or "seen_by" in event:
        _evidence(get("basis"), get("seen_by"))
    try:
        return tier or None, speed or None, None if usd is None else reported_pico(usd)
    except ValueError as exc:
        raise InvalidMessageError(str(exc)) from None


def _evidence(basis: object, seen_by: object) -> None:
    """Check the fields that describe how an event was found, which do not affect sums."""
    if basis not in (None, "aggregate"):
        raise InvalidMessageError("basis has an unknown value")
    if seen_by is not None and (
        type(seen_by) is not list
        or len(seen_by) > MAX_SEEN_BY
        or any(type(name) is not str or len(name) > MAX_TEXT_BYTES for name in seen_by)
    ):
        raise InvalidMessageError(f"seen_by is not a list of at most {MAX_SEEN_BY} texts")
