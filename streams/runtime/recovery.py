"""Recovery: reads the changelog to its end before a partition is folded again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog import (
    DERIVED,
    DERIVED_FORMAT,
    POSITION,
    SOURCE_ID,
    TAIL,
    WATERMARK,
    Position,
    Watermark,
    replay,
    reserved,
    tail_of,
)
from tallystream.streams.runtime.cut_check import find_cut
from tallystream.streams.runtime.fold import Fold, InputRecord, Loss
from tallystream.streams.runtime.host import Host, Reader
from tallystream.streams.runtime.progress import Counters, FoldActivity
from tallystream.streams.runtime.source_check import check_offset, find_other, recreated
from tallystream.streams.runtime.store import RowStore

_log = structlog.get_logger()
MAX_RECORDS = 1_000
"""Changelog records replayed, or rows examined, in one turn of the event loop; probes are answered in between."""
LAST_ROWS = 100
"""Number of public rows whose generation is read."""
PATIENCE = 60.0
"""Seconds without a record after which recovery gives up and ends the process."""


@dataclass(frozen=True)
class RecoveredState:
    """The result of recovering a partition."""

    number: int
    position: Position
    watermark: Watermark | None
    hidden: frozenset[bytes]
    """Keys whose last changelog record is not their newest version, so they must be written again."""
    loss: Loss | None = None
    """Lost source records; `position` is after them."""


@dataclass(frozen=True)
class Recovery:
    """Brings the partitions of one assignment up to date; a step under a newer assignment changes nothing.

    Promises: a partition is folded only after its changelog has been read to the end it had when recovery began; our
    next row must get exactly that offset, so a zombie that writes later is noticed. A source topic that cannot be the
    one that was counted is refused, as is one whose retention has deleted records that were not counted yet, unless
    `accept_loss`. If the topic's id (`topic_ids`) proves that it is the same but counted records are missing, a power
    failure has lost them: that is reported, and the work continues in a new generation.

    Reads without a group, because the group's consumer stops with every rebalance.
    """

    fold: Fold
    host: Host
    store: RowStore
    source: str
    changelog: str
    counters: Counters
    activity: FoldActivity
    topic_ids: Mapping[str, str]
    accept_loss: bool = False

    async def run(
        self,
        partitions: Sequence[int],
        current: Callable[[], bool],
        install: Callable[[RecoveredState], None],
        taken: Callable[[int, Mapping[TopicPartition, int], Mapping[TopicPartition, int]], None],
    ) -> None:
        """Recover the partitions and hand each to `install`, or return early when `current` is no longer true.

        `taken` is called with the begins and ends of the fold's own topics before we write anything.

        Raises:
            UnfitError: the local store or the source does not match the changelog.
            KafkaError: Kafka does not answer.
            TimeoutError: Kafka does not return any records.

        """
        if not partitions or not current():
            return
        logs = [TopicPartition(self.changelog, p) for p in partitions]
        sources = [TopicPartition(self.source, p) for p in partitions]
        public = [TopicPartition(topic, p) for p in partitions for topic in self.fold.owned_topics]
        async with self.host.reader() as reader:
            every = [*logs, *sources, *public]
            ends, begins = await reader.ends(every), await reader.begins(every)
            hidden: dict[int, set[bytes]] = {p: set() for p in partitions}
            for p in partitions:
                if not current() or not await self._derive_anew(p, current):
                    return
            if not await self._read_logs(reader, logs, begins, ends, hidden, current):
                return
            positions = {p: await self._position(reader, p, begins, ends) for p in partitions}
            others = await self._find_others(positions, begins, ends, current)
            starts = {
                p: await self._start(reader, p, position, begins, ends, others.get(p))
                for p, position in positions.items()
            }
            if not current():
                return
            for p, (position, loss) in starts.items():
                raw = self.store.read(p, WATERMARK)
                watermark = None if raw is None else Watermark.decode(raw)
                install(RecoveredState(p, position, watermark, frozenset(hidden[p]), loss))
                taken(p, begins, ends)

    async def _read_logs(
        self,
        reader: Reader,
        logs: Sequence[TopicPartition],
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        hidden: Mapping[int, set[bytes]],
        current: Callable[[], bool],
    ) -> bool:
        """Replay the changelogs into the store in steps; return whether their ends were reached."""
        for log in await find_cut(self.host, self.store, logs, begins, ends, current):
            _log.warning("local_store_made_again", partition=log.partition, why="the changelog has been cut")
            self._empty(log.partition)
        left = self._starts(logs, begins, ends)
        if left:
            reader.assign(left)
        deadline = self.host.monotonic() + PATIENCE
        while left:
            got = await reader.poll(list(left), MAX_RECORDS)
            if not current():
                return False
            for log, records in got.items():
                self._replay(log.partition, records, hidden[log.partition])
                await asyncio.sleep(0)
            for log in list(left):
                if await reader.position(log) >= ends[log]:
                    del left[log]
            if got:
                deadline = self.host.monotonic() + PATIENCE
                self.activity.moved()
            elif self.host.monotonic() > deadline:
                raise TimeoutError(f"no records from {', '.join(f'{log.topic}-{log.partition}' for log in left)}")
            if not current():
                return False
        for log in logs:
            if self.store.changelog_offset(log.partition) < ends[log] - 1:  # compaction has removed the last records
                self.store.write(log.partition, [(TAIL, None)], ends[log] - 1)
        return True

    def _starts(
        self,
        logs: Sequence[TopicPartition],
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> dict[TopicPartition, int]:
        """Return where to start reading each changelog that has more records than the store."""
        starts = {}
        for log in logs:
            have = self.store.changelog_offset(log.partition) + 1
            if have > ends[log] and self.topic_ids.get(self.changelog):
                self._empty(log.partition)  # the same topic, but truncated: its contents are authoritative
                have = 0
            if have > ends[log]:
                raise UnfitError(
                    f"{log.topic}-{log.partition}: the local store has read up to {have}, the changelog ends at"
                    f" {ends[log]}: was it deleted?",
                    "if it was deleted on purpose, remove the worker's data directory",
                )
            start = max(have, begins[log])
            if start < ends[log]:
                starts[log] = start
        return starts

    async def _derive_anew(self, p: int, current: Callable[[], bool]) -> bool:
        """Write the derived rows of a store that lacks them or has another format; return whether it finished."""
        store, wanted = self.store, self.fold.derived_format
        if not wanted or store.read(p, DERIVED_FORMAT) == wanted:
            return True
        offset = store.changelog_offset(p)
        store.write(p, [(DERIVED_FORMAT, None)], offset)
        for chunk in store.chunks(p, MAX_RECORDS):
            store.write(p, [(key, None) for key in chunk if key.startswith(DERIVED)], offset)
            await asyncio.sleep(0)
        for chunk in store.chunks(p, MAX_RECORDS):
            if not current():
                return False
            made = [(key, None, store.read(p, key)) for key in chunk if not reserved(key)]
            store.write(p, self.fold.derive(p, made, lambda key: store.read(p, key)), offset)
            self.activity.moved()
            await asyncio.sleep(0)
        store.write(p, [(DERIVED_FORMAT, wanted)], offset)
        return True

    def _empty(self, p: int) -> None:
        """Remove everything from the store of a partition."""
        for chunk in self.store.chunks(p, MAX_RECORDS):
            self.store.write(p, [(key, None) for key in chunk], -1)
        self.store.write(p, [(DERIVED_FORMAT, self.fold.derived_format or None)], -1)

    def _replay(self, p: int, records: Sequence[InputRecord], hidden: set[bytes]) -> None:
        replayed = replay(
            ((record.key, record.value) for record in records),
            lambda key: self.store.read(p, key),
            self.fold.version,
            hidden,
        )
        derived = self.fold.derive(p, replayed.replaced, lambda key: self.store.read(p, key))
        last = records[-1]
        tail = (TAIL, tail_of(last.offset, last.key, last.value))
        self.store.write(p, [*replayed.rows.items(), *derived, tail], last.offset)
        self.counters.recovered += len(records)
        self.counters.zombie_records += replayed.zombies
        self.counters.unknown_records += replayed.unknown

    async def _position(
        self, reader: Reader, p: int, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> Position:
        """Return where the state ends; a new table starts at the beginning of the source.

        If its public rows exist, the changelog was deleted: then a higher generation makes the new rows win.
        """
        raw = self.store.read(p, POSITION)
        if raw is not None:
            return Position.decode(raw)
        generations = [-1]
        for topic in self.fold.owned_topics:
            at = TopicPartition(topic, p)
            first = max(begins[at], ends[at] - LAST_ROWS)
            if first < ends[at]:
                reader.assign({at: first})
                while await reader.position(at) < ends[at]:
                    records = (await reader.poll([at])).get(at, ())
                    generations += [self.fold.generation_of(topic, record.value) for record in records]
        return Position(begins[TopicPartition(self.source, p)], generation=max(generations) + 1)

    async def _start(
        self,
        reader: Reader,
        p: int,
        position: Position,
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        other: str | None,
    ) -> tuple[Position, Loss | None]:
        """Return where to continue, and what has been lost; `other` is the reason why the source differs from the
        counted one.

        Raises:
            UnfitError: an operator has to decide.

        """
        source = TopicPartition(self.source, p)
        begin, end = begins[source], ends[source]
        if position.offset < begin:
            if not self.accept_loss:
                check_offset(source, position.offset, begin, end)
            loss = Loss(position.offset, begin - 1, False, position.append_ms)
            return Position(begin, -1, position.generation), loss
        if position.offset <= end and other is None:
            return position, None
        if not self._is_the_same_source(p):
            check_offset(source, position.offset, begin, end)
            raise recreated(source, other or "")
        kept = await reader.first_after(source, position.append_ms)
        resume = min(end if kept is None else kept, position.offset)
        loss = Loss(resume, position.offset - 1, True, position.append_ms)
        return Position(resume, -1, position.generation + 1), loss

    def _is_the_same_source(self, p: int) -> bool:
        """Tell whether the source is, by its id or by the operator's decision, the topic that was counted."""
        counted, now = self.store.read(p, SOURCE_ID), self.topic_ids.get(self.source, "")
        if counted is None or not now:
            return self.accept_loss
        return counted == now.encode()

    async def _find_others(
        self,
        positions: Mapping[int, Position],
        begins: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
        current: Callable[[], bool],
    ) -> dict[int, str]:
        """Return the partitions where the record before the position is not the one that was counted, and why.

        The record's append time is compared; a deleted record cannot be compared.
        """
        wanted = {
            source: position
            for p, position in positions.items()
            if position.append_ms >= 0
            and begins[source := TopicPartition(self.source, p)] < position.offset <= ends[source]
        }
        others: dict[int, str] = {}
        if not wanted:
            return others
        # a broker always sends the first batch completely, however small the limit
        async with self.host.reader(fetch_bytes=1) as reader:
            reader.assign({source: position.offset - 1 for source, position in wanted.items()})
            deadline = self.host.monotonic() + PATIENCE
            while wanted and current():
                try:
                    got = await reader.poll(list(wanted))
                except OffsetOutOfRangeError:  # retention has just deleted one
                    now = await reader.begins(list(wanted))
                    wanted = {source: at for source, at in wanted.items() if at.offset > now[source]}
                    continue
                for source, records in got.items():
                    first, position = records[0], wanted.pop(source)
                    why = find_other(position, first.offset, first.timestamp)
                    if why is not None:
                        others[source.partition] = why
                if wanted and self.host.monotonic() > deadline:
                    raise TimeoutError(f"no records from {self.source}")
        return others
