"""The sums of a row of a cost table, and what is added to them. Pure.

Money is a whole number of pico-dollars.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import Any, NamedTuple

from tallystream.schemas.money import to_usd
from tallystream.schemas.rows import SUM_COUNTS

BucketPart = tuple[tuple[Any, ...], tuple[int, ...], int | None, int | None]
"""A bucket's contribution: key of its group, counts, cost and reported cost in pico-dollars."""
SUMMED = (*SUM_COUNTS, "cost_usd", "reported_cost_usd", "final", "version")
"""The fields of a row that are summed, in the order of `CostSums.values`."""
_ZEROS = (0,) * len(SUM_COUNTS)
_OLDEST = [-1, -1]


class CostSums:
    """The sums of one table row or of all."""

    __slots__ = ("cost", "counts", "hour", "priced", "reported", "reports", "sessions", "version")

    def __init__(self) -> None:
        self.counts: Sequence[int] = _ZEROS
        self.cost = 0
        """Pico-dollars."""
        self.priced = False
        self.reported = 0
        self.reports = False
        self.hour = ""
        """The newest hour included."""
        self.version: list[int] = _OLDEST
        self.sessions: set[tuple[str, str]] | int | None = None
        """The sessions included, or their number; None when not requested."""

    def add(self, part: BucketPart, hour: str, version: list[int]) -> None:
        """Add a bucket of a SessionHourCost."""
        _, counts, cost, reported = part
        self.counts = counts if self.counts is _ZEROS else tuple(map(add, self.counts, counts))
        if cost is not None:
            self.cost += cost
            self.priced = True
        if reported is not None:
            self.reported += reported
            self.reports = True
        if hour > self.hour:
            self.hour = hour
        if version > self.version:
            self.version = version

    def add_part(self, part: CostPart) -> None:
        """Add sums that were computed elsewhere."""
        self.add((part.key, part.counts, part.cost, part.reported), part.hour, part.version)

    def merge(self, other: CostSums) -> None:
        """Add other sums."""
        self.counts = tuple(map(add, self.counts, other.counts))
        self.cost += other.cost
        self.priced |= other.priced
        self.reported += other.reported
        self.reports |= other.reports
        self.hour = max(self.hour, other.hour)
        self.version = max(self.version, other.version)

    def values(self, last_final: str) -> tuple[Any, ...]:
        """Return the values of the fields SUMMED; `last_final` is the newest hour that is final."""
        return (
            *self.counts,
            to_usd(self.cost) if self.priced else None,
            to_usd(self.reported) if self.reports else None,
            self.hour <= last_final,
            self.version,
        )


class CostPart(NamedTuple):
    """A sum of buckets that have the dimensions `key` in common: `Table.dimensions`, in their order."""

    key: tuple[Any, ...]
    counts: tuple[int, ...]
    cost: int | None
    """Pico-dollars; None when none of the requests has a price."""
    reported: int | None
    hour: str
    """The newest hour included."""
    version: list[int]
    """The highest version included."""
    rows: int | None = None
    """How many sums of one session each it includes; None: it was not made of them."""
