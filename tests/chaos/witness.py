"""Snapshots of the topics' offsets, taken while a process is dead and judged at the end of the run."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime.changelog import POSITION, Position

T = TypeVar("T")
Offsets = Mapping[int, int]
PATIENCE_MS = 4000
"""Timeout of a request, after which another broker is asked, because the leader may hang."""
GIVE_UP = 180.0
"""Seconds after which a missing answer of Kafka fails the run."""


@dataclass(frozen=True)
class Snapshot:
    """Read in this order, so that a value that must not be ahead of another one is read first."""

    at: float
    """Seconds since the epoch."""
    committed: Offsets
    """The group's offsets, of those that were committed since the witness began."""
    log_ends: Offsets
    """Of the changelog."""
    row_ends: Offsets
    positions: Offsets
    """The last position in each changelog partition below `log_ends`."""


class Witness:
    """Follows the changelog's positions in its own thread. `snapshot` and `usage_ends` are thread-safe."""

    def __init__(self, kafka: KafkaSettings, topics: Topics) -> None:
        self._kafka = kafka
        self._topics = topics
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._positions: dict[int, int] = dict.fromkeys(range(topics.partitions), 0)
        self._tail: asyncio.Task[None] | None = None
        self._inherited: Offsets = {}
        """The group's offsets when the witness began. A power cut may leave them ahead of the changelog, which lost its
        end: nobody reads them, because a position is only what the changelog says.
        """
        self._consumer: Any = None
        self._admin: Any = None
        self.snapshots: list[Snapshot] = []

    def start(self) -> None:
        self._thread.start()
        self._call(self._start())

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(Exception):
                self._call(self._stop(), 15)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5)
        if not self._loop.is_running():
            self._loop.close()

    def usage_ends(self) -> Offsets:
        """Return the ends of `usage`."""
        return self._call(self._ends(self._topics.usage.name))

    def positions(self) -> Offsets:
        """Return the positions that the changelog holds now."""
        return self._call(self._up_to_now())

    def waiting(self) -> int:
        """Return how many usage messages no position covers."""
        ends = self.usage_ends()
        positions = self.positions()
        return behind(ends, positions)

    def snapshot(self) -> Snapshot:
        """Take one and keep it."""
        taken = self._call(self._snapshot())
        self.snapshots.append(taken)
        return taken

    def _call(self, work: Coroutine[Any, Any, T], seconds: float = 2 * GIVE_UP) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    async def _start(self) -> None:
        self._consumer = await self._connected()
        self._consumer.assign(self._partitions(self._topics.session_hours_changelog.name))
        self._inherited = await self._committed()
        self._tail = asyncio.create_task(self._follow())

    async def _connected(self) -> Any:
        """Return a started consumer; a broker that has just started may take longer than a request's timeout."""
        deadline = time.monotonic() + GIVE_UP
        while True:
            consumer = AIOKafkaConsumer(
                **self._kafka.client(), group_id=None, enable_auto_commit=False, auto_offset_reset="earliest",
                max_partition_fetch_bytes=8 << 20, fetch_max_wait_ms=20, request_timeout_ms=PATIENCE_MS,
            )  # fmt: skip
            try:
                await start(consumer)
            except (KafkaError, OSError):
                await close(consumer)
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            else:
                return consumer

    async def _stop(self) -> None:
        if self._tail is not None:
            self._tail.cancel()
            await asyncio.wait([self._tail])
        await self._consumer.stop()

    def _partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, p) for p in range(self._topics.partitions)]

    async def _follow(self) -> None:
        while True:
            try:
                for at, records in (await self._consumer.getmany(timeout_ms=50)).items():
                    for record in records:
                        if record.key == POSITION:
                            with contextlib.suppress(ValueError):
                                self._positions[at.partition] = Position.decode(record.value).offset
            except (KafkaError, OSError):
                await asyncio.sleep(0.1)

    async def _ends(self, topic: str) -> Offsets:
        deadline = time.monotonic() + GIVE_UP
        consumer = self._consumer
        while True:
            try:
                if consumer is not self._consumer:
                    await start(consumer)
                ends = await consumer.end_offsets(self._partitions(topic))
                return {at.partition: end for at, end in ends.items()}
            except (KafkaError, OSError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
            finally:
                if consumer is not self._consumer:
                    await close(consumer)
            # A consumer that waits for a hung broker does not ask another one, but a new consumer finds the leader.
            consumer = AIOKafkaConsumer(**self._kafka.client(), group_id=None, request_timeout_ms=PATIENCE_MS)

    async def _up_to_now(self) -> Offsets:
        ends = await self._ends(self._topics.session_hours_changelog.name)
        await self._reached(ends)
        return dict(self._positions)

    async def _reached(self, ends: Offsets) -> None:
        partitions = self._partitions(self._topics.session_hours_changelog.name)
        async with asyncio.timeout(GIVE_UP):
            while any([await self._consumer.position(at) < ends[at.partition] for at in partitions]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def _snapshot(self) -> Snapshot:
        at = time.time()
        offsets = await self._committed()
        committed = {p: offset for p, offset in offsets.items() if offset > self._inherited.get(p, -1)}
        log_ends = await self._ends(self._topics.session_hours_changelog.name)
        row_ends = await self._ends(self._topics.session_hour_rows.name)
        await self._reached(log_ends)
        return Snapshot(at, committed, log_ends, row_ends, dict(self._positions))

    async def _committed(self) -> Offsets:
        deadline = time.monotonic() + GIVE_UP
        while True:
            admin = AIOKafkaAdminClient(**self._kafka.client(), request_timeout_ms=PATIENCE_MS)
            try:
                await admin.start()
                found = await admin.list_consumer_group_offsets(
                    self._topics.worker_app, partitions=self._partitions(self._topics.usage.name)
                )
                return {at.partition: one.offset for at, one in found.items() if one.offset >= 0}
            except (KafkaError, OSError):
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
            finally:
                await close(admin)


def behind(ends: Offsets, positions: Offsets) -> int:
    """Return how many messages lie between the positions and the ends."""
    return sum(max(0, end - positions.get(p, 0)) for p, end in ends.items())
