"""How long to wait before a restart."""

from __future__ import annotations


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
