"""The interface of a host: writing rows in order, reading topics, the source's consumer, time, and ending the process.

There are two: `faust_backend` (real Kafka; Faust for membership and assignment) and `memory` (a broker in memory under
a test's control).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, NoReturn, Protocol

from aiokafka.structs import TopicPartition

from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.fold import InputRecord


class Packed(NamedTuple):
    """Rows of one topic partition, serialised: `batches` are the host's own, closed and not yet sent.

    Once they are written, `landed` has the offset and the number of records of each.
    """

    topic: str
    partition: int
    batches: Sequence[Any]
    landed: list[tuple[int, int]]


class Reader(Protocol):
    """Reads topics without a group, from given offsets."""

    async def begins(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offset that each partition still has."""
        ...

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset that each partition's next record will get."""
        ...

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read exactly these partitions, from these offsets on."""
        ...

    async def poll(
        self, partitions: Collection[TopicPartition], max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[InputRecord]]:
        """Return the next records of some of the partitions; empty when none arrive within half a second.

        Raises:
            OffsetOutOfRangeError: a position is before the partition's first offset.

        """
        ...

    async def position(self, partition: TopicPartition) -> int:
        """Return the next offset to read, which skips compacted records."""
        ...

    async def first_after(self, partition: TopicPartition, append_ms: int) -> int | None:
        """Return the offset of the first record that was appended after `append_ms`, None without one."""
        ...


class Host(Protocol):
    """The process that runs an engine. Kafka errors are raised as aiokafka's exceptions or `TimeoutError`."""

    # -- time and life

    def monotonic(self) -> float:
        """Return monotonic seconds for durations of work; the clock stops while the machine sleeps."""
        ...

    def now_ms(self) -> int:
        """Return UTC time in ms since the epoch."""
        ...

    def boottime(self) -> float:
        """Return seconds of a clock that continues while the machine sleeps."""
        ...

    def fail_fast(self, why: str | BaseException) -> NoReturn:
        """End the process at once, before anything else is written; its successor continues from the state on the
        topics.
        """
        ...

    # -- writing

    def pack(
        self,
        topic: str,
        partition: int,
        rows: Sequence[Row],
        *,
        opening: Row | None = None,
        closing: Sequence[Row] = (),
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Packed:
        """Serialise rows into as few record batches as possible, without sending them.

        `opening` starts every batch and `closing` ends the last one, in that batch: a batch is atomic in Kafka. A
        single batch does not need the opening, because its closing rows override it.

        Raises:
            UnfitError: a row is too large for a batch.

        """
        ...

    async def write(self, packs: Sequence[Packed], expect: int | None = None) -> int:
        """Send the batches, wait for all acknowledgements, return the offset of the last record (-1 without records).

        Nothing is sent unless this process is certainly a member of its group (`must_be_member`). `expect` is the
        offset that the first record must get. Any other offset means that another process writes to this partition, and
        ends this process, because a store that skipped its rows would never see them.
        """
        ...

    def must_be_member(self) -> None:
        """End the process when another worker may own our partitions."""
        ...

    # -- reading

    def reader(self, *, fetch_bytes: int | None = None) -> AbstractAsyncContextManager[Reader]:
        """Open a reader; `fetch_bytes` limits the bytes per partition in one fetch."""
        ...

    # -- the source's consumer

    def source_end(self, source: TopicPartition) -> int | None:
        """Return the end of a source partition as last seen by the consumer, None when it is not known. Cheap."""
        ...

    def in_line(self, source: str) -> bool:
        """Tell whether records of the topic that the consumer has read may still wait to be accepted. Cheap."""
        ...

    async def ask_source_end(self, source: TopicPartition) -> int:
        """Ask Kafka for the end of a source partition."""
        ...

    async def ask_source_begin(self, source: TopicPartition) -> int:
        """Ask Kafka for the first offset that a source partition still has."""
        ...

    async def source_position(self, source: TopicPartition) -> int | None:
        """Return the next offset that the consumer reads."""
        ...

    async def seek_source(self, source: TopicPartition, offset: int) -> None:
        """Have the consumer deliver the records from `offset` on."""
        ...
