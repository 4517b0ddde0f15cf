"""A record batch on its way to Kafka, and its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from tallystream.streams.gateway.errors import ProducerLostError
from tallystream.streams.gateway.message import Message, Place


class ProducerBatch:
    """Messages of one partition in flight, until they are `settled`: acknowledged, or `lost`.

    `leader` is the broker that had the partition when they were sent. `late`: they were not acknowledged in time.
    """

    __slots__ = ("_told", "_waiter", "late", "leader", "lost", "messages", "place", "settled", "since")

    def __init__(self, place: Place, leader: int, since: float) -> None:
        self.place = place
        self.leader = leader
        self.messages: list[Message] = []
        self.since = since
        self.late = False
        self.settled = False
        self.lost: ProducerLostError | None = None
        self._told: Callable[[ProducerBatch], None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def acked(self) -> bool:
        """Return whether Kafka has acknowledged them."""
        return self.settled and self.lost is None

    def tell(self, told: Callable[[ProducerBatch], None]) -> None:
        """Call this function as soon as the batch is settled; only one can be told."""
        if self.settled:
            told(self)
        else:
            self._told = told

    def settle(self, lost: ProducerLostError | None = None) -> None:
        """Note the outcome, and tell who waits for it."""
        if self.settled:
            return
        self.settled, self.lost = True, lost
        if self._told is not None:
            self._told(self)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def waiter(self) -> asyncio.Future[None]:
        """Return a future that is done when the batch is settled, for those who need not know at once."""
        if self._waiter is None:
            self._waiter = asyncio.get_running_loop().create_future()
            if self.settled:
                self._waiter.set_result(None)
        return self._waiter


async def settled(batches: Iterable[ProducerBatch], within: float | None = None) -> None:
    """Return when all batches are settled, or after `within` seconds."""
    waiters = [batch.waiter() for batch in batches if not batch.settled]
    if waiters:
        await asyncio.wait(waiters, timeout=within)
