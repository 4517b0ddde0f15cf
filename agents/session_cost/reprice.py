"""Computes what the kept usage would cost with another price book. Reads messages of `usage` and changes nothing.

Events are counted as the fold counts them: once for each session and event id, the larger of two records that differ,
only within the window of time. A partition is one unit: all messages of a session are in it, so what is needed
to recognise duplicates is forgotten with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tallystream.agents.pricing.book import Book
from tallystream.agents.session_cost.counted import disjoint, size_of
from tallystream.agents.session_cost.errors import InvalidMessageError
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.parse import Event, parse, price
from tallystream.schemas.hours import HOUR_NS


class RepriceKey(NamedTuple):
    """The fields that distinguish rows."""

    provider: str
    model: str
    service_tier: str | None
    team: str | None


@dataclass(slots=True)
class RepriceSums:
    """Requests of a key, and their cost in pico-dollars by both books."""

    requests: int = 0
    tokens: int = 0
    cost: int = 0
    other_cost: int = 0
    unpriced: int = 0
    """Requests that the present book has no price for."""
    other_unpriced: int = 0
    """Requests that the other book has no price for."""


class _Counted(NamedTuple):
    hour: int
    key: RepriceKey
    counts: tuple[int, ...]
    cost: int | None
    other_cost: int | None


class Repricing:
    """Sums over `usage` with the present book and another one, of events from `since_ns` until before `until_ns`."""

    def __init__(self, book: Book, other: Book, window: Window, since_ns: int = 0, until_ns: int | None = None) -> None:
        self._books = (book, other)
        self._window = window
        self._since_ns = since_ns
        self._until_ns = 2**63 if until_ns is None else until_ns
        self._seen: dict[tuple[bytes, int], _Counted] = {}
        self._sums: dict[RepriceKey, RepriceSums] = {}

    @property
    def sums(self) -> Mapping[RepriceKey, RepriceSums]:
        """Return the sums of all partitions that were read."""
        return self._sums

    def begin_partition(self) -> None:
        """Forget the events of the partition before."""
        self._seen.clear()

    def add(self, key: bytes | None, value: bytes | None, append_ms: int) -> None:
        """Count a message's events; what cannot be counted is left out, as the fold leaves it out."""
        try:
            batch = parse(key, value)
        except InvalidMessageError:
            return
        for event in batch.events:
            at = event[1]
            hour = at // HOUR_NS
            if not self._since_ns <= at < self._until_ns or self._window.verdict(at, hour, append_ms, 0) is not None:
                continue
            first = self._window.first_open_hour(append_ms)
            key_of_row = RepriceKey(batch.provider, event[2], event[3], batch.team)
            self._count((key or b"", event[0]), key_of_row, event, hour, first)

    def _count(self, identity: tuple[bytes, int], key: RepriceKey, event: Event, hour: int, first_open: int) -> None:
        counts = disjoint((event[5], event[6], event[7], event[8], event[9], event[10], event[11]))
        before = self._seen.get(identity)
        if before is not None and before.hour >= first_open:
            hour = before.hour
            if size_of(before.counts) >= size_of(counts):
                return
            self._apply(before, -1)
        cost, other_cost = (price(book, key.provider, event) for book in self._books)
        found = self._seen[identity] = _Counted(hour, key, counts, cost, other_cost)
        self._apply(found, 1)

    def _apply(self, one: _Counted, sign: int) -> None:
        sums = self._sums.setdefault(one.key, RepriceSums())
        sums.requests += sign
        sums.tokens += sign * sum(one.counts)
        sums.cost += sign * (one.cost or 0)
        sums.other_cost += sign * (one.other_cost or 0)
        sums.unpriced += sign * (one.cost is None)
        sums.other_unpriced += sign * (one.other_cost is None)
