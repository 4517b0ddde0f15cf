"""Exponential backoff: delays grow with each failure, and start over after a long enough success.

Retries of one call are tenacity's (`streams.poller.client`, `streams.embedded.jars`); the delays are from here.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tallystream.streams.service.clock import boottime

STEADY = 60.0
"""Seconds of success after which earlier failures no longer count."""
MOST_DOUBLINGS = 62
"""Enough for any delay, and within the range of a float."""


@dataclass(frozen=True)
class Backoff:
    """Delays that double from `first` to `longest` seconds."""

    first: float = 1.0
    longest: float = 30.0
    jitter: bool = False
    """Choose each delay at random from the upper half of its range, so that processes that failed together do not retry
    together."""

    def delay(self, failures: int, *, at_least: float = 0.0) -> float:
        """Return the seconds to wait after the given number of earlier failures; `at_least` may exceed `longest`."""
        delay = min(self.longest, self.first * 2.0 ** min(failures, MOST_DOUBLINGS))
        if self.jitter:
            delay *= (1 + random.random()) / 2  # noqa: S311 - no secret
        return max(delay, at_least)


class FailureBackoff:
    """Counts the failures itself: the delay grows while runs are short, and a run of `steady` seconds starts over."""

    def __init__(
        self, backoff: Backoff | None = None, steady: float = STEADY, now: Callable[[], float] = boottime
    ) -> None:
        self._backoff = backoff or Backoff()
        self._steady = steady
        self._now = now
        self._failures = 0
        self._began = now()

    def after_run(self, seconds: float) -> float:
        """Return the seconds to wait after a run that failed after `seconds`."""
        if seconds >= self._steady:
            self._failures = 0
        delay = self._backoff.delay(self._failures)
        self._failures += 1
        return delay

    def after_failure(self) -> float:
        """Return the seconds to wait now, if the run began when the last wait was over."""
        now = self._now()
        delay = self.after_run(now - self._began)
        self._began = now + delay
        return delay
