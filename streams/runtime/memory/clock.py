"""Time that only its owner moves."""

from __future__ import annotations


class ManualClock:
    """A clock of all kinds, in one: wall clock, monotonic, boot time. `seconds` since the epoch; move it with `+=`."""

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
