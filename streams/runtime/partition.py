"""One partition of a table while this worker owns it."""

from __future__ import annotations

import asyncio
from typing import Any

from tallystream.streams.runtime.changelog import Closed, Position


class Part:
    """An owned and recovered partition: it lives, with its caches, from the end of recovery to the next revocation.

    For `fold`:
    `cache`: decoded states by key;
    `dirty`: the states changed since the last group; put every state you change here;
    `closed`: the marker in force; a key that it closes must not be counted any more;
    `settled`: a record of a closed key below this offset is seen again (it was counted or refused before the marker
    came into force): pass over it; one at or above it is refused;
    `expected`: the next source offset to fold. `applied`: the position the changelog has acknowledged.
    """

    __slots__ = (
        "applied",
        "cache",
        "closed",
        "dirty",
        "expected",
        "expired",
        "expiry",
        "newest_ms",
        "repaired",
        "room",
        "seen",
        "settled",
        "still",
        "swept",
        "task",
        "tombstone",
        "unacked_since",
        "waiting",
        "wake",
    )

    def __init__(self, position: Position, closed: Closed | None = None) -> None:
        self.cache: dict[bytes, Any] = {}
        self.dirty: dict[bytes, Any] = {}
        self.closed = None if closed is None else closed.marker
        self.settled = -1 if closed is None else closed.since
        self.expected = position.offset
        self.newest_ms = position.append_ms
        """Append time of the record before `expected`."""
        self.applied = position
        self.waiting = False
        """Something was folded that no group has taken yet."""
        self.unacked_since: float | None = None
        """Monotonic time since when something folded is not acknowledged."""
        self.wake = asyncio.Event()
        self.room = asyncio.Event()
        self.room.set()
        self.task: asyncio.Task[None] | None = None
        self.expiry: asyncio.Task[None] | None = None
        self.tombstone = self.closed
        """The marker that the changelog has acknowledged: closed keys below it may be removed."""
        self.swept = asyncio.Event()
        """Set when no tombstones are waiting."""
        self.expired: list[bytes] = []
        """Closed keys whose tombstones go with the next group."""
        self.repaired = float("-inf")
        """Time of the last seek back."""
        self.seen = -1
        """Watch: `expected` at the last tick."""
        self.still = 0
        """Watch: ticks without progress."""

    @property
    def folded(self) -> Position:
        """Return the position after everything that has been folded."""
        return Position(self.expected, self.newest_ms)
