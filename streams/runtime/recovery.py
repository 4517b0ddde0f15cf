"""Recovery: what the changelog says was counted, read to its end before a partition is folded again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import UnfitError
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.runtime import expiry
from tallystream.streams.runtime.changelog import CLOSED, POSITION, Closed, Position, replay
from tallystream.streams.runtime.partition import Part
from tallystream.streams.runtime.source_check import check_offset, check_record

if TYPE_CHECKING:
    from tallystream.streams.runtime.faust_backend.table import FoldTable

MAX_RECORDS = 20_000
"""Changelog records replayed in one step."""
PATIENCE = 60.0
"""Seconds without a record after which recovery gives up and ends the process."""


class Recovery:
    """Brings the partitions of one assignment up to date; a step under a newer assignment changes nothing.

    Promises: a partition is folded only after its changelog has been read to the end it had when recovery began; the
    next row of ours must land right there, so a zombie that writes later is noticed. A source topic that cannot be the
    one that was counted is refused, as is one whose retention has deleted what was not counted yet.

    Reads with a consumer of its own, without a group: Faust's would stop it with every rebalance. Relies on
    `AIOKafkaConsumer._client.set_topics` (aiokafka/client.py): asking for offsets of topics the client does not track
    costs 0.1 s each.
    """

    def __init__(self, table: FoldTable, partitions: Sequence[int], current: Callable[[], bool]) -> None:
        self._table = table
        self._partitions = partitions
        self._current = current
        self._overtaken: dict[int, set[bytes]] = {p: set() for p in partitions}
        self._logs = {p: TopicPartition(table.changelog_topic_name, p) for p in partitions}
        self._sources = {p: TopicPartition(table.source, p) for p in partitions}

    async def run(self) -> None:
        """Recover and install the partitions, or return early when another rebalance has begun.

        Raises:
            UnfitError: see `_check_log` and `_check_source`.
            KafkaError: Kafka does not answer.
            TimeoutError: Kafka answers with nothing.

        """
        if not self._partitions or not self._current():
            return
        async with opened(self._reader(self._table.app.conf.consumer_max_fetch_size)) as reader:
            public = [at for p in self._partitions for at in self._table.overtaken.topics(p)]
            every = [*self._logs.values(), *self._sources.values(), *public]
            await reader._client.set_topics({tp.topic for tp in every})  # noqa: SLF001 - named above
            ends, begins = await reader.end_offsets(every), await reader.beginning_offsets(every)
            if self._current() and await self._read_logs(reader, begins, ends):
                positions = {p: self._position(p, begins, ends) for p in self._partitions}
                await self._check_identities(positions, begins)
                if self._current():
                    for p, position in positions.items():
                        self._install(p, position)
                        self._table.overtaken.taken(p, begins, ends)

    def _reader(self, fetch_bytes: int) -> Any:
        return new_consumer(self._table.app.kafka, beyond="none", partition_bytes=fetch_bytes)

    async def _read_logs(
        self, reader: Any, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> bool:
        """Replay the changelogs into the store, a step at a time; tell whether their ends were reached."""
        table, store = self._table, self._table.store
        left = {}
        reader.assign(list(self._logs.values()))
        for p, log in self._logs.items():
            have = store.changelog_offset(p) + 1
            if have > ends[log]:
                raise UnfitError(
                    f"{log.topic}-{p}: the local store has read up to {have}, the changelog ends at {ends[log]}:"
                    " was it deleted?",
                    "if it was, on purpose: remove the worker's data directory",
                )
            start = max(have, begins[log])
            reader.seek(log, start)
            if start < ends[log]:
                left[log] = p
        deadline = time.monotonic() + PATIENCE
        while left:
            got = await reader.getmany(*left, timeout_ms=500, max_records=MAX_RECORDS)
            if not self._current():
                return False
            for log, records in got.items():
                self._replay(log.partition, records)
            for log in list(left):
                if await reader.position(log) >= ends[log]:
                    del left[log]
            if got:
                deadline = time.monotonic() + PATIENCE
                table.moved()
            elif time.monotonic() > deadline:
                raise TimeoutError(f"nothing came from {', '.join(f'{log.topic}-{p}' for log, p in left.items())}")
            if not self._current():
                return False
        for p, log in self._logs.items():
            if store.changelog_offset(p) < ends[log] - 1:  # compaction has removed the last records
                store.write(p, (), ends[log] - 1)
        return True

    def _replay(self, p: int, records: Sequence[Any]) -> None:
        table = self._table
        replayed = replay(
            ((record.key, record.value) for record in records),
            lambda key: table.store.read(p, key),
            table.version,
            self._overtaken[p],
        )
        table.store.write(p, replayed.rows.items(), records[-1].offset)
        table.counters.recovered += len(records)
        table.counters.stale += replayed.stale
        table.counters.foreign += replayed.foreign

    def _position(self, p: int, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]) -> Position:
        """Return where the state ends; a new table starts where the source's log does."""
        source = self._sources[p]
        begin, end = begins[source], ends[source]
        raw = self._table.store.read(p, POSITION)
        position = Position(begin) if raw is None else Position.decode(raw)
        check_offset(source, position.offset, begin, end)
        return position

    async def _check_identities(self, positions: Mapping[int, Position], begins: Mapping[TopicPartition, int]) -> None:
        """Compare the record before each position with its append time; one that retention deleted tells nothing."""
        wanted = {
            self._sources[p]: position
            for p, position in positions.items()
            if position.append_ms >= 0 and position.offset > begins[self._sources[p]]
        }
        if not wanted:
            return
        async with opened(self._reader(1)) as reader:  # a broker sends the first batch whole, however small the limit
            reader.assign(list(wanted))
            for source, position in wanted.items():
                reader.seek(source, position.offset - 1)
            deadline = time.monotonic() + PATIENCE
            while wanted and self._current():
                try:
                    got = await reader.getmany(*wanted, timeout_ms=500)
                except OffsetOutOfRangeError:  # retention has just deleted one
                    now = await reader.beginning_offsets(list(wanted))
                    wanted = {source: at for source, at in wanted.items() if at.offset > now[source]}
                    continue
                for source, records in got.items():
                    first, position = records[0], wanted.pop(source)
                    check_record(source, position, first.offset, first.timestamp)
                if wanted and time.monotonic() > deadline:
                    raise TimeoutError(f"nothing came from {self._table.source}")

    def _install(self, p: int, position: Position) -> None:
        table = self._table
        table.forget(p)
        closed = table.store.read(p, CLOSED)
        part = Part(position, None if closed is None else Closed.decode(closed))
        for key in self._overtaken[p]:
            raw = table.store.read(p, key)
            if raw is not None and not (part.closed is not None and table.is_closed(key, part.closed)):
                part.cache[key] = part.dirty[key] = table.load(raw)
        table.install(p, part)
        if part.closed is not None:
            expiry.start(table, p, part)
