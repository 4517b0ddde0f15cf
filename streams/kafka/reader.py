"""The read-to-end reader: reads every partition from its beginning to the end offsets at the start of the read.

It serves the commands that show tables (`cost`, `connections list`, `deadletters`), without a consumer group or
commits. Offsets may have gaps (compaction, retention, transaction markers) and need not begin at 0. Partitions are read
one after the other, so that a reader that keeps the newest record of each key needs memory for only one partition.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, NodeNotReadyError

from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.settings import KafkaSettings

STALL = 30.0
"""Default timeout without any progress, in seconds."""
POLL_MS = 200
FETCH_BYTES = 16 << 20
FETCH_WAIT = 0.05
"""Seconds. Kept short, because a gap at a partition's end can only be detected by an empty fetch."""


class TopicBatch(NamedTuple):
    """Records of one partition in offset order; all batches of a partition come before those of the next."""

    partition: int
    records: Sequence[ConsumerRecord]
    """`key`, `value` (None: a tombstone), `offset`, `timestamp` (ms since the epoch)."""


@dataclass(frozen=True)
class Extent:
    """Begin and end offsets of a topic by partition; empty when the topic does not exist."""

    topic: str
    begin: Mapping[int, int]
    end: Mapping[int, int]

    @property
    def exists(self) -> bool:
        """Return whether the topic exists."""
        return bool(self.end)

    @property
    def offsets(self) -> int:
        """Return the number of offsets between beginnings and ends, an upper bound of the number of records."""
        return sum(self.end[partition] - self.begin[partition] for partition in self.end)


Progress = Callable[[int, int], None]
"""Called after every batch with (offsets passed, total offsets)."""


class TopicReader:
    """Reads one topic once. `extent` is known once entered; then iterate over `batches()`.

    With `since_ms` (since the epoch) it begins, in each partition, at the first record that is not older.

    Raises, from entering and from iterating:
        UnreachableError: Kafka did not answer, or a read made no progress for `stall` seconds.
    """

    extent: Extent

    def __init__(self, kafka: KafkaSettings, topic: str, *, stall: float = STALL, since_ms: int | None = None) -> None:
        self._kafka = kafka
        self._topic = topic
        self._stall = stall
        self._since_ms = since_ms
        self._partitions: list[TopicPartition] = []
        self._consumer: AIOKafkaConsumer | None = None

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._stall):
                while not await self._entered():  # noqa: ASYNC110 - nothing would set an event
                    await asyncio.sleep(POLL_MS / 1000)
        except BaseException as exc:
            await self._close()
            if isinstance(exc, KafkaError | OSError | TimeoutError):
                raise unreachable(self._kafka, exc) from exc
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._close()

    async def _entered(self) -> bool:
        """Fetch the extent; False when the connection was lost meanwhile and a retry may succeed."""
        try:
            partitions = await partitions_of(self._kafka, self._topic)
            self._partitions = [TopicPartition(self._topic, partition) for partition in partitions]
            self.extent = await self._open() if partitions else Extent(self._topic, {}, {})
        except NodeNotReadyError:
            await self._close()
            return False
        return True

    async def _open(self) -> Extent:
        """Fetch the offsets. The ends come first, because a beginning that moves in between only shortens the range."""
        self._consumer = new_consumer(
            self._kafka, fetch_wait=FETCH_WAIT, partition_bytes=FETCH_BYTES, answer_bytes=2 * FETCH_BYTES
        )
        await start(self._consumer)
        # Assigned only once, because stopping a consumer while its fetcher changes assignments may hang (aiokafka
        # 0.14).
        self._consumer.assign(self._partitions)
        self._consumer.pause(*self._partitions)
        end = await self._consumer.end_offsets(self._partitions)
        begin = await self._consumer.beginning_offsets(self._partitions)
        if self._since_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(self._partitions, max(0, self._since_ms)))
            begin = {at: end[at] if (one := found[at]) is None else max(begin[at], one.offset) for at in begin}
        return Extent(
            self._topic,
            {at.partition: offset for at, offset in begin.items()},
            {at.partition: offset for at, offset in end.items()},
        )

    async def _close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await close(consumer)

    async def batches(self, progress: Progress | None = None) -> AsyncGenerator[TopicBatch, None]:
        """Yield the topic's records as of entering, partition by partition."""
        extent, passed, total = self.extent, 0, self.extent.offsets
        if self._consumer is None:
            return
        for at in self._partitions:
            self._consumer.seek(at, extent.begin[at.partition])
        for at in self._partitions:
            begin, end = extent.begin[at.partition], extent.end[at.partition]
            if begin >= end:
                continue
            async with aclosing(self._partition(self._consumer, at, end)) as records:
                async for position, batch in records:
                    if progress is not None:
                        progress(passed + min(position, end) - begin, total)
                    if batch:
                        yield TopicBatch(at.partition, batch)
            passed += end - begin

    async def _partition(
        self, consumer: AIOKafkaConsumer, at: TopicPartition, end: int
    ) -> AsyncGenerator[tuple[int, list[ConsumerRecord]], None]:
        """Yield (position after the batch, batch) until the position reaches the end, or only a gap is left before
        it.
        """
        consumer.resume(at)
        moved, position = time.monotonic(), await consumer.position(at)
        rested = consumer.last_poll_timestamp(at)
        try:
            while position < end:
                # If a fetch after the last position change did not return records, the rest up to the end was removed.
                answered = consumer.last_poll_timestamp(at)
                try:
                    found = await consumer.getmany(at, timeout_ms=POLL_MS)
                except KafkaError as exc:
                    raise unreachable(self._kafka, exc) from exc
                before, position = position, await consumer.position(at)
                if position != before:
                    moved, rested = time.monotonic(), consumer.last_poll_timestamp(at)
                    records = found.get(at, [])
                    if position >= end:
                        # Must precede the next await; otherwise the fetcher long-polls this partition while the next
                        # one waits.
                        consumer.pause(at)
                        records = [record for record in records if record.offset < end]
                    yield position, records
                elif answered != rested and (consumer.highwater(at) or 0) >= end:
                    yield end, []
                    return
                elif time.monotonic() - moved > self._stall:
                    raise unreachable(self._kafka, f"no records of {self._topic} for {self._stall:g} s")
        finally:
            consumer.pause(at)


async def latest(
    kafka: KafkaSettings, topic: str, *, stall: float = STALL, progress: Progress | None = None
) -> dict[bytes, bytes]:
    """Return the newest value of each key, as compaction would: later records win, tombstones remove.

    For topics that fit in memory. A topic that does not exist is empty.

    Raises:
        UnreachableError: Kafka did not answer, or made no progress for `stall` seconds.

    """
    values: dict[bytes, bytes] = {}
    async with TopicReader(kafka, topic, stall=stall) as reader, aclosing(reader.batches(progress)) as batches:
        async for batch in batches:
            for record in batch.records:
                key = record.key or b""
                if record.value is None:
                    values.pop(key, None)
                else:
                    values[key] = record.value
    return values


async def partitions_of(kafka: KafkaSettings, topic: str) -> list[int]:
    """Return the topic's partitions, empty when it does not exist. Requesting it by name could create it."""
    async with administering(kafka) as admin:
        if topic not in await admin.list_topics():
            return []
        found = await admin.describe_topics([topic])
        return sorted(partition["partition"] for partition in found[0]["partitions"])
