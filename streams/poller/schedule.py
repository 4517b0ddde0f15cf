"""Decides which buckets to fetch: pure arithmetic on whole seconds since the epoch.

A bucket [s, e) may be restated until e + `restated_for`; then it is settled. The coverage [first, settled) has been
fetched after it settled. Each round fetches everything from `settled` (or the first bucket that is still open,
whichever is earlier) to the running bucket, oldest first; then for history, newest first, until `reach` is covered. So
the coverage never has gaps, and a restart fetches again only the buckets that may still change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class TimeSpan:
    """Buckets from `start` to `end`, exclusive."""

    start: int
    end: int


@dataclass(frozen=True)
class Coverage:
    """Every bucket of [first, settled) has been fetched after it settled."""

    first: int
    settled: int

    def with_span(self, span: TimeSpan, opens: int) -> Coverage:
        """Return the coverage after a span has been published; buckets from `opens` on may still change."""
        first, settled = self.first, self.settled
        if span.start <= settled:
            settled = max(settled, min(span.end, opens))
        if span.end >= first:
            first = min(first, span.start)
        return Coverage(first, settled)


@dataclass(frozen=True)
class BucketWindow:
    """The schedule of one resource, in seconds. `chunk`, a multiple of `width`, is the maximum window of one query."""

    width: int
    restated_for: int
    reach: int
    chunk: int

    def opens(self, now: float) -> int:
        """Return the start of the first bucket that may still change."""
        return self._floor(now - self.restated_for)

    def ends(self, now: float) -> int:
        """Return the end of the running bucket."""
        return self._floor(now) + self.width

    def begin(self, now: float) -> Coverage:
        """Return the coverage of a query that was never polled."""
        return Coverage(self.opens(now), self.opens(now))

    def plan(self, now: float, coverage: Coverage, reach: int | None = None) -> list[TimeSpan]:
        """Return the spans to fetch, in this order. `reach` extends how far back history goes."""
        regular = min(self.opens(now), coverage.settled)
        oldest = self._floor(now - max(self.reach, reach or 0))
        return [*self._ascending(regular, self.ends(now)), *self._descending(oldest, min(coverage.first, regular))]

    def _floor(self, at: float) -> int:
        return int(at // self.width) * self.width

    def _ascending(self, start: int, end: int) -> Iterator[TimeSpan]:
        while start < end:
            stop = min(start + self.chunk, end)
            yield TimeSpan(start, stop)
            start = stop

    def _descending(self, start: int, end: int) -> Iterator[TimeSpan]:
        while start < end:
            below = max(end - self.chunk, start)
            yield TimeSpan(below, end)
            end = below
