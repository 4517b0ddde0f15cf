"""Plans which rows of a partition change with another price book: `tallystream reprice --apply`. Pure.

`usage` is folded again, by the worker's own fold with the new book. Each row is compared with this second state just
before the first message that the row does not contain, so that both consist of the same messages. A row is corrected
only where all of its counts are equal to those of the second state: then its requests are known, and so is their cost.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from pydantic import ValidationError
from typing_extensions import override

from tallystream.agents.pricing.book import Book
from tallystream.agents.session_cost import counted as c
from tallystream.agents.session_cost import dead_letters
from tallystream.agents.session_cost import sums as s
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.correction import HEADER, correction_of, kind_of
from tallystream.agents.session_cost.derived import Derived
from tallystream.agents.session_cost.hour_state import BucketKey, State, Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.agents.session_cost.reprice import RepriceKey, RepriceSums
from tallystream.schemas.corrections import MAX_CORRECTION_BYTES, PriceMove
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import hour_from_iso
from tallystream.schemas.money import to_pico, to_usd
from tallystream.schemas.rows import SUM_COUNTS, CostBucket, SessionHourCost
from tallystream.schemas.versions import Pair
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import InputRecord, Partition
from tallystream.streams.runtime.changelog import Position
from tallystream.streams.runtime.store import MemoryStore

_COUNTS = tuple(name for name in SUM_COUNTS if name != "unpriced_requests")
Rows = Mapping[bytes, tuple[Pair, bytes]]
"""The newest row of each key, with its version."""


class Unchanged(Enum):
    """Why requests keep their cost although the new book has another one, or may have."""

    CLOSED = "closed"
    """Their hour has left the state, because it ended longer than the lateness ago."""
    NO_USAGE = "no_usage"
    """Kafka does not have all of their usage any more, or it was counted under other settings."""
    TOO_MANY = "too_many"
    """The session made thousands of requests in the hour, which has forgotten the ids of the first ones."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which rows may change: hours from `since` until before `until`, and these models (lower case; empty: all)."""

    since: int = 0
    until: int | None = None
    models: frozenset[str] = frozenset()

    def has_key(self, key: bytes | None) -> bool:
        """Tell whether the key of a row ends with an hour that is in it."""
        try:
            hour = hour_from_iso((key or b"").rpartition(b"|")[2].decode())
        except ValueError:
            return False
        return self.since <= hour and (self.until is None or hour < self.until)


class PlannedCorrection(NamedTuple):
    """A message for the `usage` topic that corrects one session-hour."""

    partition: int
    key: bytes
    value: bytes


class _Repriced(NamedTuple):
    """The requests of one model, tier, speed and attribution in a row, and their whole cost by the new book."""

    by_new: CostBucket | None
    by_others: list[CostBucket]
    cost: int
    unpriced: int

    @property
    def move(self) -> PriceMove | None:
        """What changes, None if nothing does."""
        cost, unpriced = self.cost, self.unpriced
        if self.by_new is not None:
            cost -= to_pico(self.by_new.cost_usd or "0")
            unpriced -= self.by_new.unpriced_requests
        before = sum(to_pico(one.cost_usd or "0") for one in self.by_others)
        if not self.by_others or (cost, unpriced) == (before, sum(one.unpriced_requests for one in self.by_others)):
            return None
        priced = sum(one.requests for one in self.by_others) > unpriced
        return PriceMove(was=self.by_others, cost_usd=to_usd(cost) if priced else None, unpriced_requests=unpriced)


