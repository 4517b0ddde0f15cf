"""How long to wait before what failed is tried again: longer each time, short again once it has held for a while."""

from __future__ import annotations

from tallystream.streams.clock import boottime

STEADY = 60.0
"""Seconds after which what went wrong before counts no more."""


class Pauses:
    """Seconds from `first`, doubled up to `longest`."""

    def __init__(self, first: float = 1.0, longest: float = 30.0) -> None:
        self._first, self._longest = first, longest
        self._next = first
        self._ended = boottime()

    def after_failure(self) -> float:
        """Return how long to wait now."""
        now = boottime()
        if now - self._ended > STEADY:
            self._next = self._first
        pause = self._next
        self._next = min(2 * pause, self._longest)
        self._ended = now + pause
        return pause
