"""Counts ordinary messages as a whole: sums over columns instead of one event after the other.

A message is ordinary when its events have the fields that every event has and no others, lie in one hour and name one
model, and their client's ids are made of the counts (`counted`), so that an id that is known is a copy. Nearly all
messages of such clients are. Whatever is not ordinary is left to `parse` and `hour_state.apply`, which check and count
event by event; a property test holds both to the same result. Nothing is changed before everything has been checked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from itertools import chain, compress
from operator import gt, itemgetter
from typing import Any, NamedTuple

from tallystream.agents.pricing.book import Book
from tallystream.agents.session_cost.counted import UNKNOWN
from tallystream.agents.session_cost.derived import Derived
from tallystream.agents.session_cost.hour_state import State, open_bucket
from tallystream.agents.session_cost.known_sessions import KnownSession
from tallystream.agents.session_cost.parse import MAIN, MAX_TEXT_BYTES, Head, is_id
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.usage import MAX_EVENT_TOKENS, MAX_EVENTS
from tallystream.streams.runtime import InputRecord, Partition

_FIELDS = itemgetter(*MAIN)
_HEX = b"0123456789abcdef"
_ID_LENGTHS = {16}
_WIDTH = len(MAIN)
_INTS = {int}


class Columns(NamedTuple):
    """The events of an ordinary message, field by field."""

    idents: tuple[int, ...]
    times: tuple[int, ...]
    model: str
    counts: Sequence[tuple[int, ...]]
    """input_uncached, cache_read, cache_write_5m, cache_write_1h, output, reasoning, tool."""

    def without(self, known: dict[int, bytes]) -> Columns:
        """Return the events whose ids are not known."""
        new = [ident not in known for ident in self.idents]
        times = tuple(compress(self.times, new))
        counts = [tuple(compress(column, new)) for column in self.counts]
        return Columns(tuple(compress(self.idents, new)), times, self.model, counts)


def columns(raw: Any) -> Columns | None:
    """Return the columns of valid events of one model, None when something is not ordinary."""
    try:
        if {*map(len, raw)} != {_WIDTH}:
            return None
        names, times, models, *counts = zip(*map(_FIELDS, raw), strict=True)
        text = "".join(names)
    except (TypeError, KeyError, IndexError):
        return None
    model, size = models[0], len(raw)
    if type(model) is not str or len(model) * 4 > MAX_TEXT_BYTES or models.count(model) != size:
        return None
    if {*map(len, names)} != _ID_LENGTHS or not text.isascii() or text.encode().translate(None, _HEX):
        return None
    numbers = (*times, *chain.from_iterable(counts))
    if {*map(type, numbers)} != _INTS or min(numbers) < 0 or max(times) >= 2**63:
        return None
    if any(map(gt, counts[5], counts[4])):  # reasoning is a part of output
        return None
    return Columns(struct.unpack(f">{size}Q", bytes.fromhex(text)), times, model, counts)


def apply_all(
    state: State, events: Columns, book: Book, provider: str, attribution: str, late: bool
) -> tuple[int, int] | None:
    """Count the events in their hour's state; return how many were counted and how many are copies.

    None, and the state as it was, when one of them is not to be counted in this simple way: it may be refused, have no
    price, or repeat another one of the message. The caller sets `state.version`.
    """
    ids, size = state.ids, len(events.idents)
    if len({*events.idents}) < size:
        return None
    seen, copies = ids.seen, 0
    if not seen.keys().isdisjoint(events.idents):
        if any(seen.get(ident, UNKNOWN) != UNKNOWN for ident in events.idents):
            return None
        events = events.without(seen)
        copies = size - len(events.idents)
        if copies == size:
            state.duplicates += copies
            return 0, copies
    idents, times, model, counts = events
    if min(times) <= ids.floor:
        return None
    totals = [*map(sum, counts)]
    if sum(totals) >= MAX_EVENT_TOKENS:
        return None
    cost = _price(events, totals, book, provider)
    if cost is None:
        return None
    bucket = (model, None, None, book.hash, attribution)
    sums = state.buckets.get(bucket) or open_bucket(state, bucket)
    if sums is None:
        return None
    ids.extend(idents, times)
    state.duplicates += copies
    size -= copies
    sums[0] += size  # in the order of agents.sums
    index = 1
    for total in totals:
        if total:
            sums[index] += total
        index += 1
    sums[8] += cost
    if late:
        sums[12] += size
    return size, copies


def _price(events: Columns, totals: list[int], book: Book, provider: str) -> int | None:
    """Return the cost of all, pico-dollars; None when one has no price, or they are not priced alike."""
    times = events.times
    flat = book.flat(provider, events.model, min(times), max(times))
    if flat is None:
        return None
    plain, read, write_5m, write_1h, out, _, tool = totals
    (a, b, c, d, e), fee, limit = flat
    # Gemini bills the prompt tokens of its tools as input.
    if plain + read + write_5m + write_1h + tool <= limit or _largest(events) <= limit:
        return (plain + tool) * a + read * b + write_5m * c + write_1h * d + out * e + fee * len(times)
    cost = 0
    price, model = book.price, events.model
    for at, plain, read, write_5m, write_1h, out, _, tool in zip(times, *events.counts, strict=True):
        one = price(provider, model, None, at, plain + tool, read, write_5m, write_1h, out)
        if one is None:
            return None
        cost += one
    return cost


def _largest(events: Columns) -> int:
    """Return the input tokens of the largest request."""
    plain, read, write_5m, write_1h, _, _, tool = events.counts
    return max(map(sum, zip(plain, read, write_5m, write_1h, tool, strict=True)))


StateOf = Callable[[Partition, Derived, bytes, Head], State]
"""Returns the state of a session-hour: from memory, from the store, or a new one."""


def count(
    partition: Partition,
    derived: Derived,
    record: InputRecord,
    session: KnownSession,
    raw: Any,
    book: Book,
    state_of: StateOf,
) -> tuple[int, int, int] | None:
    """Count an ordinary message; return how many events were counted, how many are copies, and how many came late.

    None of a message that is not ordinary; nothing is counted then.
    """
    if type(raw) is not list or not 0 < len(raw) <= MAX_EVENTS:
        return None
    if len(raw) == 1:
        return _count_one(partition, derived, record, session, raw[0], book, state_of)
    events = columns(raw)
    if events is None:
        return None
    append_ms, times = record.timestamp, events.times
    hour, bounds = min(times) // HOUR_NS, derived.bounds(append_ms)
    if hour < bounds.first_hour or max(times) >= min((hour + 1) * HOUR_NS, bounds.future_ns):
        return None
    key = session.key_of(hour)
    state = state_of(partition, derived, key, session.head)
    version = partition.version(record.offset)
    if state.version >= version:
        return None
    late = hour <= bounds.final_hour
    counted = apply_all(state, events, book, session.head.provider, session.head.attribution, late)
    if counted is None:
        return None
    state.version = version
    partition.dirty[key] = state
    derived.weight += len(times)
    derived.newest = (append_ms, times[-1])
    return (*counted, counted[0] if late else 0)


def _count_one(  # noqa: C901 - it is flat, and the fold of small messages spends its time here
    partition: Partition,
    derived: Derived,
    record: InputRecord,
    session: KnownSession,
    event: Any,
    book: Book,
    state_of: StateOf,
) -> tuple[int, int, int] | None:
    """Do the same for a message of one event, without columns."""
    try:
        name, at, model, plain, read, write_5m, write_1h, out, reasoning, tool = _FIELDS(event)
        if not (
            len(event) == _WIDTH
            and type(at) is type(plain) is type(read) is type(write_5m) is int
            and type(write_1h) is type(out) is type(reasoning) is type(tool) is int
            and 0 <= (at | plain | read | write_5m | write_1h | out | reasoning | tool) < 2**63
            and reasoning <= out
            and plain + read + write_5m + write_1h + out + tool < MAX_EVENT_TOKENS
            and is_id(name)
            and type(model) is str
        ):
            return None
    except (TypeError, KeyError, IndexError):
        return None
    append_ms = record.timestamp
    hour, bounds = at // HOUR_NS, derived.bounds(append_ms)
    if hour < bounds.first_hour or at >= bounds.future_ns:
        return None
    key = session.key_of(hour)
    state = state_of(partition, derived, key, session.head)
    version = partition.version(record.offset)
    if state.version >= version:
        return None
    ids, ident, late = state.ids, int(name, 16), hour <= bounds.final_hour
    known = ids.seen.get(ident)
    if known is None:
        head = session.head
        cost = book.price(head.provider, model, None, at, plain + tool, read, write_5m, write_1h, out)
        if cost is None or at <= ids.floor:
            return None
        bucket = (model, None, None, book.hash, head.attribution)
        sums = state.buckets.get(bucket)
        if sums is None:  # one that exists has a model of a valid length
            sums = open_bucket(state, bucket) if len(model) * 4 <= MAX_TEXT_BYTES else None
            if sums is None:
                return None
        ids.add(ident, at)
        sums[0] += 1  # in the order of agents.sums; some of these are 0, and adding costs more than asking
        sums[1] += plain
        sums[2] += read
        if write_5m:
            sums[3] += write_5m
        if write_1h:
            sums[4] += write_1h
        sums[5] += out
        if reasoning:
            sums[6] += reasoning
        if tool:
            sums[7] += tool
        sums[8] += cost
        if late:
            sums[12] += 1
    elif known == UNKNOWN:
        state.duplicates += 1
    else:
        return None
    state.version = version
    partition.dirty[key] = state
    derived.weight += 1
    derived.newest = (append_ms, at)
    return (0, 1, 0) if known is not None else (1, 0, 1 if late else 0)