class RepricePlan:
    """Collects `corrections` over all partitions: `begin` each, `add` its usage in order of offsets, then `end`.

    `sums` are those of the rows in scope whose requests are known: `cost` is the one in the rows, `other_cost` the new
    one. `left` are requests that keep their cost. `skipped` counts rows that this version cannot read.
    """

    def __init__(self, book: Book, window: Window, topics: Topics, scope: Scope, now_ms: int) -> None:
        self.book = book
        self.corrections: list[PlannedCorrection] = []
        self.sums: dict[RepriceKey, RepriceSums] = {}
        self.left: dict[Unchanged, RepriceSums] = {}
        self.skipped = 0
        self._scope = scope
        self._first_open = window.first_open_hour(now_ms)
        self._fold = _Replay(topics, book, window, FoldMetrics(CollectorRegistry()))
        self._partition = Partition(0, MemoryStore(), Position(0))
        self._rows: Rows = {}
        self._due: dict[bytes, list[tuple[int, bytes]]] = {}

    def begin(self, number: int, rows: Rows) -> None:
        """Start a partition with its newest rows, which must have been read before the end of its usage was."""
        self._fold.lost(self._partition.number)
        self._partition = Partition(number, MemoryStore(), Position(0))
        self._fold.recovered(self._partition)
        self._rows, self._due = rows, {}
        for key, ((_, offset), _) in rows.items():
            if self._scope.has_key(key):
                self._due.setdefault(key.rpartition(b"|")[0], []).append((offset, key))
        for due in self._due.values():
            due.sort(reverse=True)

    def add(self, record: InputRecord) -> None:
        """Fold a message, after comparing the rows of its session that do not contain it."""
        due = self._due.get(record.key or b"")
        while due and due[-1][0] < record.offset:
            self._compare(due.pop()[1])
        if HEADER not in record.headers:
            self._fold.fold(self._partition, (record,))

    def end(self) -> None:
        """Compare the rows that contain all messages of their session."""
        for due in self._due.values():
            for _, key in due:
                self._compare(key)
        self._due = {}

    def _compare(self, key: bytes) -> None:
        try:
            row = SessionHourCost.model_validate_json(self._rows[key][1])
        except ValidationError:
            self.skipped += 1
            return
        state: State | None = self._partition.cache.get(key)
        closed = hour_from_iso(row.hour) < self._first_open
        kinds: dict[tuple[str, str | None, str | None, str], list[CostBucket]] = {}
        for bucket in row.buckets:
            kinds.setdefault(kind_of(bucket), []).append(bucket)
        moves: dict[BucketKey, PriceMove] = {}
        for (model, tier, speed, attribution), buckets in kinds.items():
            if self._scope.models and model.lower() not in self._scope.models:
                continue
            to = (model, tier, speed, self.book.hash, attribution)
            found = None if state is None else _reprice(buckets, state.buckets.get(to), self.book.hash)
            move = None if found is None else found.move
            if found is None:
                why = Unchanged.NO_USAGE if any(one.book != self.book.hash for one in buckets) else None
            elif move is None or state is None:
                why = None
            elif closed:
                why = Unchanged.CLOSED
            else:
                why = Unchanged.TOO_MANY if _forgets(state) else None
            if why is not None:
                _add(self.left.setdefault(why, RepriceSums()), buckets, found)
            elif found is not None:
                name = RepriceKey(row.provider, model, tier, buckets[0].attribution.team)
                _add(self.sums.setdefault(name, RepriceSums()), buckets, found)
                if move is not None:
                    moves[to] = move
        if moves and state is not None:
            value = _message(row, self.book.hash, state, moves)
            self.corrections.append(PlannedCorrection(self._partition.number, key.rpartition(b"|")[0], value))


class _Replay(SessionCost):
    """The worker's fold, without the dead letters and warnings that the worker has already written."""

    @override
    def _refuse(self, derived: Derived, reason: Reason, letter: dead_letters.Row) -> None:
        return

    @override
    def _unpriced(self, provider: str, model: str, tier: str | None, speed: str | None) -> None:
        return


def _reprice(buckets: list[CostBucket], wanted: list[int] | None, book: str) -> _Repriced | None:
    """Return what the requests of these buckets cost by the new book; None if they are not those of `wanted`."""
    if wanted is None:
        return None
    counts = s.to_fields(wanted)
    reported = sum(to_pico(one.reported_cost_usd or "0") for one in buckets)
    same = all(sum(getattr(one, name) for one in buckets) == counts[name] for name in _COUNTS)
    if not same or reported != wanted[s.REPORTED]:
        return None
    ours = [one for one in buckets if one.book == book]
    others = [one for one in buckets if one.book != book]
    return _Repriced(ours[0] if ours else None, others, wanted[s.COST], wanted[s.UNPRICED])


def _forgets(state: State) -> bool:
    """Tell whether the costs of requests that the row may take back are not all known."""
    return state.client not in c.IDS_OF_COUNTS and state.ids.floor >= 0


def _message(row: SessionHourCost, book: str, state: State, moves: Mapping[BucketKey, PriceMove]) -> bytes:
    """Return a correction; if all moves would be too large for a message, of the first ones: others come later."""
    chosen = dict(moves)
    while True:
        value = correction_of(row, book, list(chosen.values()), _costs(state, chosen.keys())).model_dump_json().encode()
        if len(value) <= MAX_CORRECTION_BYTES or len(chosen) == 1:
            return value
        chosen = dict(islice(chosen.items(), len(chosen) // 2))


def _costs(state: State, moved: Collection[BucketKey]) -> dict[int, str | None]:
    """Return what each remembered request of these buckets costs."""
    places = {place for place, key in enumerate(state.buckets) if key in moved}
    found = ((ident, c.unpack(what)) for ident, what in state.ids.seen.items())
    return {
        ident: None if one.cost is None else to_usd(one.cost)
        for ident, one in found
        if one is not None and one.place in places
    }


def _add(sums: RepriceSums, buckets: list[CostBucket], found: _Repriced | None) -> None:
    """Add buckets; without their cost by the new book it is taken to be the same."""
    cost = sum(to_pico(one.cost_usd or "0") for one in buckets)
    unpriced = sum(one.unpriced_requests for one in buckets)
    sums.requests += sum(one.requests for one in buckets)
    sums.tokens += sum(one.total_tokens for one in buckets)
    sums.cost += cost
    sums.unpriced += unpriced
    sums.other_cost += cost if found is None else found.cost
    sums.other_unpriced += unpriced if found is None else found.unpriced
