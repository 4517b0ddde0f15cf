"""Finds the timestamp of the first record at or after an offset."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from aiokafka import TopicPartition

from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.settings import KafkaSettings

Place = tuple[TopicPartition, int]
POLL_MS = 200
FETCH_BYTES = 16 << 10
"""Kafka always sends the first record batch completely, and more than that is not needed."""


class Stamps:
    """Reads timestamps from a fixed set of partitions over one connection, and caches those that are still requested.

    Raises, from everything: KafkaError, OSError, TimeoutError when Kafka does not answer within `timeout` seconds.
    """

    def __init__(self, kafka: KafkaSettings, partitions: Sequence[TopicPartition], *, timeout: float) -> None:
        self.partitions = tuple(partitions)
        self._timeout = timeout
        self._known: dict[Place, int | None] = {}
        self._consumer = new_consumer(kafka, fetch_wait=0.05, partition_bytes=FETCH_BYTES)

    async def open(self) -> None:
        """Connect."""
        async with asyncio.timeout(self._timeout):
            await start(self._consumer)
            self._consumer.assign(self.partitions)
            self._consumer.pause(*self.partitions)
            await self._consumer.end_offsets(self.partitions)

    async def close(self) -> None:
        """Disconnect without waiting long."""
        await close(self._consumer)

    async def extent(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Return the first and the end offsets of all partitions."""
        async with asyncio.timeout(self._timeout):
            ends = await self._consumer.end_offsets(self.partitions)
            return await self._consumer.beginning_offsets(self.partitions), ends

    async def read(self, places: Iterable[Place], ends: dict[TopicPartition, int]) -> dict[Place, int | None]:
        """Return the timestamp (ms) of the record at each offset; None if no record is left from there to the end."""
        wanted = set(places)
        self._known = {place: stamp for place, stamp in self._known.items() if place in wanted}
        async with asyncio.timeout(self._timeout):
            while missing := dict(wanted - self._known.keys()):  # one offset for each partition and round
                await self._round(missing, ends)
        return self._known

    async def _round(self, places: dict[TopicPartition, int], ends: dict[TopicPartition, int]) -> None:
        consumer = self._consumer
        for at, offset in places.items():
            consumer.seek(at, offset)
        consumer.resume(*places)
        waiting = dict(places)
        try:
            while waiting:
                found = await consumer.getmany(*waiting, timeout_ms=POLL_MS, max_records=1)
                for at, records in found.items():
                    self._known[at, waiting.pop(at)] = records[0].timestamp
                    consumer.pause(at)
                if not found:
                    for at in list(waiting):
                        # Compaction may have removed all records between here and the end.
                        if await consumer.position(at) >= ends[at]:
                            self._known[at, waiting.pop(at)] = None
                            consumer.pause(at)
        finally:
            consumer.pause(*places)
