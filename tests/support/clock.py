"""Clocks that only a test moves."""

from __future__ import annotations

import time

from tallystream.streams.runtime.memory.clock import ManualClock


class HandClock(ManualClock):
    """A clock that moves by `clock.seconds += ...`, and by sleeping on it."""

    async def sleep(self, seconds: float) -> None:
        """Let the time pass immediately."""
        assert seconds > 0
        self.seconds += seconds


class WallHandClock(HandClock):
    """The same for the time of day; durations are real, for code under test that waits on real sockets."""

    def monotonic(self) -> float:
        """Return the machine's seconds."""
        return time.monotonic()
