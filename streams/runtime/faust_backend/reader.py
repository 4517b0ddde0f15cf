"""Reads topics without a group, with a separate consumer, because Faust's consumer stops during every rebalance."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.structs import TopicPartition

from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.runtime.faust_backend.light_records import lighten

WAIT_MS = 500


class KafkaReader:
    """`host.Reader` on aiokafka.

    Relies on `AIOKafkaConsumer._client.set_topics` (aiokafka/client.py): requesting offsets of topics that the client
    does not track takes 0.1 s each.
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    async def begins(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offset that each partition still has."""
        await self._track(partitions)
        begins: Mapping[TopicPartition, int] = await self._consumer.beginning_offsets(list(partitions))
        return begins

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset that each partition's next record will get."""
        await self._track(partitions)
        ends: Mapping[TopicPartition, int] = await self._consumer.end_offsets(list(partitions))
        return ends

    async def _track(self, partitions: Collection[TopicPartition]) -> None:
        assigned: set[TopicPartition] = self._consumer.assignment()
        await self._consumer._client.set_topics({tp.topic for tp in {*partitions, *assigned}})  # noqa: SLF001 - above

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions, from these offsets on."""
        self._consumer.assign(list(positions))
        for partition, offset in positions.items():
            self._consumer.seek(partition, offset)

    async def poll(
        self, partitions: Collection[TopicPartition], max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[Any]]:
        """Return the next records of some of the partitions; empty when none arrive within half a second."""
        got: Mapping[TopicPartition, Sequence[Any]] = await self._consumer.getmany(
            *partitions, timeout_ms=WAIT_MS, max_records=max_records
        )
        return got

    async def position(self, partition: TopicPartition) -> int:
        """Return the next offset to read."""
        position: int = await self._consumer.position(partition)
        return position

    async def first_after(self, partition: TopicPartition, append_ms: int) -> int | None:
        """Return the offset of the first record that was appended after `append_ms`, None without one."""
        found = (await self._consumer.offsets_for_times({partition: append_ms + 1}))[partition]
        return None if found is None else int(found.offset)


@asynccontextmanager
async def kafka_reader(kafka: KafkaSettings, fetch_bytes: int) -> AsyncIterator[KafkaReader]:
    """Open a reader, which fails instead of continuing at another offset than requested.

    Raises:
        KafkaError: Kafka does not answer.

    """
    consumer = new_consumer(kafka, beyond="none", partition_bytes=fetch_bytes)
    async with opened(consumer):
        lighten(consumer)
        yield KafkaReader(consumer)
