"""Following compacted topics from positions that the reader keeps, without a consumer group.

Offsets of a compacted topic have holes, and one consumer that assigns its partitions itself steps over them correctly:
it was asked for "from here on", so what it delivers next is what comes next. Positions are therefore the reader's, not
a group's; nobody can revoke a partition, and nothing is committed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.errors import TopicRecreatedError, unreachable
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.task_watch import check_tasks

POLL_MS = 200
FETCH_WAIT = 0.1
"""Seconds."""
MAX_RECORDS = 2000
"""Records in one answer of `poll`: bounds how long applying them may block the event loop."""
FETCH_BYTES = 8 << 20


class FollowerPosition(NamedTuple):
    """The next offset to read, and the timestamp of the record before it (-1: unknown)."""

    offset: int
    timestamp: int = -1


@dataclass(frozen=True)
class FollowedBatch:
    """Records of one partition in offset order; `after` is the position behind them."""

    topic: str
    partition: int
    records: Sequence[ConsumerRecord]
    after: FollowerPosition


class TopicFollower:
    """Reads topics from `positions` (by topic and partition; the beginning where there is none), as a context manager.

    Raises, from entering and from polling:
        UnreachableError: Kafka did not answer within `timeout` seconds.
        TopicRecreatedError: a position lies behind the end, or the record before it is another one.
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
        """Position, and since when (ms) it has been the same."""
        self._quiet: set[TopicPartition] = set()
        """Partitions of which the last poll found nothing although a fetch had been answered."""

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(self._timeout):
                await self._open()
        except BaseException as exc:
            await self._close()
            if isinstance(exc, KafkaError | OSError | TimeoutError):
                raise unreachable(self._kafka, exc) from exc
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    @property
    def behind(self) -> int:
        """Return how many offsets lie before the ends as they were when last asked for; 0: caught up."""
        return sum(max(0, end - self._rest[at][0]) for at, end in self._ends.items())

    async def poll(self) -> list[FollowedBatch]:
        """Return what has come in, nothing after a moment without anything."""
        consumer = self._opened()
        asked = {at: consumer.last_poll_timestamp(at) or 0 for at in self._ends if self._rest[at][0] < self._ends[at]}
        quiet, self._quiet = self._quiet, set()
        try:
            check_tasks(consumer)
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        except OffsetOutOfRangeError as exc:
            await self._skip(exc)
            return []
        except (KafkaError, OSError) as exc:
            raise unreachable(self._kafka, exc) from exc
        batches = [batch for at, records in found.items() if (batch := self._batch(at, records)) is not None]
        # An answer as large as it may be leaves others waiting for their turn in the client.
        if sum(map(len, found.values())) < MAX_RECORDS:
            await self._note(asked, quiet)
        for batch in batches:
            at = TopicPartition(batch.topic, batch.partition)
            if batch.after.offset > self._rest[at][0]:
                self._rest[at] = (batch.after.offset, _now_ms())
        return batches

    async def renew(self) -> None:
        """Ask for the ends anew; `behind` counts up to them from now on. They were asked for first when entered."""
        consumer = self._opened()
        try:
            self._ends = await consumer.end_offsets(list(self._ends)) if self._ends else {}
        except (KafkaError, OSError) as exc:
            raise unreachable(self._kafka, exc) from exc
        for at, end in self._ends.items():
            position = await consumer.position(at)
            if position > end:
                raise TopicRecreatedError(f"{at.topic}-{at.partition}: read up to {position}, it ends at {end}")
            if position > self._rest[at][0]:
                self._rest[at] = (position, _now_ms())

    async def begins(self) -> dict[tuple[str, int], int]:
        """Ask, by topic and partition, for the first offset that is still there."""
        consumer = self._opened()
        try:
            found = await consumer.beginning_offsets(list(self._ends)) if self._ends else {}
        except (KafkaError, OSError) as exc:
            raise unreachable(self._kafka, exc) from exc
        return {(at.topic, at.partition): offset for at, offset in found.items()}

    def ends(self) -> dict[tuple[str, int], int]:
        """Return, by topic and partition, where it ended when that was last asked for."""
        return {(at.topic, at.partition): end for at, end in self._ends.items()}

    def positions(self) -> dict[tuple[str, int], int]:
        """Return, by topic and partition, the offset up to which it was read, as known after the last `poll`."""
        return {(at.topic, at.partition): position for at, (position, _) in self._rest.items()}

    def pause(self, topics: Iterable[str]) -> None:
        """Read no more of these topics until `resume`."""
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
                # One record earlier: if it is still there it must be the one that was read.
                first = given.offset - 1
                self._check[at] = given
            consumer.seek(at, first)
            self._rest[at] = (first, _now_ms())

    def _batch(self, at: TopicPartition, records: Sequence[ConsumerRecord]) -> FollowedBatch | None:
        given = self._check.pop(at, None)
        if given is not None and records[0].offset < given.offset:
            if given.timestamp not in (-1, records[0].timestamp):
                raise TopicRecreatedError(f"{at.topic}-{at.partition}: the record at {given.offset - 1} is another one")
            records = records[1:]
        if not records:
            return None
        return FollowedBatch(
            at.topic, at.partition, records, FollowerPosition(records[-1].offset + 1, records[-1].timestamp)
        )

    async def _note(self, asked: Mapping[TopicPartition, int], quiet: AbstractSet[TopicPartition]) -> None:
        """Follow the positions up to the ends. What lies before an end may all have been removed by compaction: a fetch
        that was answered after the position had come to rest, and brought nothing, tells. Twice in a row, for a poll
        that ends early, because of another partition's error, leaves records behind that the next one gives.
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
        """Go on at the beginning of partitions whose retention has removed what was next."""
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
    """Return the clock that aiokafka stamps its polls with."""
    return int(time.time() * 1000)
