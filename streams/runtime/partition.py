"""One partition of a table while this worker owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from tallystream.streams.runtime.changelog import Position, Watermark, reserved, version_number
from tallystream.streams.runtime.store import RowStore


class Partition:
    """An owned and recovered partition: it exists, with its caches, from the end of recovery to the next revocation.

    For a fold: `number`: the partition's number; `cache`: decoded states by key; `dirty`: the states changed since the
    last group; put every state you change here; `watermark`: the current one; a key that it closes must not be counted
    any more; `settled`: skip a record of a closed key with a version below this one, because it was counted or refused
    before the watermark took effect; refuse one at or above it; `expected`: the next source offset to fold. `applied`:
    the position the changelog has acknowledged.
    """

    __slots__ = (
        "_store",
        "applied",
        "cache",
        "capacity",
        "dirty",
        "expected",
        "expired",
        "expiry",
        "generation",
        "newest_ms",
        "number",
        "repaired",
        "seen",
        "settled",
        "still",
        "swept",
        "task",
        "tombstone",
        "unacked_since",
        "waiting",
        "wake",
        "watermark",
    )

    def __init__(self, number: int, store: RowStore, position: Position, watermark: Watermark | None = None) -> None:
        self.number = number
        self._store = store
        self.cache: dict[bytes, Any] = {}
        self.dirty: dict[bytes, Any] = {}
        self.watermark = None if watermark is None else watermark.value
        self.settled = -1 if watermark is None else watermark.since
        self.generation = position.generation
        self.expected = position.offset
        self.newest_ms = position.append_ms
        """Append time of the record before `expected`."""
        self.applied = position
        self.waiting = False
        """Whether something was folded that is not part of a group yet."""
        self.unacked_since: float | None = None
        """Monotonic time since which folded records have been waiting for their acknowledgement."""
        self.wake = asyncio.Event()
        self.capacity = asyncio.Event()
        """Cleared while too many folded records are not acknowledged."""
        self.capacity.set()
        self.task: asyncio.Task[None] | None = None
        self.expiry: asyncio.Task[None] | None = None
        self.tombstone = self.watermark
        """The watermark that the changelog has acknowledged; the keys it closes may be removed."""
        self.swept = asyncio.Event()
        """Set when all tombstones have been written."""
        self.expired: list[bytes] = []
        """Closed keys whose tombstones go with the next group."""
        self.repaired = float("-inf")
        """Time of the last seek back."""
        self.seen = -1
        """Watch: `expected` at the last tick."""
        self.still = 0
        """Watch: ticks without progress."""

    def version(self, offset: int) -> int:
        """Return the version for the record at `offset`, which is comparable with every version of the partition."""
        return version_number(self.generation, offset)

    def stored_chunks(self, size: int) -> Iterator[list[bytes]]:
        """Yield the keys of all rows in the store, `size` at a time."""
        return self._store.chunks(self.number, size)

    @property
    def folded(self) -> Position:
        """Return the position after everything that has been folded."""
        return Position(self.expected, self.newest_ms, self.generation)

    @property
    def idle(self) -> bool:
        """Tell whether everything is written and acknowledged."""
        return not (self.waiting or self.dirty or self.expired or self.applied.offset < self.expected)

    def stored(self, key: bytes) -> bytes | None:
        """Return the acknowledged row of a key."""
        return self._store.read(self.number, key)

    def stored_keys(self, prefix: bytes) -> Iterator[bytes]:
        """Iterate over the keys of acknowledged rows that begin with `prefix`, in order."""
        return self._store.keys_with(self.number, prefix)

    def rows(self, is_closed: Callable[[bytes, bytes], bool]) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over the acknowledged rows, except reserved and closed ones."""
        for key, raw in self._store.items(self.number):
            if not reserved(key) and not (self.watermark is not None and is_closed(key, self.watermark)):
                yield key, raw

    def flush(self) -> None:
        """Request a commit soon, even when nothing new was folded."""
        self.waiting = True
        self.wake.set()

    def release(self) -> None:
        """Stop the tasks of the partition, which has been revoked."""
        for task in (self.task, self.expiry):
            if task is not None:
                task.cancel()
        self.capacity.set()
