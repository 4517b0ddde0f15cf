"""The backlog of changed documents that are not mapped yet. It holds only keys; the contents are read when they are
mapped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Waiting(NamedTuple):
    """Since when a document waits, and when the oldest change that made it wait was appended (None: nothing changed
    that we know of, it is only to be compared or sent again). Both in ms since the epoch.
    """

    ms: int
    appended_ms: int | None


class Backlog:
    """Kinds are served in the order of `kinds`: relation targets come first, and sweeps come after new changes."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self._fresh: dict[str, dict[bytes, Waiting]] = {kind: {} for kind in kinds}
        self._swept: dict[str, dict[bytes, Waiting]] = {kind: {} for kind in kinds}
        self._taken = 0
        self._came = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._fresh.values())) + self.swept + self._taken

    @property
    def swept(self) -> int:
        """Return the number of documents added by sweeps."""
        return sum(map(len, self._swept.values()))

    def add(self, kind: str, key: bytes, appended_ms: int) -> None:
        """Note that a document changed, and when that was appended."""
        have = self._fresh[kind].get(key)
        if have is None:
            self._fresh[kind][key] = Waiting(appended_ms, appended_ms)
        elif have.appended_ms is None:
            self._fresh[kind][key] = Waiting(have.ms, appended_ms)
        self._came.set()

    def again(self, kind: str, key: bytes, now_ms: int) -> None:
        """Note that a document is to be sent again."""
        self._fresh[kind].setdefault(key, Waiting(now_ms, None))
        self._came.set()

    def resync(self, kind: str, keys: Iterable[bytes], now_ms: int) -> None:
        """Note documents that may have changed."""
        swept = self._swept[kind]
        for key in keys:
            swept.setdefault(key, Waiting(now_ms, None))
        self._came.set()

    def take(self, most: int) -> tuple[str, Sequence[tuple[bytes, Waiting]]] | None:
        """Hand out documents of one kind with their times, oldest first; None when there are none. They count as
        waiting until the next call, or `mapped`.
        """
        self._taken = 0
        for queues in (self._fresh, self._swept):
            for kind, queue in queues.items():
                if queue:
                    keys = [key for key, _ in zip(queue, range(most), strict=False)]
                    self._taken = len(keys)
                    return kind, [(key, queue.pop(key)) for key in keys]
        self._came.clear()
        return None

    def mapped(self) -> None:
        """Note that the taken documents have been mapped."""
        self._taken = 0

    async def wait(self) -> None:
        """Wait until there may be something to take."""
        await self._came.wait()

    def since_ms(self) -> int | None:
        """Return the oldest time in it. Each queue is in order of arrival, so its first is its oldest."""
        queues = [queue for queues in (self._fresh, self._swept) for queue in queues.values() if queue]
        return min((next(iter(queue.values())).ms for queue in queues), default=None)

    def clear(self) -> None:
        """Forget everything."""
        self._taken = 0
        for queues in (self._fresh, self._swept):
            for queue in queues.values():
                queue.clear()
