"""Late-write (zombie) repair: rows that are hidden by late rows of a replaced worker are written again.

A worker that is suspended between the heartbeat guard and the socket writes its public rows when it resumes, after the
newer ones of its successor. Readers keep the highest version, but compaction keeps the last record, and would
eventually leave the older row. So the owner of a partition ensures that the last row of each key is the one it would
write itself.

The same is done when a topic of rows is deleted and created again while its partitions have an owner: everything that
the state still has is written again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from tallystream.streams.runtime.changelog import reserved
from tallystream.streams.runtime.fold import Fold
from tallystream.streams.runtime.host import Host, Reader
from tallystream.streams.runtime.partition import Partition
from tallystream.streams.runtime.progress import Counters

log = structlog.get_logger()

CHECK_EVERY = 30.0
"""Seconds between checks of the end of a topic while we have nothing to write; compaction waits a day."""
LOOK_BACK = 5_000
"""Records before the end that a new owner examines, because its predecessor may have died before it could repair late
rows. The repair takes one group, so this is more than enough."""
ANEW = 4_000
"""Keys written again in one turn after a topic was created again."""
CHUNK = 100
"""Rows examined in one turn of the event loop."""
SETTLE = 1.0
"""Seconds before looking: assignments and gaps arrive in bursts."""
PATIENCE = 60.0
AGAIN = 5.0


class LateWrites:
    """Finds late rows of others in the topics that only a partition's owner writes, and writes ours again.

    Promise: a row of ours is the last of its key, or soon will be, whatever a replaced worker still writes. Records
    between two of our rows were written by others (`landed`), and so were those after our last one while we have
    nothing to write (checked every CHECK_EVERY); those from before we took over are in the last LOOK_BACK records
    (`taken`).
    """

    def __init__(self, fold: Fold, host: Host, owned: Mapping[int, Partition], counters: Counters) -> None:
        self._fold = fold
        self._host = host
        self._owned = owned
        self._counters = counters
        self._next: dict[TopicPartition, int] = {}
        """The offset that our next row must get. Everything before it has been examined, or is in `_ranges`."""
        self._ranges: dict[TopicPartition, tuple[int, int]] = {}
        """Ranges still to be examined: the first offset, and the one after the last."""
        self._anew: dict[TopicPartition, Iterator[list[bytes]]] = {}
        """Keys of the store, for topics that have lost all their rows."""
        self._wake = asyncio.Event()
        self._asked = host.boottime()

    def topics(self, p: int) -> list[TopicPartition]:
        """Return the topics that only the owner of the partition writes."""
        return [TopicPartition(topic, p) for topic in self._fold.owned_topics]

    def taken(self, p: int, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Note that the partition is ours, with the extent of its topics before we wrote anything."""
        for at in self.topics(p):
            if ends[at] < self._next.get(at, 0):
                self._write_anew(at)
            self._look_at(at, max(begins[at], ends[at] - LOOK_BACK, self._next.get(at, 0)), ends[at])
            self._next[at] = ends[at]

    def landed(self, at: TopicPartition, batches: Sequence[tuple[int, int]]) -> None:
        """Note the offset and the number of records of each batch of a stored group."""
        for offset, count in batches:
            if offset < self._next.get(at, offset):
                self._write_anew(at)
            self._look_at(at, self._next.get(at, offset), offset)
            self._next[at] = offset + count

    def lost(self, p: int) -> None:
        """Note that the partition was revoked; its pending ranges are examined if it is assigned to us again."""
        for at in self.topics(p):
            self._anew.pop(at, None)
            if unread := self._ranges.pop(at, None):
                self._next[at] = unread[0]

    def _look_at(self, at: TopicPartition, first: int, end: int) -> None:
        if first < end:
            known = self._ranges.get(at, (first, end))
            self._ranges[at] = (min(first, known[0]), max(end, known[1]))
            self._wake.set()

    def _write_anew(self, at: TopicPartition) -> None:
        """Note that a topic has been deleted and created again: readers lack all rows of the state."""
        partition = self._owned.get(at.partition)
        if partition is not None:
            self._anew[at] = partition.stored_chunks(ANEW)
            self._wake.set()

    def _go_on_anew(self) -> None:
        """Schedule the next rows of such topics, of each partition that has written the previous ones."""
        for at, chunks in list(self._anew.items()):
            partition = self._owned.get(at.partition)
            if partition is None or not partition.idle:
                continue
            stored = next(chunks, None)
            if stored is None:
                del self._anew[at]
                continue
            found = (self._fold.public_key(partition, at.topic, key) for key in stored)
            keys = {key for key in found if key is not None}
            if keys:
                log.warning(
                    "rows_of_a_new_topic_written_again", topic=at.topic, partition=at.partition, rows=len(keys),
                    why="its end is before rows that were written: it was deleted",
                )  # fmt: skip
                self._fold.rewrite(partition, at.topic, keys)
                partition.flush()

    async def run(self) -> None:
        """Examine pending ranges until cancelled."""
        while True:
            try:
                async with asyncio.timeout(CHECK_EVERY):
                    await self._wake.wait()
                await asyncio.sleep(SETTLE)
            except TimeoutError:
                pass
            try:
                async with asyncio.timeout(PATIENCE):
                    await self.look()
            except (KafkaError, OSError, TimeoutError) as exc:
                log.info("late_rows_not_looked_for", error=repr(exc))
                await asyncio.sleep(AGAIN)
                self._wake.set()
            except Exception as exc:  # noqa: BLE001 - as everywhere: nothing limps on
                self._host.fail_fast(exc)

    async def look(self, *, idle: bool = False) -> None:
        """Read the pending ranges and write hidden rows again; `idle`: check the ends now.

        Raises:
            KafkaError, TimeoutError: Kafka does not answer; nothing is forgotten.

        """
        quiet = self._quiet() if idle or self._host.boottime() - self._asked >= CHECK_EVERY else {}
        self._wake.clear()
        self._go_on_anew()
        if self._anew:
            self._wake.set()
        if not quiet and not self._ranges:
            return
        async with self._host.reader() as reader:
            if quiet:
                ends = await reader.ends(list(quiet))
                self._asked = self._host.boottime()
                still = self._quiet()
                for at, partition in quiet.items():
                    if still.get(at) is partition:
                        if ends[at] < self._next[at]:
                            self._write_anew(at)
                            self._next[at] = ends[at]
                        self._look_at(at, self._next[at], ends[at])
                        self._next[at] = max(self._next[at], ends[at])
            begins = await reader.begins(list(self._ranges)) if self._ranges else {}
            for at, (first, end) in list(self._ranges.items()):
                partition_now = self._owned.get(at.partition)
                if partition_now is None:
                    continue
                hidden = await self._hidden(reader, at, max(first, begins.get(at, 0)), partition_now)
                if self._owned.get(at.partition) is partition_now:  # or `lost` has handled it
                    self._has_read(at, end)
                    self._mend(at, partition_now, hidden)

    async def _hidden(self, reader: Reader, at: TopicPartition, first: int, partition: Partition) -> set[bytes]:
        """Return the keys whose last row, of those from `first` on, differs from the row in the store.

        Rows are compared byte by byte: of two workers with different settings (a price book) one may write another row
        with the same version.


        Rows stored since the end was read are after that end, so they are read as well before anything is compared.
        """
        fold, end = self._fold, self._next[at]
        rows = await _last_rows(reader, at, first, end)
        while end < self._next[at]:
            first, end = end, self._next[at]
            rows |= await _last_rows(reader, at, first, end)
        hidden = set()
        for count, (key, row) in enumerate(rows.items(), 1):
            if self._owned.get(at.partition) is not partition:
                return set()
            if not fold.is_current(partition, at.topic, key, row):
                hidden.add(key)
            if not count % CHUNK:
                await asyncio.sleep(0)  # a key that is written meanwhile may be written once more, which is harmless
        return hidden

    def _quiet(self) -> dict[TopicPartition, Partition]:
        """Return the known ends of partitions that have nothing to write."""
        return {
            at: partition
            for at in self._next
            if (partition := self._owned.get(at.partition)) is not None and partition.idle
        }

    def _has_read(self, at: TopicPartition, end: int) -> None:
        """Remove the examined ranges; new ones may have been added meanwhile."""
        if self._ranges[at][1] > end:
            self._ranges[at] = (end, self._ranges[at][1])
        else:
            del self._ranges[at]

    def _mend(self, at: TopicPartition, partition: Partition, hidden: set[bytes]) -> None:
        if hidden:
            log.warning("hidden_rows_written_again", topic=at.topic, partition=at.partition, rows=len(hidden))
            self._counters.late_writes += len(hidden)
            self._fold.rewrite(partition, at.topic, hidden)
            partition.flush()


async def _last_rows(reader: Reader, at: TopicPartition, first: int, end: int) -> dict[bytes, bytes | None]:
    """Return the last value of each key from `first` to before `end`."""
    rows: dict[bytes, bytes | None] = {}
    reader.assign({at: first})
    while await reader.position(at) < end:
        for record in (await reader.poll([at])).get(at, ()):
            if record.offset < end and record.key is not None and not reserved(record.key):
                rows[record.key] = record.value
    return rows
