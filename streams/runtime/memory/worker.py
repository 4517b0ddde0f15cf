"""A worker in memory that is driven step by step, and a group whose assignment the caller decides."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

from aiokafka.structs import TopicPartition

from tallystream.streams.runtime.engine import Engine
from tallystream.streams.runtime.fold import Fold
from tallystream.streams.runtime.memory.host import MemoryHost
from tallystream.streams.runtime.store import MemoryStore, RowStore

TURNS = 12
"""Turns of the event loop after which everything that can proceed without a batch landing has done so."""


class MemoryWorker:
    """An engine on a MemoryHost. `store` may be a former worker's, like a disk; use it in one running event loop.

    It does not read by itself: `deliver` passes the next records, as a consumer would.
    """

    def __init__(
        self,
        host: MemoryHost,
        fold: Fold,
        *,
        source: str,
        changelog: str,
        store: RowStore | None = None,
        topic_ids: Mapping[str, str] | None = None,
        accept_loss: bool = False,
        engine: type[Engine] = Engine,
    ) -> None:
        self.host = host
        self.fold = fold
        self.store: RowStore = MemoryStore() if store is None else store
        self.engine = engine(
            fold, host, self.store, source=source, changelog=changelog, topic_ids=topic_ids, accept_loss=accept_loss
        )
        host.on_crash = self.engine.revoke_all

    @property
    def alive(self) -> bool:
        """Tell whether it has not crashed."""
        return self.host.crashed is None

    @property
    def owned(self) -> list[int]:
        """Return the partitions that it folds, or believes it folds."""
        return sorted(tp.partition for tp in self.engine.expected())

    async def assign(self, partitions: Collection[int]) -> None:
        """Assign exactly these partitions: it drops its in-memory state and recovers.

        Raises:
            WorkerCrashedError: it cannot.

        """
        self.engine.revoke_all()
        self.engine.assign(set(partitions))
        await self.engine.recover(sorted(partitions), lambda: self.alive)
        self.host.positions = dict(self.engine.expected())

    async def deliver(self, p: int, count: int | None = None) -> int:
        """Pass on the next records of a partition, at most `count`; return their number.

        Raises:
            WorkerCrashedError: the engine refuses them.

        """
        tp = TopicPartition(self.engine.source, p)
        records = self.host.broker.fetch(tp, self.host.positions[tp], count)
        if records:
            self.host.positions[tp] = records[-1].offset + 1
            try:
                await self.engine.accept(p, records)
            except Exception as exc:  # noqa: BLE001 - as a host must
                self.host.fail_fast(exc)
        return len(records)

    def skip(self, p: int, count: int) -> None:
        """Lose the next records on the way to the engine, as happens around a rebalance."""
        tp = TopicPartition(self.engine.source, p)
        self.host.positions[tp] = min(self.host.positions[tp] + count, self.host.broker.end(tp))

    async def settle(self) -> None:
        """Let everything proceed that can without another batch landing."""
        for _ in range(TURNS):
            await asyncio.sleep(0)

    def crash(self, why: str = "killed") -> None:
        """End it as kill -9 does; what is in flight may still land."""
        if self.alive:
            self.host.crashed = why
            self.engine.revoke_all()


class MemoryGroup:
    """The members of a consumer group by name; the caller decides the assignment."""

    def __init__(self) -> None:
        self.members: dict[str, MemoryWorker] = {}
        self.assignment: dict[str, set[int]] = {}

    async def rebalance(self, assignment: Mapping[str, Collection[int]], unaware: Collection[str] = ()) -> None:
        """Apply this assignment. All members first drop their state, as before JoinGroup; then each recovers.

        `unaware` members are not notified: they continue with the partitions they believe to own.
        """
        self.assignment = {name: set(partitions) for name, partitions in assignment.items()}
        aware = [name for name, worker in self.members.items() if worker.alive and name not in unaware]
        for name in aware:
            self.members[name].engine.revoke_all()
        for name in aware:
            await self.members[name].assign(self.assignment.get(name, set()))
