"""The state of one session in one UTC hour, and its laws: pure functions of a state and an event.

- An event counts once: its id is remembered, and what is too old for the ids that are remembered does not count at all.
- Of two records of one request with different counts the larger counts, whichever came first (`CONFLICT`, `REPLACED`).
- Totals do not depend on the order in which events come, nor on how messages split them, nor on how often they come.
- A state knows the offset of the last message in it (`version`): a message up to that offset is in it already.
- `state_rows` reads back exactly the state that it wrote.

Whether an event may still be counted depends only on the event, its own message (`Window.verdict`) and the partition's
watermark, not on other clients' clocks or ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import NamedTuple

import orjson

from tallystream.agents.session_cost import counted as c
from tallystream.agents.session_cost import sums as s
from tallystream.agents.session_cost.counted import Counted
from tallystream.agents.session_cost.event_ids import EventIds
from tallystream.agents.session_cost.parse import Event
from tallystream.schemas import keys
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import HOUR_MS, hour_iso, is_final, last_final_hour
from tallystream.streams.runtime.changelog import split_version

FUTURE_MS = 24 * HOUR_MS

MAX_BUCKET_BYTES = 600_000
"""Maximum size of the buckets of one row in bytes, so that rows and states fit into a Kafka message (900 kB)."""
_BUCKET_BYTES = 640
"""The numbers and field names of one bucket in a row, at most."""

BucketKey = tuple[str, str | None, str | None, str, str]
"""model, service_tier, speed, book, attribution (canonical JSON)."""


class Outcome(Enum):
    """The outcome for an event."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    """Another record of the request is counted, which is larger: this one is not."""
    REPLACED = "replaced"
    """Another record of the request was counted, which is smaller: this one is, in its place."""
    BEYOND_DEDUPE = "beyond_dedupe"
    ROW_FULL = "row_full"


REASONS = {Outcome.BEYOND_DEDUPE: Reason.BEYOND_DEDUPE, Outcome.ROW_FULL: Reason.ROW_FULL}
"""Outcomes that make a dead letter."""
COUNTED, DUPLICATE, CONFLICT, REPLACED, BEYOND_DEDUPE, ROW_FULL = Outcome


class Bounds(NamedTuple):
    """What `Window.verdict` and `is_late` say of all messages appended at `append_ms`."""

    append_ms: int
    first_hour: int
    """Events of earlier hours are refused."""
    future_ns: int
    """Events from then on are refused."""
    final_hour: int
    """Events of hours up to this one are late."""


@dataclass(frozen=True, slots=True)
class Window:
    """The time window in which events are counted: `lateness_ms` after an hour's end, they are too late."""

    lateness_ms: int

    def first_open_hour(self, append_ms: int) -> int:
        """Return the oldest hour that a message appended at this time may still change."""
        return (append_ms - self.lateness_ms) // HOUR_MS

    def future_ns(self, append_ms: int) -> int:
        """Return the event time from which on events of a message appended at this time are refused."""
        return (append_ms + FUTURE_MS) * 1_000_000

    def verdict(self, occurred_at: int, hour: int, append_ms: int, closed_hour: int) -> Reason | None:
        """Return why an event is not counted, None when it may be; `closed_hour` is the first one not closed."""
        if hour < self.first_open_hour(append_ms):
            return Reason.TOO_LATE
        if occurred_at >= self.future_ns(append_ms):
            return Reason.FROM_THE_FUTURE
        return Reason.CLOSED if hour < closed_hour else None

    def bounds(self, append_ms: int, closed_hour: int) -> Bounds:
        """Return the bounds of messages appended at this time."""
        first = max(self.first_open_hour(append_ms), closed_hour)
        return Bounds(append_ms, first, self.future_ns(append_ms), last_final_hour(append_ms * 1_000_000))

    def watermark(self, append_ms: int) -> bytes:
        """Return the watermark: messages appended from now on cannot change hours before it.

        Hours as `hour_iso` writes them, which compare bytewise as they do in time.
        """
        return hour_iso(max(0, self.first_open_hour(append_ms))).encode()


def is_late(hour: int, append_ms: int) -> bool:
    """Tell whether the hour's row was final when the message was appended."""
    return is_final(hour, append_ms * 1_000_000)


class State:
    """One session-hour.

    `version` is that of the last message in it, -1 when there is none; `ids` are the event ids it remembers. `size`
    bounds the bytes of the buckets. `carried` is what of the buckets the hours have already (`hours`): of a state just
    read, all of it. `lowered` are the buckets from which something was taken back since then. `names` are the buckets
    that have a row of their own (`state_rows`). `other` is what the newest CONFLICT or REPLACED found counted.
    `repriced` is the version of the last price correction (`correction`), -1 when there is none.
    """

    __slots__ = (
        "buckets", "carried", "client", "duplicates", "ids", "lowered", "names", "other", "provider", "repriced",
        "size", "version",
    )  # fmt: skip

    def __init__(self, client: str, provider: str) -> None:
        self.version = -1
        self.client = client
        self.provider = provider
        self.duplicates = 0
        self.buckets: dict[BucketKey, list[int]] = {}
        self.carried: dict[BucketKey, tuple[int, ...]] = {}
        self.lowered: set[BucketKey] = set()
        self.names: dict[BucketKey, bytes] = {}
        self.size = 0
        self.ids = EventIds()
        self.other: Counted | None = None
        self.repriced = -1


