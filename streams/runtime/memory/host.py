"""`runtime.host.Host` in memory: written batches stay in flight until the caller lets them land."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import NoReturn

from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import PermanentError, UnfitError
from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.host import Packed, Reader
from tallystream.streams.runtime.memory.broker import MemoryBroker, MemoryRecord


class WorkerCrashedError(PermanentError):
    """Raised where the process of a real worker would have ended."""

    code = "worker_crashed"


@dataclass(frozen=True)
class InFlight:
    """A record batch in flight; `acked` is completed once it has landed."""

    at: TopicPartition
    rows: Sequence[Row]
    headers: Sequence[tuple[str, bytes]]
    acked: asyncio.Future[int]


@dataclass(frozen=True)
class _Batch:
    rows: list[Row]
    headers: Sequence[tuple[str, bytes]]


class MemoryReader:
    """`runtime.host.Reader` on a MemoryBroker."""

    def __init__(self, broker: MemoryBroker, limit: int | None) -> None:
        self._broker = broker
        self._limit = limit
        self._positions: dict[TopicPartition, int] = {}

    async def begins(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the first offset that each partition still has."""
        return {tp: self._broker.begin(tp) for tp in partitions}

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Return the offset that each partition's next record will get."""
        return {tp: self._broker.end(tp) for tp in partitions}

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Read these partitions, and no others, from these offsets on."""
        self._positions = dict(positions)

    async def poll(
        self, partitions: Collection[TopicPartition], max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[MemoryRecord]]:
        """Return the next records; compacted ones are skipped."""
        await asyncio.sleep(0)
        got = {}
        for tp in partitions:
            records = self._broker.fetch(tp, self._positions[tp], self._limit or max_records)
            if records:
                got[tp] = records
            self._positions[tp] = records[-1].offset + 1 if records else self._broker.end(tp)
        return got

    async def position(self, partition: TopicPartition) -> int:
        """Return the next offset to read."""
        return self._positions[partition]

    async def first_after(self, partition: TopicPartition, append_ms: int) -> int | None:
        """Return the offset of the first record that was appended after `append_ms`."""
        records = self._broker.fetch(partition, self._broker.begin(partition))
        return next((record.offset for record in records if record.timestamp > append_ms), None)


class MemoryHost:
    """The process of one worker.

    `hold`: batches stay in `in_flight` until `land` is called; otherwise they land at once. Batches in flight when the
    worker crashes, or loses its partitions, may still land, like those of a zombie. `member`: False makes the heartbeat
    guard end the worker at its next write. `batch_bytes` bounds a record batch.
    """

    def __init__(self, broker: MemoryBroker, name: str = "worker", *, batch_bytes: int = 900_000) -> None:
        self.broker = broker
        self.name = name
        self.batch_bytes = batch_bytes
        self.hold = False
        self.member = True
        self.in_flight: list[InFlight] = []
        self.crashed: str | BaseException | None = None
        self.on_crash: Callable[[], None] | None = None
        self.positions: dict[TopicPartition, int] = {}
        """The next offsets that the source's consumer reads."""
        self.lines: set[str] = set()
        """Topics of which batches wait in line, as a test decides."""

    # -- time and life

    def monotonic(self) -> float:
        """Return the broker's clock."""
        return self.broker.clock.monotonic()

    def now_ms(self) -> int:
        """Return the broker's clock."""
        return self.broker.clock.now_ms()

    def boottime(self) -> float:
        """Return the broker's clock."""
        return self.broker.clock.boottime()

    def fail_fast(self, why: str | BaseException) -> NoReturn:
        """End the worker: batches not sent yet are never sent.

        Raises:
            WorkerCrashedError: always.

        """
        if self.crashed is None:
            self.crashed = why
            if self.on_crash is not None:
                self.on_crash()
        raise WorkerCrashedError(f"{self.name}: {self.crashed}")

    def must_be_member(self) -> None:
        """End the worker when it has crashed or is not a member any more."""
        if self.crashed is not None:
            raise WorkerCrashedError(f"{self.name}: {self.crashed}")
        if not self.member:
            self.fail_fast("not a member of the group")

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
        """Split rows into batches of at most `batch_bytes` of keys and values; a single one has no opening.

        Raises:
            UnfitError: a row is too large for a batch.

        """
        whole = bool(closing) and _size([*rows, *closing]) <= self.batch_bytes
        head = [] if opening is None or whole else [opening]
        batches = [_Batch(list(head), headers)]
        for row in rows:
            if _size([*batches[-1].rows, row]) > self.batch_bytes:
                batches.append(_Batch(list(head), headers))
                if _size([*head, row]) > self.batch_bytes:
                    raise UnfitError(
                        f"a row of {_size([row])} bytes does not fit a record batch for {topic}",
                        f"batches hold {self.batch_bytes} bytes",
                    )
            batches[-1].rows.append(row)
        if _size([*batches[-1].rows, *closing]) > self.batch_bytes:
            batches.append(_Batch(list(head), headers))
        batches[-1].rows.extend(closing)
        return Packed(topic, partition, [batch for batch in batches if batch.rows], [])

    async def write(self, packs: Sequence[Packed], expect: int | None = None) -> int:
        """Send the batches and wait until they have landed; return the offset of the last record."""
        self.must_be_member()
        loop, sent = asyncio.get_running_loop(), []
        for pack in packs:
            for batch in pack.batches:
                at = TopicPartition(pack.topic, pack.partition)
                one = InFlight(at, batch.rows, batch.headers, loop.create_future())
                self.in_flight.append(one)
                sent.append((pack, one))
        if not self.hold:
            self.land_all()
        end = -1
        for pack, one in sent:
            offset = await one.acked
            if expect is not None:
                if offset != expect:
                    self.fail_fast(f"{one.at.topic}-{one.at.partition}: rows landed at {offset}, expected {expect}")
                expect += len(one.rows)
            pack.landed.append((offset, len(one.rows)))
            end = offset + len(one.rows) - 1
        return end

    def land(self, at: TopicPartition | None = None) -> bool:
        """Let the oldest batch in flight land, of partition `at` if given; return whether there was one.

        Batches of one partition keep their order, as an idempotent producer's do; those of different ones need not.
        """
        for index, one in enumerate(self.in_flight):
            if at is None or one.at == at:
                del self.in_flight[index]
                offset = self.broker.append(
                    one.at.topic, one.at.partition, one.rows, headers=one.headers, producer=self.name
                )
                if not one.acked.done():
                    one.acked.set_result(offset)
                return True
        return False

    def land_all(self) -> None:
        """Let everything in flight land, in the order it was sent."""
        while self.land():
            pass

    # -- reading

    def reader(self, *, fetch_bytes: int | None = None) -> AbstractAsyncContextManager[Reader]:
        """Open a reader; with `fetch_bytes` it returns one record at a time."""
        return self._reader(None if fetch_bytes is None else 1)

    @asynccontextmanager
    async def _reader(self, limit: int | None) -> AsyncIterator[MemoryReader]:
        yield MemoryReader(self.broker, limit)

    def source_end(self, source: TopicPartition) -> int | None:
        """Return the end of a source partition."""
        return self.broker.end(source)

    def in_line(self, source: str) -> bool:
        """Tell whether the test has put records of the topic in line."""
        return source in self.lines

    async def ask_source_end(self, source: TopicPartition) -> int:
        """Return the end of a source partition."""
        return self.broker.end(source)

    async def ask_source_begin(self, source: TopicPartition) -> int:
        """Return the first offset that a source partition still has."""
        return self.broker.begin(source)

    async def source_position(self, source: TopicPartition) -> int | None:
        """Return the offset that is delivered next."""
        return self.positions.get(source)

    async def seek_source(self, source: TopicPartition, offset: int) -> None:
        """Deliver from `offset` on."""
        self.positions[source] = offset


def _size(rows: Sequence[Row]) -> int:
    return sum(len(key) + len(value or b"") for key, value in rows)
