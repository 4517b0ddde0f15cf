"""The clock as a dependency, so that tests can control time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Processing time. Event time comes from records and append time from Kafka, never from here."""

    def now_ns(self) -> int:
        """Return UTC wall-clock time in ns since the epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ns(self) -> int:
        """Return UTC wall-clock time in ns since the epoch."""
        return time.time_ns()

    def monotonic(self) -> float:
        """Return seconds that never go back, for durations."""
        return time.monotonic()


_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""macOS does not have it and does not need it: there the monotonic clock continues during sleep (clock_gettime(3))."""


def boottime() -> float:
    """Return seconds of a clock that continues while the process is suspended and while the machine sleeps."""
    return time.clock_gettime(_BOOTTIME)


def utc(ns: int) -> datetime:
    """Return a time in ns since the epoch as an aware datetime (microseconds, floored)."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).replace(microsecond=ns % 1_000_000_000 // 1000)
