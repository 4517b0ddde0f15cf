"""What a host gives the engine: rows written in order, topics read, the source's consumer, time, and a way to end.

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

    `landed` tells, once they are written, the offset and the number of records of each.
    """

    topic: str
    partition: int
    batches: Sequence[Any]
    landed: list[tuple[int, int]]


class Reader(Protocol):
    """Reads topics outside of any group, from the first record it is told to."""

    async def begins(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offset that each partition still has."""
        ...

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset that each partition's next record will get."""
        ...

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions, and no others, from these offsets on."""
        ...

    async def poll(
        self, partitions: Collection[TopicPartition], max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[InputRecord]]:
        """Return the next records of some of the partitions; nothing when none come within half a second.

        Raises:
            OffsetOutOfRangeError: a position lies before what the partition still has.

        """
        ...

    async def position(self, partition: TopicPartition) -> int:
        """Return the offset that is read next; compaction makes it skip."""
        ...

    async def first_after(self, partition: TopicPartition, append_ms: int) -> int | None:
        """Return the offset of the first record that was appended after `append_ms`, None when there is none."""
        ...


class Host(Protocol):
    """The process an engine lives in. Errors of Kafka are aiokafka's, or `TimeoutError`."""

    # -- time and life

    def monotonic(self) -> float:
        """Return seconds for durations of work; they stop while the machine sleeps."""
        ...

    def now_ms(self) -> int:
        """Return UTC time in ms since the epoch."""
        ...

    def boottime(self) -> float:
        """Return seconds that go on while the machine sleeps."""
        ...

    def fail_fast(self, why: str | BaseException) -> NoReturn:
        """End the process at once, before anything else is written; another one goes on from what the topics hold."""
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
        """Serialise rows into as few record batches as hold them; sends nothing.

        `opening` starts every batch and `closing` ends the last one, in that batch: a batch is atomic in Kafka. Rows
        that fit one batch may go without the opening, which what ends it overrides.

        Raises:
            UnfitError: a row does not fit a batch.

        """
        ...

    async def write(self, packs: Sequence[Packed], expect: int | None = None) -> int:
        """Send the batches, wait for all acknowledgements, return the offset of the last record (-1: there was none).

        Nothing is sent unless this process is certainly a member of its group (`must_be_member`). `expect` is the
        offset the first record must get: anything else means that somebody else writes this partition, and ends the
        process, because a store that jumped over their rows would miss them for good.
        """
        ...

    def must_be_member(self) -> None:
        """End the process when another worker may own our partitions."""
        ...

    # -- reading

    def reader(self, *, fetch_bytes: int | None = None) -> AbstractAsyncContextManager[Reader]:
        """Open a reader; `fetch_bytes` bounds what a broker sends of a partition at once."""
        ...

    # -- the source's consumer

    def source_end(self, source: TopicPartition) -> int | None:
        """Return the end of a source partition as last seen by the consumer, None when it is not known. Cheap."""
        ...

    async def ask_source_end(self, source: TopicPartition) -> int:
        """Ask Kafka for the end of a source partition."""
        ...

    async def ask_source_begin(self, source: TopicPartition) -> int:
        """Ask Kafka for the first offset that a source partition still has."""
        ...

    async def source_position(self, source: TopicPartition) -> int | None:
        """Return the offset the consumer reads next."""
        ...

    async def seek_source(self, source: TopicPartition, offset: int) -> None:
        """Have the consumer deliver the records from `offset` on."""
        ...
