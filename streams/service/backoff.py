"""How long to wait before what failed is tried again: longer each time, short again once it has held for a while."""

from __future__ import annotations

from tallystream.streams.service.clock import boottime

STEADY = 60.0
"""Seconds after which what went wrong before counts no more."""


class Backoff:
    """Doubles from `first` to `most` seconds while runs are short; a run of `stable` seconds starts over."""

    def __init__(self, first: float, most: float, stable: float) -> None:
        self._first = first
        self._most = most
        self._stable = stable
        self._next = first

    def after(self, ran: float) -> float:
        """Return the seconds to wait after a run of `ran` seconds."""
        if ran >= self._stable:
            self._next = self._first
        delay = self._next
        self._next = min(self._next * 2, self._most)
        return delay


class Pauses:
    """A backoff that times the runs itself: from when the last pause was over to the next failure."""

    def __init__(self, first: float = 1.0, longest: float = 30.0) -> None:
        self._backoff = Backoff(first, longest, STEADY)
        self._began = boottime()

    def after_failure(self) -> float:
        """Return how long to wait now."""
        now = boottime()
        pause = self._backoff.after(now - self._began)
        self._began = now + pause
        return pause
