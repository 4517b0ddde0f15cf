"""Counts ordinary messages as a whole: sums over columns instead of one event after the other.

A message is ordinary when its events have the fields that every event has and no others, lie in one hour and name one
model, and their client's ids are made of the counts (`counted`), so that an id that is known is a copy. Nearly all
messages of such clients are. Whatever is not ordinary is left to `parse` and `hour_state.apply`, which check and count
event by event; a property test holds both to the same result. Nothing is changed before everything has been checked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import compress
from operator import gt, itemgetter, sub
from typing import Any, NamedTuple

import orjson

from tallystream.agents.pricing.book import Book
from tallystream.agents.session_cost.counted import UNKNOWN
from tallystream.agents.session_cost.derived import Derived
from tallystream.agents.session_cost.event_ids import MAX_IDS
from tallystream.agents.session_cost.hour_state import State, open_bucket
from tallystream.agents.session_cost.known_sessions import KnownSession
from tallystream.agents.session_cost.parse import MAIN, MAX_TEXT_BYTES, Head, is_id
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.usage import MAX_EVENT_TOKENS, MAX_EVENTS, TOKEN_COUNTS
from tallystream.streams.runtime import InputRecord, Partition

_FIELDS = itemgetter(*MAIN)
_HEX = b"0123456789abcdef"
_ID_LENGTHS = {16}
_NOTHING_MORE = {None, UNKNOWN}
_WIDTH = len(MAIN)
_OUTPUT, _REASONING = TOKEN_COUNTS.index("output"), TOKEN_COUNTS.index("reasoning")
_INPUTS = tuple(index for index in range(len(TOKEN_COUNTS)) if index not in (_OUTPUT, _REASONING))


class Columns(NamedTuple):
    """The events of an ordinary message, field by field."""

    idents: tuple[int, ...]
    times: tuple[int, ...]
    oldest: int
    newest: int
    """First and last of `times`."""
    model: str
    counts: Sequence[tuple[int, ...]]
    """input_uncached, cache_read, cache_write_5m, cache_write_1h, output, reasoning, tool."""
    totals: list[int]
    """The sum of each of `counts`, over the events that are counted."""
    new: Sequence[bool] | None = None
    """Which events of `counts` are counted, where not all are; `idents`, `times` and `totals` are theirs alone."""

    def only(self, new: list[bool], copies: int) -> Columns:
        """Return the events that are new, all but so many, which are few; there must be one."""
        times, totals, at = tuple(compress(self.times, new)), self.totals, -1
        for _ in range(copies):
            at = new.index(False, at + 1)
            totals = [*map(sub, totals, [column[at] for column in self.counts])]
        idents = tuple(compress(self.idents, new))
        return Columns(idents, times, min(times), max(times), self.model, self.counts, totals, new)

    def each(self) -> Iterable[tuple[int, ...]]:
        """Return time and counts of each event that is counted."""
        if self.new is None:
            return zip(self.times, *self.counts, strict=True)
        return zip(self.times, *[compress(column, self.new) for column in self.counts], strict=True)


def columns(raw: Any) -> Columns | None:
    """Return the columns of valid events of one model, None when something is not ordinary."""
    try:
        if {*map(len, raw)} != {_WIDTH}:
            return None
        names, times, models, *counts = zip(*map(_FIELDS, raw), strict=True)
        totals = [*map(sum, counts)]
        text = "".join(names)
        # their JSON shows whether they are whole numbers, and none is negative, faster than looking at each
        odd = orjson.dumps((times, *counts)).translate(None, b"0123456789,[]")
        if odd or max(times) >= 2**63 or sum(totals) >= MAX_EVENT_TOKENS:
            return None
    except (TypeError, KeyError, IndexError):
        return None
    model, size = models[0], len(raw)
    if type(model) is not str or len(model) * 4 > MAX_TEXT_BYTES or models.count(model) != size:
        return None
    if {*map(len, names)} != _ID_LENGTHS or text.encode().translate(None, _HEX):
        return None
    if totals[_REASONING] and any(map(gt, counts[_REASONING], counts[_OUTPUT])):  # it is a part of output
        return None
    return Columns(_idents(size).unpack(bytes.fromhex(text)), times, min(times), max(times), model, counts, totals)


@lru_cache(MAX_EVENTS)
def _idents(count: int) -> struct.Struct:
    return struct.Struct(f">{count}Q")


def apply_all(
    state: State, events: Columns, book: Book, provider: str, attribution: str, late: bool
) -> tuple[int, int] | None:
    """Count the events in their hour's state; return how many were counted and how many are copies.

    None, and the state as it was, when one of them is not to be counted in this simple way: it may be refused, or have
    no price. The caller sets `state.version`.
    """
    ids, size = state.ids, len(events.idents)
    if size >= ids.room and ids.full + ids.opened + size > MAX_IDS:
        return None  # some of the ids that are remembered may be forgotten on the way
    seen, copies = ids.seen, 0
    if len({*events.idents}) < size or not seen.keys().isdisjoint(events.idents):
        if not {*map(seen.get, events.idents)} <= _NOTHING_MORE:
            return None
        met: set[int] = set()
        meet = met.add  # it returns None
        new = [not (ident in seen or ident in met or meet(ident)) for ident in events.idents]
        copies = new.count(False)
        if copies == size:
            state.duplicates += copies
            return 0, copies
        events = events.only(new, copies)
    if events.oldest <= ids.floor:
        return None
    cost = _price(events, book, provider)
    if cost is None:
        return None
    bucket = (events.model, None, None, book.hash, attribution)
    sums = state.buckets.get(bucket) or open_bucket(state, bucket)
    if sums is None:
        return None
    ids.extend(events.idents, events.times, events.newest)
    state.duplicates += copies
    size -= copies
    sums[0] += size  # in the order of agents.sums
    index = 1
    for total in events.totals:
        if total:
            sums[index] += total
        index += 1
    sums[8] += cost
    if late:
        sums[12] += size
    return size, copies


def _price(events: Columns, book: Book, provider: str) -> int | None:
    """Return the cost of all, pico-dollars; None when one has no price, or they are not priced alike."""
    flat = book.flat(provider, events.model, events.oldest, events.newest)
    if flat is None:
        return None
    plain, read, write_5m, write_1h, out, _, tool = events.totals
    (a, b, c, d, e), fee, limit = flat
    # Gemini bills the prompt tokens of its tools as input.
    if plain + read + write_5m + write_1h + tool <= limit or _largest_at_most(events, limit):
        return (plain + tool) * a + read * b + write_5m * c + write_1h * d + out * e + fee * len(events.times)
    cost = 0
    price, model = book.price, events.model
    for at, plain, read, write_5m, write_1h, out, _, tool in events.each():
        one = price(provider, model, None, at, plain + tool, read, write_5m, write_1h, out)
        if one is None:
            return None
        cost += one
    return cost


def _largest_at_most(events: Columns, limit: int) -> bool:
    """Tell whether no request has more than `limit` input tokens, even among those that are not counted."""
    inputs = [events.counts[index] for index in _INPUTS if events.totals[index]]
    return sum(map(max, inputs)) <= limit or max(map(sum, zip(*inputs, strict=True))) <= limit


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
    hour, bounds = events.oldest // HOUR_NS, derived.bounds(append_ms)
    if hour < bounds.first_hour or events.newest >= min((hour + 1) * HOUR_NS, bounds.future_ns):
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
    derived.folded(len(times), append_ms, times[-1])
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
    derived.folded(1, append_ms, at)
    return (0, 1, 0) if known is not None else (1, 0, 1 if late else 0)
