"""Documents that changed and are not mapped yet. Keys only: what they hold is read when their turn comes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

DocumentKey = tuple[str, bytes]
"""Kind and key."""


class Backlog:
    """Kinds are served in the order of `kinds`: what others relate to comes first, and sweeps after what is new."""

    def __init__(self, kinds: Iterable[str]) -> None:
        self._fresh: dict[str, dict[bytes, int]] = {kind: {} for kind in kinds}
        self._swept: dict[str, dict[bytes, int]] = {kind: {} for kind in kinds}
        self._came = asyncio.Event()

    def __len__(self) -> int:
        return sum(map(len, self._fresh.values())) + self.swept

    @property
    def swept(self) -> int:
        """Return how many of them a sweep put in."""
        return sum(map(len, self._swept.values()))

    def add(self, kind: str, key: bytes, since_ms: int) -> None:
        """Note that a document changed; `since_ms` is when that was appended."""
        self._fresh[kind].setdefault(key, since_ms)
        self._came.set()

    def sweep(self, kind: str, keys: Iterable[bytes], now_ms: int) -> None:
        """Note documents that may have changed."""
        swept = self._swept[kind]
        for key in keys:
            swept.setdefault(key, now_ms)
        self._came.set()

    def take(self, most: int) -> tuple[str, Sequence[tuple[bytes, int]]] | None:
        """Hand out documents of one kind with their times, oldest first; None when there are none."""
        for queues in (self._fresh, self._swept):
            for kind, queue in queues.items():
                if queue:
                    keys = [key for key, _ in zip(queue, range(most), strict=False)]
                    return kind, [(key, queue.pop(key)) for key in keys]
        self._came.clear()
        return None

    async def wait(self) -> None:
        """Return when there may be something to take."""
        await self._came.wait()

    def since_ms(self) -> int | None:
        """Return the oldest time in it. Each queue is in order of arrival, so its first is its oldest."""
        queues = [queue for queues in (self._fresh, self._swept) for queue in queues.values() if queue]
        return min((next(iter(queue.values())) for queue in queues), default=None)

    def clear(self) -> None:
        """Forget everything."""
        for queues in (self._fresh, self._swept):
            for queue in queues.values():
                queue.clear()
