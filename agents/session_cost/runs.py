"""Counts the messages of one session in a batch together, hour by hour: a run of small messages costs what one large
message does.

The session-hours of a client whose ids are made of the counts do not depend on one another (`ordinary`), so the
messages of an hour may be counted before those of another one that came earlier. That holds only for messages that lie
in one hour as a whole. A run is therefore counted only if all of its messages are ordinary and do; else none is counted
here, and all are counted one after the other, in the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import orjson

from tallystream.agents.pricing.book import Book
from tallystream.agents.session_cost.correction import HEADER
from tallystream.agents.session_cost.derived import Derived
from tallystream.agents.session_cost.hour_state import Bounds
from tallystream.agents.session_cost.known_sessions import KnownSession
from tallystream.agents.session_cost.ordinary import Columns, StateOf, apply_all, columns
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.usage import MAX_BYTES, MAX_EVENTS
from tallystream.streams.runtime import InputRecord, Partition

MIN_RUN = 2
"""Messages of a session that are counted together at least."""
MAX_RUN = 64
"""Messages that are counted together at most, so that they are small beside what a message may be."""
Tally = tuple[int, int, int]
"""How many events were counted, how many are copies, and how many came late."""


def parts(records: list[InputRecord]) -> Iterator[list[InputRecord]]:
    """Cut the messages of a session into runs."""
    return (records[start : start + MAX_RUN] for start in range(0, len(records), MAX_RUN))


def common_bounds(derived: Derived, records: Sequence[InputRecord]) -> Bounds | None:
    """Return bounds that hold for all of the records, None when an hour became closed or late between them."""
    times = [record.timestamp for record in records]
    first, last = derived.window.bounds(min(times), derived.closed_hour), derived.bounds(max(times))
    if (first.first_hour, first.final_hour) != (last.first_hour, last.final_hour):
        return None
    return first


def events_of(session: KnownSession, records: Sequence[InputRecord]) -> list[list[Any]] | None:
    """Return the events of each message, None unless all have the session's head and lists of flat objects.

    One parse reads all lists. Each of them is valid by itself, as no other brackets exist than those at their ends.
    """
    start, length = session.start, session.length
    lists: list[bytes] = []
    for record in records:
        value = record.value
        if HEADER in record.headers:
            return None  # it is not a usage message
        if value is None or not value.startswith(start) or value[-1:] != b"}":
            return None
        # Searching is many times as fast as counting.
        if value[length : length + 1] != b"[" or value.find(b"[", length + 1) >= 0:
            return None
        if value.find(b"]", length) != len(value) - 2:
            return None
        lists.append(value[length:-1])
    joined = b"[" + b",".join(lists) + b"]"
    size = len(lists)
    if len(joined) > MAX_BYTES:
        return None
    try:
        found: list[list[Any]] = orjson.loads(joined)
    except orjson.JSONDecodeError:
        return None
    if len(found) != size or not all(0 < len(raw) <= MAX_EVENTS for raw in found):
        return None
    return found


def by_hour(raws: Sequence[list[Any]]) -> dict[int, list[int]] | None:
    """Return which of the messages lie in which hour, by their first event; None when one is not an event."""
    hours: dict[int, list[int]] = {}
    try:
        for index, raw in enumerate(raws):
            hours.setdefault(raw[0]["occurred_at"] // HOUR_NS, []).append(index)
    except (TypeError, KeyError, IndexError):
        return None
    return hours


def count_run(
    partition: Partition,
    derived: Derived,
    session: KnownSession,
    records: Sequence[InputRecord],
    bounds: Bounds,
    book: Book,
    state_of: StateOf,
    tallies: list[Tally],
) -> Sequence[InputRecord]:
    """Count messages of a session; return those that are not counted, which must be counted one after the other.

    `bounds` are those of all records.
    """
    raws = events_of(session, records)
    hours = None if raws is None else by_hour(raws)
    if raws is None or hours is None:
        return records
    runs: list[tuple[int, list[int], Columns]] = []
    for hour, indices in hours.items():
        if hour < bounds.first_hour:
            return records
        events = columns([*chain.from_iterable([raws[index] for index in indices])])
        if events is None or events.oldest < hour * HOUR_NS or events.newest >= (hour + 1) * HOUR_NS:
            return records
        if events.newest >= bounds.future_ns:
            return records
        runs.append((hour, indices, events))
    left: list[InputRecord] = []
    head = session.head
    for hour, indices, events in runs:
        key = session.key_of(hour)
        state = state_of(partition, derived, key, head)
        late = hour <= bounds.final_hour
        counted = None
        if state.version < partition.version(records[indices[0]].offset):
            counted = apply_all(state, events, book, head.provider, head.attribution, late)
        if counted is None:
            left += [records[index] for index in indices]
            continue
        last = records[indices[-1]]
        state.version = partition.version(last.offset)
        partition.dirty[key] = state
        derived.folded(len(events.times), last.timestamp, events.times[-1])
        tallies.append((*counted, counted[0] if late else 0))
    return left
