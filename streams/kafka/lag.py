"""The lag of a consumer group in records per partition: end offsets minus committed offsets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tallystream.streams.kafka.admin import new_admin
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings


@dataclass(frozen=True)
class PartitionLag:
    """Offsets of one partition; `committed` is None without a committed offset."""

    partition: int
    committed: int | None
    begin: int
    end: int

    @property
    def behind(self) -> int:
        """Records not yet counted; without a committed offset, all records in the partition."""
        if self.committed is None:
            return self.end - self.begin
        return max(0, self.end - max(self.committed, self.begin))

    @property
    def lost(self) -> int:
        """Records that retention or a truncation of the log's start removed before the group read them.

        They do not count as behind, because they can no longer be read. It is 0 without a committed offset.
        """
        return 0 if self.committed is None else max(0, self.begin - self.committed)

    @property
    def beyond(self) -> bool:
        """Whether the committed offset is beyond the end, so the topic is not the one that the group has read."""
        return self.committed is not None and self.committed > self.end


class GroupLag:
    """Reads the lag of one group on one topic repeatedly, over the same connections.

    Raises, from entering and from `read`:
        UnreachableError: Kafka did not answer within `timeout` seconds.
    """

    def __init__(self, kafka: KafkaSettings, group: str, topic: str, *, timeout: float = 10.0) -> None:
        self._kafka = kafka
        self._group = group
        self._topic = topic
        self._timeout = timeout
        self._partitions: list[TopicPartition] = []
        self._consumer: AIOKafkaConsumer | None = None
        self._admin: AIOKafkaAdminClient | None = None

    async def __aenter__(self) -> Self:
        try:
            async with self._answers():
                found = await partitions_of(self._kafka, self._topic)
                self._partitions = [TopicPartition(self._topic, partition) for partition in found]
                if self._partitions:
                    await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    async def read(self) -> list[PartitionLag]:
        """Return the lag of every partition; empty when the topic does not exist.

        The end offsets are fetched before the committed ones, so a lag of 0 means that all records present at the time
        of the call are counted. A group that never committed is behind by everything.
        """
        if self._consumer is None or self._admin is None:
            return []
        async with self._answers():
            begin = await self._consumer.beginning_offsets(self._partitions)
            end = await self._consumer.end_offsets(self._partitions)
            # Asking for named partitions does not fail for an unknown group, unlike asking for all: each is -1 then.
            found = await self._admin.list_consumer_group_offsets(self._group, partitions=self._partitions)
        positions = {at: position.offset for at, position in found.items() if position.offset >= 0}
        return [PartitionLag(at.partition, positions.get(at), begin[at], end[at]) for at in self._partitions]

    async def offsets_at(self, ms: int) -> dict[int, int]:
        """Return, by partition, the offset of the first record whose timestamp is not before `ms` since the epoch.

        Partitions without such a record are left out.
        """
        if self._consumer is None:
            return {}
        async with self._answers():
            found = await self._consumer.offsets_for_times(dict.fromkeys(self._partitions, ms))
        return {at.partition: one.offset for at, one in found.items() if one is not None}

    async def _open(self) -> None:
        self._consumer = new_consumer(self._kafka, beyond="latest")
        await start(self._consumer)
        self._consumer.assign(self._partitions)
        self._consumer.pause(*self._partitions)
        # Also lets the consumer's tasks start, because stopping it before that raises (aiokafka 0.14).
        await self._consumer.end_offsets(self._partitions)
        self._admin = new_admin(self._kafka)
        await start(self._admin)

    async def _close(self) -> None:
        for client in (self._consumer, self._admin):
            if client is not None:
                await close(client)

    @asynccontextmanager
    async def _answers(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):
                yield
        except (KafkaError, OSError, TimeoutError) as exc:
            raise unreachable(self._kafka, exc, "report its offsets") from exc
