"""A clock that only its owner advances."""

from __future__ import annotations


class ManualClock:
    """Wall clock, monotonic clock and boot time in one. `seconds` since the epoch; advance it with `+=`."""

    def __init__(self, seconds: float = 1_795_000_000.0) -> None:
        self.seconds = seconds

    def now_ns(self) -> int:
        """Return UTC time in ns since the epoch."""
        return int(self.seconds * 1_000_000_000)

    def now_ms(self) -> int:
        """Return UTC time in ms since the epoch."""
        return int(self.seconds * 1000)

    def monotonic(self) -> float:
        """Return seconds."""
        return self.seconds

    def boottime(self) -> float:
        """Return seconds."""
        return self.seconds