def apply(  # noqa: C901 - it is flat, and the fold spends half its time here
    state: State, event: Event, cost: int | None, book: str, attribution: str, late: bool
) -> Outcome:
    """Count an event in its hour's state; `cost` is in pico-dollars, None when it has no price.

    Leaves the state as it was unless the outcome is COUNTED or REPLACED (or DUPLICATE, which counts the copy). The
    caller sets `state.version` once all events of a message are applied.
    """
    (
        ident, at, model, tier, speed, plain, read, write_5m, write_1h, output, reasoning, tool, reported, _,
        inconsistent,
    ) = event  # fmt: skip
    ids = state.ids
    replaced: Counted | None = None
    if ident in ids.seen:
        counts = (plain, read, write_5m, write_1h, output, tool)
        replaced = c.unpack(ids.seen[ident])
        if replaced is None or replaced.disjoint == counts:
            state.duplicates += 1
            return DUPLICATE
        state.other = replaced
        if c.size_of(counts) < c.size_of(replaced.disjoint):
            return CONFLICT
    elif at <= ids.floor:
        return BEYOND_DEDUPE
    sums = state.buckets.get((model, tier, speed, book, attribution))
    if sums is None:
        sums = open_bucket(state, (model, tier, speed, book, attribution))
        if sums is None:
            return ROW_FULL

    if replaced is not None:
        _take_back(state, replaced)
    if state.client in c.IDS_OF_COUNTS:
        ids.add(ident, at)
    else:
        place = 0 if len(state.buckets) == 1 else list(state.buckets).index((model, tier, speed, book, attribution))
        added = (plain, read, write_5m, write_1h, output, reasoning, tool)
        ids.add(ident, at, c.pack(place, added, cost, reported, (late, inconsistent)))

    sums[0] += 1  # in the order of agents.sums; most of these are 0, and adding costs more than asking
    if plain:
        sums[1] += plain
    if read:
        sums[2] += read
    if write_5m:
        sums[3] += write_5m
    if write_1h:
        sums[4] += write_1h
    if output:
        sums[5] += output
    if reasoning:
        sums[6] += reasoning
    if tool:
        sums[7] += tool
    if cost is None:
        sums[9] += 1
    else:
        sums[8] += cost
    if reported is not None:
        sums[10] += reported
        sums[11] += 1
    if late:
        sums[12] += 1
    if inconsistent:
        sums[13] += 1
    return COUNTED if replaced is None else REPLACED


def _take_back(state: State, what: Counted) -> None:
    """Undo what an event added."""
    key, sums = next(islice(state.buckets.items(), what.place, None))
    state.lowered.add(key)
    sums[s.REQUESTS] -= 1
    for index, number in enumerate(what.counts, s.INPUT):
        sums[index] -= number
    if what.cost is None:
        sums[s.UNPRICED] -= 1
    else:
        sums[s.COST] -= what.cost
    if what.reported is not None:
        sums[s.REPORTED] -= what.reported
        sums[s.REPORTS] -= 1
    sums[s.LATE] -= what.late
    sums[s.INCONSISTENT] -= what.inconsistent


def open_bucket(state: State, key: BucketKey) -> list[int] | None:
    """Add a bucket, unless the row would grow too large."""
    size = state.size + size_of(key)
    if size > MAX_BUCKET_BYTES and state.buckets:
        return None
    state.size = size
    sums = state.buckets[key] = s.zero()
    return sums


def size_of(key: BucketKey) -> int:
    """Return the bytes that a bucket may take in a row."""
    return len(orjson.dumps(key)) + _BUCKET_BYTES


def to_row(key: bytes, state: State) -> bytes:
    """Return the public row, a `schemas.rows.SessionHourCost`; `key` is `connection|session|hour`."""
    connection, session, hour = keys.split(key)
    buckets = [
        {
            "model": model,
            "service_tier": tier,
            "speed": speed,
            "book": book,
            "attribution": orjson.Fragment(attribution),
            **s.to_fields(sums),
        }
        for (model, tier, speed, book, attribution), sums in state.buckets.items()
        if sums[s.REQUESTS]  # else its one request was counted elsewhere when a larger record of it came
    ]
    return orjson.dumps(
        {
            "connection_id": connection,
            "client": state.client,
            "provider": state.provider,
            "session_id": session,
            "hour": hour,
            "version": split_version(state.version),
            "duplicates": state.duplicates,
            "buckets": buckets,
        }
    )
