"""Recovery: reads the changelog to its end before a partition is folded again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiokafka.errors import OffsetOutOfRangeError
from aiokafka.structs import TopicPartition

from tallystream.streams.runtime.changelog import POSITION, SOURCE_ID, WATERMARK, Position, Watermark
from tallystream.streams.runtime.changelog_copy import FETCH_BYTES, PATIENCE, TAIL_BYTES, ChangelogCopy
from tallystream.streams.runtime.fold import Loss
from tallystream.streams.runtime.host import Reader
from tallystream.streams.runtime.source_check import check_offset, find_other, recreated

LAST_ROWS = 100
"""Number of public rows whose generation is read."""


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

    copy: ChangelogCopy
    source: str
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
        copy = self.copy
        logs = [TopicPartition(copy.changelog, p) for p in partitions]
        sources = [TopicPartition(self.source, p) for p in partitions]
        public = [TopicPartition(topic, p) for p in partitions for topic in copy.fold.owned_topics]
        open_reader = copy.host.reader
        async with open_reader(fetch_bytes=FETCH_BYTES) as reader, open_reader(fetch_bytes=TAIL_BYTES) as tails:
            every = [*logs, *sources, *public]
            ends, begins = await reader.ends(every), await reader.begins(every)
            if not await copy.catch_up(reader, tails, logs, begins, ends, current):
                return
            positions = {p: await self._position(reader, p, begins, ends) for p in partitions}
            others = await self._find_others(tails, positions, begins, ends, current)
            starts = {
                p: await self._start(reader, p, position, begins, ends, others.get(p))
                for p, position in positions.items()
            }
            if not current():
                return
            for p, (position, loss) in starts.items():
                raw = copy.store.read(p, WATERMARK)
                watermark = None if raw is None else Watermark.decode(raw)
                install(RecoveredState(p, position, watermark, copy.hidden(p), loss))
                taken(p, begins, ends)

    async def _position(
        self, reader: Reader, p: int, begins: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
    ) -> Position:
        """Return where the state ends; a new table starts at the beginning of the source.

        If its public rows exist, the changelog was deleted: then a higher generation makes the new rows win.
        """
        raw = self.copy.store.read(p, POSITION)
        if raw is not None:
            return Position.decode(raw)
        generations = [-1]
        for topic in self.copy.fold.owned_topics:
            at = TopicPartition(topic, p)
            first = max(begins[at], ends[at] - LAST_ROWS)
            if first < ends[at]:
                reader.assign({at: first})
                while await reader.position(at) < ends[at]:
                    records = (await reader.poll([at])).get(at, ())
                    generations += [self.copy.fold.generation_of(topic, record.value) for record in records]
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
        counted, now = self.copy.store.read(p, SOURCE_ID), self.copy.topic_ids.get(self.source, "")
        if counted is None or not now:
            return self.accept_loss
        return counted == now.encode()

    async def _find_others(
        self,
        reader: Reader,
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
        reader.assign({source: position.offset - 1 for source, position in wanted.items()})
        deadline = self.copy.host.monotonic() + PATIENCE
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
            if wanted and self.copy.host.monotonic() > deadline:
                raise TimeoutError(f"no records from {self.source}")
        return others
