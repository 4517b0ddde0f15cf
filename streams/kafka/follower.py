"""Follows compacted topics without a consumer group, from positions that the caller keeps.

Compacted topics have gaps in their offsets. A consumer with manually assigned partitions skips them correctly, because
it delivers the next existing record from a position on. The positions belong to the reader instead of a group, so
partitions cannot be revoked and offsets are not committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.errors import TopicRecreatedError, unreachable
from tallystream.streams.kafka.lifecycle import close, own_cancel_only, start
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.task_watch import check_tasks

POLL_MS = 200
FETCH_WAIT = 0.1
"""Seconds."""
MAX_RECORDS = 2000
"""Maximum records per `poll`, which bounds how long applying them blocks the event loop."""
FETCH_BYTES = 8 << 20


class FollowerPosition(NamedTuple):
    """The next offset to read, and the timestamp of the record before it (-1: unknown)."""

    offset: int
    timestamp: int = -1


@dataclass(frozen=True)
class FollowedBatch:
    """Records of one partition in offset order; `after` is the position after them."""

    topic: str
    partition: int
    records: Sequence[ConsumerRecord]
    after: FollowerPosition


class TopicFollower:
    """Reads topics from `positions` (by topic and partition; by default the beginning), as a context manager.

    Raises, from entering and from every call that asks Kafka:
        UnreachableError: Kafka did not answer within `timeout` seconds, or the client gave up what it was asked.
        TopicRecreatedError: a position is beyond the end, or the record before it is a different one.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Iterable[str],
        positions: Mapping[tuple[str, int], FollowerPosition],
        *,
        timeout: float = 30.0,
    ) -> None:
        self._kafka = kafka
        self._topics = tuple(topics)
        self._given = dict(positions)
        self._timeout = timeout
        self._consumer: AIOKafkaConsumer | None = None
        self._ends: dict[TopicPartition, int] = {}
        self._check: dict[TopicPartition, FollowerPosition] = {}
        self._rest: dict[TopicPartition, tuple[int, int]] = {}
        """Position, and since when (ms) it has not changed."""
        self._quiet: set[TopicPartition] = set()
        """Partitions for which the last poll was empty although a fetch had been answered."""

    async def __aenter__(self) -> Self:
        try:
            async with self._answers():
                await self._open()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def behind(self) -> int:
        """Return the number of offsets up to the last known ends; 0: caught up."""
        return sum(max(0, end - self._rest[at][0]) for at, end in self._ends.items())

    async def poll(self) -> list[FollowedBatch]:
        """Return new records, or nothing after `FETCH_WAIT` without any."""
        async with self._answers():
            return await self._poll()

    @asynccontextmanager
    async def _answers(self) -> AsyncIterator[None]:
        try:
            with own_cancel_only():
                async with asyncio.timeout(self._timeout):
                    yield
        except (KafkaError, OSError) as exc:  # a TimeoutError is an OSError
            raise unreachable(self._kafka, exc) from exc

    async def _poll(self) -> list[FollowedBatch]:
        consumer = self._opened()
        asked = {at: consumer.last_poll_timestamp(at) or 0 for at in self._ends if self._rest[at][0] < self._ends[at]}
        quiet, self._quiet = self._quiet, set()
        check_tasks(consumer)
        try:
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        except OffsetOutOfRangeError as exc:
            await self._skip(exc)
            return []
        batches = [batch for at, records in found.items() if (batch := self._batch(at, records)) is not None]
        # After a full answer, other partitions may still wait for their turn in the client.
        if sum(map(len, found.values())) < MAX_RECORDS:
            await self._note(asked, quiet)
        for batch in batches:
            at = TopicPartition(batch.topic, batch.partition)
            if batch.after.offset > self._rest[at][0]:
                self._rest[at] = (batch.after.offset, _now_ms())
        return batches

    async def renew(self) -> None:
        """Fetch the current ends, to which `behind` then refers. They are first fetched on entering."""
        consumer = self._opened()
        async with self._answers():
            self._ends = await consumer.end_offsets(list(self._ends)) if self._ends else {}
            positions = {at: await consumer.position(at) for at in self._ends}
        for at, end in self._ends.items():
            position = positions[at]
            if position > end:
                raise TopicRecreatedError(f"{at.topic}-{at.partition}: read up to {position}, it ends at {end}")
            if position > self._rest[at][0]:
                self._rest[at] = (position, _now_ms())

    async def begins(self) -> dict[tuple[str, int], int]:
        """Fetch the first available offset, by topic and partition."""
        consumer = self._opened()
        async with self._answers():
            found = await consumer.beginning_offsets(list(self._ends)) if self._ends else {}
        return {(at.topic, at.partition): offset for at, offset in found.items()}

    def ends(self) -> dict[tuple[str, int], int]:
        """Return the last known end, by topic and partition."""
        return {(at.topic, at.partition): end for at, end in self._ends.items()}

    def positions(self) -> dict[tuple[str, int], int]:
        """Return the offset up to which it was read, by topic and partition, as of the last `poll`."""
        return {(at.topic, at.partition): position for at, (position, _) in self._rest.items()}

    def pause(self, topics: Iterable[str]) -> None:
        """Stop reading these topics until `resume`."""
        self._opened().pause(*self._partitions(topics))

    def resume(self, topics: Iterable[str]) -> None:
        """Read these topics again."""
        self._opened().resume(*self._partitions(topics))

    async def _open(self) -> None:
        partitions = [
            TopicPartition(topic, p) for topic in self._topics for p in await partitions_of(self._kafka, topic)
        ]
        consumer = self._consumer = new_consumer(
            self._kafka,
            beyond="none",
            fetch_wait=FETCH_WAIT,
            partition_bytes=FETCH_BYTES,
            answer_bytes=2 * FETCH_BYTES,
        )
        await start(consumer)
        if not partitions:
            return
        consumer.assign(partitions)
        self._ends = await consumer.end_offsets(partitions)
        begins = await consumer.beginning_offsets(partitions)
        for at in partitions:
            given = self._given.get((at.topic, at.partition))
            first = begins[at]
            if given is not None and given.offset > self._ends[at]:
                raise TopicRecreatedError(
                    f"{at.topic}-{at.partition}: read up to {given.offset}, it ends at {self._ends[at]}"
                )
            if given is not None and given.offset > begins[at]:
                # Read one record earlier: if it still exists, it must be the one that was read.
                first = given.offset - 1
                self._check[at] = given
            consumer.seek(at, first)
            self._rest[at] = (first, _now_ms())

    def _batch(self, at: TopicPartition, records: Sequence[ConsumerRecord]) -> FollowedBatch | None:
        given = self._check.pop(at, None)
        if given is not None and records[0].offset < given.offset:
            if given.timestamp not in (-1, records[0].timestamp):
                raise TopicRecreatedError(f"{at.topic}-{at.partition}: the record at {given.offset - 1} has changed")
            records = records[1:]
        if not records:
            return None
        return FollowedBatch(
            at.topic, at.partition, records, FollowerPosition(records[-1].offset + 1, records[-1].timestamp)
        )

    async def _note(self, asked: Mapping[TopicPartition, int], quiet: AbstractSet[TopicPartition]) -> None:
        """Advance positions to the ends. Compaction may have removed all records before an end, which shows when a
        fetch after the last position change returns nothing. This must happen twice in a row, because a poll that ends
        early, due to another partition's error, leaves records for the next one.
        """
        consumer = self._opened()
        for at, answered in asked.items():
            position = await consumer.position(at)
            rested, since = self._rest[at]
            if position != rested:
                self._rest[at] = (position, _now_ms())
            elif answered > since and (consumer.highwater(at) or 0) >= self._ends[at]:
                if at in quiet:
                    self._rest[at] = (self._ends[at], since)
                else:
                    self._quiet.add(at)

    async def _skip(self, exc: Any) -> None:
        """Continue at the beginning of partitions whose next records were removed by retention."""
        consumer = self._opened()
        gone = [at for at in self._ends if at in (exc.args[0] if exc.args else ())]
        begins = await consumer.beginning_offsets(gone)
        for at in gone:
            if await consumer.position(at) < begins[at]:
                consumer.seek(at, begins[at])
            else:
                raise TopicRecreatedError(f"{at.topic}-{at.partition} ends before the position")

    def _partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        wanted = set(topics)
        return [at for at in self._ends if at.topic in wanted]

    def _opened(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "used outside of its context"
        return self._consumer

    async def _close(self) -> None:
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await close(consumer)


def _now_ms() -> int:
    """Return the time of the clock with which aiokafka timestamps its polls."""
    return int(time.time() * 1000)
