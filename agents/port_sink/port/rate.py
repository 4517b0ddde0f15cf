"""Rate limiter: a steady rate derived from Port's rate-limit headers, so that the limit is not reached in steady state.

Port counts an organisation's calls in periods (`x-ratelimit-limit` calls in `x-ratelimit-period` seconds, `-remaining`
of them left until `-reset`). We spread 90% of what remains evenly over what is left of the period, never faster than
90% of the steady rate, so that the organisation's other clients have capacity left and bursts are not needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from tallystream.streams.service.backoff import Backoff
from tallystream.streams.service.clock import Clock

SHARE = 0.9
CAUTIOUS = 5.0
"""Calls per second until Port has reported its limit."""
DEPTH = 1.0
"""Bucket size in seconds of the rate."""
SLOWEST = 1 / 60
BACKOFF = Backoff(first=1.0, longest=60.0)
"""Delay after a 429 without a duration."""
WHOLE = 1 - 1e-6
"""Threshold for a whole token, because sums of floats may not quite reach 1."""
Sleep = Callable[[float], Awaitable[None]]


class RateLimiter:
    """A token bucket whose rate follows the headers. One for each family of routes."""

    def __init__(self, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self.rate = CAUTIOUS
        """Calls a second."""
        self.remaining: int | None = None
        self._saved = 1.0
        self._filled = clock.monotonic()
        self._blocked_until = 0.0

    async def wait(self) -> None:
        """Wait until the next call may begin."""
        async with self._turn:
            while (seconds := self._due()) > 0:
                await self._sleep(seconds)
            self._saved -= 1

    def observe(self, headers: Mapping[str, str]) -> None:
        """Update the rate from a response's headers; responses without them are ignored."""
        try:
            limit, period = int(headers["x-ratelimit-limit"]), float(headers["x-ratelimit-period"])
            remaining, reset = int(headers["x-ratelimit-remaining"]), float(headers["x-ratelimit-reset"])
        except (KeyError, ValueError):
            return
        if limit <= 0 or period <= 0:
            return
        left = min(max(reset - self._clock.now_ns() / 1e9, 1.0), period)
        self.remaining = remaining
        self._fill()
        self.rate = max(SLOWEST, SHARE * min(limit / period, remaining / left))
        self._saved = min(self._saved, max(1.0, self.rate * DEPTH))

    def throttled(self, headers: Mapping[str, str], seconds: float | None, attempt: int) -> float:
        """Stop all calls after a 429, for `seconds` when Port said so, else until the reset, else for longer each time.

        Returns for how long.
        """
        try:
            self.remaining = int(headers["x-ratelimit-remaining"])
            until_reset = float(headers["x-ratelimit-reset"]) - self._clock.now_ns() / 1e9 + 0.5
        except (KeyError, ValueError):
            used_up = False
        else:
            used_up = self.remaining <= 0
        pause = seconds
        if pause is None:
            pause = until_reset if used_up else BACKOFF.delay(attempt)
        pause = min(max(pause, 0.1), 600.0)
        self._blocked_until = max(self._blocked_until, self._clock.monotonic() + pause)
        self._saved = 0.0
        return pause

    def _due(self) -> float:
        """Return for how long the next call must wait."""
        now = self._clock.monotonic()
        if now < self._blocked_until:
            return self._blocked_until - now
        self._fill()
        return (1 - self._saved) / self.rate if self._saved < WHOLE else 0.0

    def _fill(self) -> None:
        now = self._clock.monotonic()
        depth = max(1.0, self.rate * DEPTH)
        self._saved = min(depth, self._saved + max(0.0, now - self._filled) * self.rate)
        self._filled = now
