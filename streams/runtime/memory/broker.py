"""A Kafka broker in memory with the features that the engine uses: logs, append times, compaction, retention."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from aiokafka.errors import OffsetOutOfRangeError, UnknownTopicOrPartitionError
from aiokafka.structs import TopicPartition

from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.memory.clock import ManualClock


class MemoryRecord(NamedTuple):
    """A record in a log; `producer` names its writer."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    producer: str = ""


class _Log:
    def __init__(self) -> None:
        self.records: list[MemoryRecord] = []
        self.begin = 0
        self.end = 0


class MemoryBroker:
    """Topics by name. Synchronous: when `append` returns, the whole batch is in the log at the returned offset.

    `before_fetch` is called before each read, so that a caller can let others write in the middle of a recovery.
    """

    def __init__(self, clock: ManualClock | None = None) -> None:
        self.clock = clock or ManualClock()
        self.before_fetch: Callable[[], None] | None = None
        self._logs: dict[TopicPartition, _Log] = {}

    def create(self, topic: str, partitions: int) -> None:
        """Create a topic; an existing one is replaced by an empty one, as if it had been deleted first."""
        for p in range(partitions):
            self._logs[TopicPartition(topic, p)] = _Log()

    def append(
        self,
        topic: str,
        partition: int,
        rows: Iterable[tuple[bytes | None, bytes | None] | Row],
        *,
        headers: Sequence[tuple[str, bytes]] = (),
        producer: str = "",
        timestamp: int | None = None,
    ) -> int:
        """Append a record batch, atomically, with LogAppendTime unless `timestamp` (ms) is given.

        Returns the offset of its first record.

        Raises:
            UnknownTopicOrPartitionError: it has not been created.

        """
        log = self._log(TopicPartition(topic, partition))
        at, first = self.clock.now_ms() if timestamp is None else timestamp, log.end
        for key, value in rows:
            log.records.append(MemoryRecord(topic, partition, log.end, at, key, value, tuple(headers), producer))
            log.end += 1
        return first

    def begin(self, partition: TopicPartition) -> int:
        """Return the first offset that the partition still has."""
        return self._log(partition).begin

    def end(self, partition: TopicPartition) -> int:
        """Return the offset that the next record will get."""
        return self._log(partition).end

    def records(self, topic: str, partition: int | None = None) -> list[MemoryRecord]:
        """Return the current records of a topic, partition by partition, or those of one partition."""
        return [
            record
            for tp, log in sorted(self._logs.items())
            if tp.topic == topic and partition in (None, tp.partition)
            for record in log.records
        ]

    def fetch(self, partition: TopicPartition, offset: int, limit: int | None = None) -> list[MemoryRecord]:
        """Return the records from `offset` on, at most `limit`.

        Raises:
            OffsetOutOfRangeError: `offset` is before the log's beginning or after its end.

        """
        if self.before_fetch is not None:
            self.before_fetch()
        log = self._log(partition)
        if not log.begin <= offset <= log.end:
            raise OffsetOutOfRangeError({partition: offset})
        return [record for record in log.records if record.offset >= offset][:limit]

    # -- what a broker does to its logs

    def compact(self, topic: str) -> None:
        """Keep only the last record of each key, as compaction may at any time; offsets do not change."""
        for tp, log in self._logs.items():
            if tp.topic == topic:
                last = {record.key: record.offset for record in log.records}
                log.records = [record for record in log.records if last[record.key] == record.offset]

    def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Delete the records before `offset`, as retention does."""
        log = self._log(TopicPartition(topic, partition))
        log.begin = max(log.begin, min(offset, log.end))
        log.records = [record for record in log.records if record.offset >= log.begin]

    def cut(self, topic: str, partition: int, offset: int) -> None:
        """Lose the records from `offset` on, as a power failure does with unflushed records."""
        log = self._log(TopicPartition(topic, partition))
        log.end = max(log.begin, min(offset, log.end))
        log.records = [record for record in log.records if record.offset < log.end]

    def _log(self, partition: TopicPartition) -> _Log:
        try:
            return self._logs[partition]
        except KeyError:
            raise UnknownTopicOrPartitionError(f"{partition.topic}-{partition.partition}") from None
