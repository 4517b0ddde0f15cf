"""Rows that a replaced worker's late rows hide are written again.

A worker that is stopped between the heartbeat guard and the socket writes its public rows when it goes on: after the
newer ones of whoever has replaced it. Readers keep the highest version, but compaction keeps the last record, and would
one day leave the older row. So an owner sees to it that the last row of a key is its newest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.runtime.changelog import reserved
from tallystream.streams.runtime.partition import Part
from tallystream.streams.service.clock import boottime

if TYPE_CHECKING:
    from tallystream.streams.runtime.faust_backend.table import FoldTable

log = structlog.get_logger()

CHECK_EVERY = 30.0
"""Seconds after which the end of a topic that we have no rows for is asked for; compaction waits a day."""
LOOK_BACK = 5_000
"""Records before the end that a new owner looks at: its predecessor may have died before it could mend what came late.
That takes it one group, so this is plenty."""
SETTLE = 1.0
"""Seconds before looking: assignments and gaps come in flocks."""
PATIENCE = 60.0
AGAIN = 5.0


class Overtaken:
    """Finds late rows of others in the topics that only a partition's owner writes, and has ours written again.

    Promise: a row of ours is the last of its key, or soon will be, whatever a replaced worker still writes. What lands
    between two of our rows is somebody else's (`landed`), as is what lies behind our last one while we have nothing to
    write (asked every CHECK_EVERY); what came before we took over is sought in the last LOOK_BACK records (`taken`).
    """

    def __init__(self, table: FoldTable) -> None:
        self._table = table
        self._next: dict[TopicPartition, int] = {}
        """Where our next row must land. All before it has been looked at, or is in `_ranges`."""
        self._ranges: dict[TopicPartition, tuple[int, int]] = {}
        """What is still to be looked at: the first offset, and the one after the last."""
        self._wake = asyncio.Event()
        self._asked = boottime()

    def topics(self, p: int) -> list[TopicPartition]:
        """Return what only the owner of the partition writes."""
        return [TopicPartition(topic, p) for topic in self._table.owned_topics]

    def taken(self, p: int, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> None:
        """Note that the partition is ours, with its topics as they were before we wrote anything."""
        for at in self.topics(p):
            if at.topic not in self._table.derived_topics:
                self._look_at(at, max(begins[at], ends[at] - LOOK_BACK, self._next.get(at, 0)), ends[at])
            self._next[at] = ends[at]

    def landed(self, at: TopicPartition, batches: Sequence[tuple[int, int]]) -> None:
        """Note where batches of a group are that is in the store: the offset and the number of records of each."""
        for offset, count in batches:
            self._look_at(at, self._next.get(at, offset), offset)
            self._next[at] = offset + count

    def lost(self, p: int) -> None:
        """Note that the partition is ours no more; what we have not looked at will be looked at when it is again."""
        for at in self.topics(p):
            if found := self._ranges.pop(at, None):
                self._next[at] = found[0]

    def _look_at(self, at: TopicPartition, first: int, end: int) -> None:
        if first < end:
            known = self._ranges.get(at, (first, end))
            self._ranges[at] = (min(first, known[0]), max(end, known[1]))
            self._wake.set()

    async def run(self) -> None:
        """Look whenever there is something to look at, until cancelled."""
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
                log.info("late_rows_not_looked_for", error=repr(exc), retry_in_s=AGAIN)
                await asyncio.sleep(AGAIN)
                self._wake.set()
            except Exception as exc:  # noqa: BLE001 - as everywhere: nothing limps on
                self._table.app.die(exc)

    async def look(self, *, idle: bool = False) -> None:
        """Read what is to be looked at, and have written again what is hidden; `idle`: ask for the ends now.

        Raises:
            KafkaError, TimeoutError: Kafka does not answer; nothing is forgotten.

        """
        quiet = self._quiet() if idle or boottime() - self._asked >= CHECK_EVERY else {}
        self._wake.clear()
        if not quiet and not self._ranges:
            return
        async with opened(new_consumer(self._table.app.kafka)) as reader:
            if quiet:
                ends = await reader.end_offsets(list(quiet))
                self._asked = boottime()
                still = self._quiet()
                for at, part in quiet.items():
                    if still.get(at) is part:
                        self._look_at(at, self._next[at], ends[at])
                        self._next[at] = max(self._next[at], ends[at])
            for at, (first, end) in list(self._ranges.items()):
                owned = self._table.part(at.partition)
                hidden = await self._hidden(reader, at, first)
                if owned is not None and self._table.part(at.partition) is owned:  # or `lost` has seen to it
                    self._read(at, end)
                    self._mend(at, owned, hidden)

    async def _hidden(self, reader: Any, at: TopicPartition, first: int) -> set[bytes]:
        """Return the keys whose last row, of those from `first` on, is older than what is in the store.

        What the store has got since the end was read stands behind that end: it is read too before anything is judged.
        """
        table, end = self._table, self._next[at]
        rows = await _last_rows(reader, at, first, end)
        newest = {key: table.newest(at.partition, at.topic, key) for key in rows}
        rows |= await _last_rows(reader, at, end, self._next[at])
        return {
            key
            for key, version in newest.items()
            if version is not None and table.row_version(at.topic, rows[key]) < version
        }

    def _quiet(self) -> dict[TopicPartition, Part]:
        """Return what we know the end of, of partitions that have nothing to write."""
        table = self._table
        return {
            at: part
            for at in self._next
            if (part := table.part(at.partition)) is not None
            and not (part.waiting or part.dirty or part.expired or part.applied.offset < part.expected)
        }

    def _read(self, at: TopicPartition, end: int) -> None:
        """Forget what has been looked at; more may have come meanwhile."""
        if self._ranges[at][1] > end:
            self._ranges[at] = (end, self._ranges[at][1])
        else:
            del self._ranges[at]

    def _mend(self, at: TopicPartition, part: Part, hidden: set[bytes]) -> None:
        if hidden:
            log.warning("hidden_rows_written_again", topic=at.topic, partition=at.partition, rows=len(hidden))
            self._table.counters.overtaken += len(hidden)
            self._table.rewrite(at.partition, part, at.topic, hidden)
            self._table.flush(part)


async def _last_rows(reader: Any, at: TopicPartition, first: int, end: int) -> dict[bytes, bytes | None]:
    """Return the last value of each key from `first` to before `end`."""
    rows: dict[bytes, bytes | None] = {}
    reader.assign([at])
    reader.seek(at, first)
    while await reader.position(at) < end:
        for record in (await reader.getmany(at, timeout_ms=500)).get(at, ()):
            if record.offset < end and record.key is not None and not reserved(record.key):
                rows[record.key] = record.value
    return rows
