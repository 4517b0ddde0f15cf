"""Rates: the price of a token by the size and the time of the request.

    Schedule   all moments   -> segments of time, each a Card, a Day of Cards, or None (no price)
    Day        one UTC day   -> Cards by time of day (off-peak prices)
    Card       one moment    -> Rates by all input tokens of the request (context tiers), and a fee a request
    Rates      one size      -> pico-dollars a token, by kind of token

All are immutable and compiled once; pricing a request only looks up and multiplies.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

DAY_NS = 86_400_000_000_000
BEGINNING = -(2**63)
"""Start of the first segment of every schedule, in ns: before any time an event can have."""


class Rates(NamedTuple):
    """Pico-dollars per token; None if the kind of token does not have a price, so that a request with such tokens is
    unpriced.
    """

    input_uncached: int | None
    cache_read: int | None
    cache_write_5m: int | None
    cache_write_1h: int | None
    output: int | None


class PricedCounts(NamedTuple):
    """Tokens of one request, disjoint."""

    input_uncached: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int


@dataclass(frozen=True, slots=True)
class Card:
    """`rates[i]` holds for more than `starts[i - 1]` and at most `starts[i]` input tokens, for the whole request."""

    starts: tuple[int, ...]
    rates: tuple[Rates, ...]
    fee: int = 0
    """Pico-dollars a request, whatever its size."""
    whole: tuple[tuple[int, int, int, int, int], ...] | None = field(init=False, repr=False)
    """`rates` when every kind of token has a price, so that nothing needs to be checked when pricing."""

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.starts) + 1 or list(self.starts) != sorted(set(self.starts)):
            raise ValueError("a card needs ascending starts and one more set of rates than starts")
        known = tuple((a, b, c, d, e) for a, b, c, d, e in self.rates if None not in (a, b, c, d, e))
        object.__setattr__(self, "whole", known if len(known) == len(self.rates) else None)

    def price(self, counts: PricedCounts) -> int | None:
        """Return pico-dollars, or None when the request has tokens of a kind without a price."""
        rates = self.rates[bisect_left(self.starts, sum(counts[:4]))]
        total = self.fee
        for rate, count in zip(rates, counts, strict=True):
            if rate is None:
                if count:
                    return None
            else:
                total += rate * count
        return total


@dataclass(frozen=True, slots=True)
class DayPrices:
    """`cards[i]` holds from `starts[i]` ns after midnight UTC; `starts[0]` is 0."""

    starts: tuple[int, ...]
    cards: tuple[Card | None, ...]

    def at(self, ns: int) -> Card | None:
        """Return the card at a time in ns since the epoch."""
        return self.cards[bisect_right(self.starts, ns % DAY_NS) - 1]


Segment = Card | DayPrices | None


@dataclass(frozen=True, slots=True)
class Schedule:
    """`segments[i]` holds from `starts[i]` (ns since the epoch, UTC) on; `starts[0]` is BEGINNING."""

    starts: tuple[int, ...]
    segments: tuple[Segment, ...]

    @classmethod
    def always(cls, segment: Segment) -> Schedule:
        """Return a schedule that never changes."""
        return cls((BEGINNING,), (segment,))

    def segment(self, ns: int) -> Segment:
        """Return the segment of a time in ns since the epoch."""
        return self.segments[bisect_right(self.starts, ns) - 1]

    def card(self, ns: int) -> Card | None:
        """Return the card at a time in ns since the epoch."""
        segment = self.segment(ns)
        return segment.at(ns) if isinstance(segment, DayPrices) else segment

    @property
    def empty(self) -> bool:
        """Return whether the schedule does not have any prices."""
        return not any(self.segments)


NO_PRICE = Schedule.always(None)


def overlaid(base: Schedule, periods: list[tuple[int, int, Card]]) -> Schedule:
    """Return `base` with `(from, until, card)` periods (ns, disjoint, `until` exclusive) put before it."""
    starts = sorted({*base.starts, *(start for start, _, _ in periods), *(end for _, end, _ in periods)})

    def at(ns: int) -> Segment:
        return next((card for start, end, card in periods if start <= ns < end), base.segment(ns))

    return Schedule(tuple(starts), tuple(map(at, starts)))
