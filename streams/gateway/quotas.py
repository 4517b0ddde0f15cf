"""Fair sharing of a gateway among connections.

**Turns** need no setting and never refuse a request: while several connections send, each has a few requests in
progress and its others wait, so that a connection that floods the gateway delays only itself. A connection that sends
alone is not limited. **Quotas** are limits that an operator sets, for all connections or for one: beyond them a request
is answered with 429 and Retry-After (RESOURCE_EXHAUSTED with RetryInfo). Most clients then send it again, but some do
not: Codex never does. The answer comes after a pause, so that a client that ignores Retry-After and sends again at
once is slowed down.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from dataclasses import dataclass
from typing import Final

from tallystream.schemas.connections import Quota
from tallystream.streams.gateway.errors import RequestRefusedError
from tallystream.streams.service.clock import Clock

AT_WORK: Final = 8
"""Requests in progress of all connections together while several send; each may have at least two."""
ACTIVE: Final = 1.0
"""Seconds for which a connection counts as sending after its last request."""
_LOOK_EVERY: Final = 0.05
BURST: Final = 10.0
"""Burst size in seconds of the quota: a connection may send as much at once after it has been quiet."""
PAUSE: Final = 0.5
"""Seconds, on average, before a request above the quota of requests is answered. Nothing of its body is read before."""
PAUSED: Final = 512
"""Requests that wait for such an answer at one time; further ones are answered at once."""
_FORGET: Final = 4_096
"""Maximum number of connections remembered; beyond it those that have been quiet longest are forgotten."""


@dataclass(slots=True)
class WaitingLine:
    """One connection's requests."""

    at_work: int
    waiting: deque[asyncio.Future[None]]
    seen: float


class Turns:
    """Limits concurrent requests per connection: `line = turns.line(connection)`, then `begin` it, at once, or `wait`
    in it if it does not; `done(line)` ends the work.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lines: dict[str, WaitingLine] = {}
        self._most: float = math.inf
        self._looked = -math.inf

    def line(self, connection: str) -> WaitingLine:
        """Return the line of a connection that sends a request now."""
        now = self._clock.monotonic()
        line = self._lines.get(connection)
        if line is None:
            line = self._lines[connection] = WaitingLine(0, deque(), now)
        line.seen = now
        self._look(now)
        return line

    def begin(self, line: WaitingLine) -> bool:
        """Begin a request's work; return False if it must wait, because its connection has as many requests in progress
        as it may have now.
        """
        if line.at_work >= self._most or line.waiting:
            return False
        line.at_work += 1
        return True

    async def wait(self, line: WaitingLine) -> None:
        """Wait until an earlier request of the connection is done."""
        turn = asyncio.get_running_loop().create_future()
        line.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.done(line)
            raise

    def done(self, line: WaitingLine) -> None:
        """Give the place of a request that is done to the next one."""
        line.at_work -= 1
        self._look(self._clock.monotonic())
        while line.waiting and line.at_work < self._most:
            turn = line.waiting.popleft()
            if not turn.done():
                line.at_work += 1
                turn.set_result(None)

    def _look(self, now: float) -> None:
        """Update the number of sending connections and the limit of each."""
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        active = 0
        for name, line in list(self._lines.items()):
            if line.at_work or line.waiting or now - line.seen < ACTIVE:
                active += 1
            else:
                del self._lines[name]
        self._most = math.inf if active <= 1 else max(2, AT_WORK // active)


class Pauses:
    """Delays refusals and spreads them over time; the number of those that wait is limited."""

    def __init__(self, seconds: float = PAUSE, most: int = PAUSED) -> None:
        self._seconds = seconds
        self._most = most
        self._waiting = 0

    async def wait(self) -> None:
        """Return after the pause, or at once if too many are waiting."""
        if self._waiting >= self._most:
            return
        self._waiting += 1
        try:
            # Requests that came together are not answered together, because others would wait for all of them.
            await asyncio.sleep(self._seconds * (0.5 + random.random()))  # noqa: S311 - no secret
        finally:
            self._waiting -= 1


class _Bucket:
    """A token bucket: `rate` per second, and a burst of `rate * BURST`."""

    __slots__ = ("_left", "_rate", "_seen")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._left = rate * BURST
        self._seen = now

    def take(self, number: float, now: float) -> float:
        """Take the tokens and return 0, or return in how many seconds there may be enough.

        A request may overdraw the bucket if at least one token is left: then the next request waits.
        """
        self._left = min(self._rate * BURST, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left < min(number, 1):
            return (min(number, 1) - self._left) / self._rate
        self._left -= number
        return 0.0


class Quotas:
    """Tracks each connection's use of its quotas; `default` applies to those without their own."""

    def __init__(self, default: Quota, clock: Clock) -> None:
        self._default = default
        self._clock = clock
        self._unlimited = not (default.requests or default.bytes or default.held_bytes or default.dead_letters)
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._held: dict[str, int] = {}

    def request(self, connection: str, quota: Quota | None) -> None:
        """Count a request; raises RequestRefusedError (429) when there are too many."""
        if quota is not None or not self._unlimited:
            self._take(connection, "requests", self._limit(quota, "requests"), 1)

    def received(self, connection: str, quota: Quota | None, size: int) -> None:
        """Count the bytes of a body; raises RequestRefusedError (429) when there were too many before it."""
        if quota is not None or not self._unlimited:
            self._take(connection, "bytes", self._limit(quota, "bytes"), size)

    def dead_letters(self, connection: str, quota: Quota | None, number: int) -> None:
        """Count dead letters; raises RequestRefusedError (429) when there were too many before these."""
        if number:
            self._take(connection, "dead letters", self._limit(quota, "dead_letters"), number)

    def hold(self, connection: str, quota: Quota | None, size: int) -> bool:
        """Count the bytes of a request in progress; return whether they are counted, so that they must be released.

        Raises:
            RequestRefusedError: 429, the connection's requests in progress hold too many.

        """
        if quota is None and self._unlimited:
            return False
        limit = self._limit(quota, "held_bytes")
        if limit is None:
            return False
        held = self._held.get(connection, 0)
        if held and held + size > limit:
            raise _refused("bytes held at one time", limit, 1)
        self._held[connection] = held + size
        return True

    def release(self, connection: str, size: int) -> None:
        """Count out the bytes of a request that is done."""
        left = self._held[connection] - size
        if left:
            self._held[connection] = left
        else:
            del self._held[connection]

    def _limit(self, quota: Quota | None, name: str) -> int | None:
        own: int | None = getattr(quota, name, None)
        found: int | None = getattr(self._default, name) if own is None else own
        return found or None

    def _take(self, connection: str, what: str, rate: int | None, number: int) -> None:
        if rate is None:
            return
        now = self._clock.monotonic()
        key = (connection, what)
        bucket = self._buckets.pop(key, None)
        if bucket is None and len(self._buckets) >= _FORGET:
            del self._buckets[next(iter(self._buckets))]
        # move it to the end, because the least recently used is forgotten first
        bucket = self._buckets[key] = bucket or _Bucket(rate, now)
        if seconds := bucket.take(number, now):
            raise _refused(f"{what} a second", rate, math.ceil(seconds))


def _refused(what: str, limit: int, seconds: int) -> RequestRefusedError:
    return RequestRefusedError(
        429, f"this connection has reached its quota of {limit} {what}", retry_after=min(seconds, 60)
    )
