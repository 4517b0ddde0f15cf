"""What the engine does with a batch: it folds records only at the expected offset."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from aiokafka.structs import TopicPartition
from tests.unit.runtime.conftest import Bench

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime import Partition
from tallystream.streams.runtime.changelog import Position, Watermark
from tallystream.streams.runtime.gap_repair import LINE_TICKS, PATIENT_TICKS


class Rec(NamedTuple):
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[()] = ()


def records(*offsets: int, value: bytes = b"k|0 1", at: int = 1000) -> list[Rec]:
    return [Rec("unit.source", 0, offset, at + offset, None, value) for offset in offsets]


START = Position(0)


def own(bench: Bench, position: Position = START, watermark: Watermark | None = None) -> Partition:
    """Give the engine a recovered partition that does not commit."""
    partition = Partition(0, bench.worker.store, position, watermark)
    bench.fold.recovered(partition)
    bench.engine._owned[0] = partition
    return partition


def counted(partition: Partition) -> int:
    return sum(state[1] for state in partition.dirty.values())


async def test_consecutive_batches_are_folded(bench: Bench) -> None:
    partition = own(bench)
    await bench.engine.accept(0, records(0, 1, 2))
    await bench.engine.accept(0, records(3))
    assert (partition.expected, partition.newest_ms, counted(partition)) == (4, 1003, 4)
    assert partition.waiting
    assert partition.wake.is_set()


async def test_already_counted_records_are_skipped(bench: Bench) -> None:
    partition = own(bench)
    await bench.engine.accept(0, records(0, 1, 2))
    await bench.engine.accept(0, records(0, 1))
    await bench.engine.accept(0, records(1, 2, 3, 4))
    assert (partition.expected, counted(partition), bench.engine.counters.skipped) == (5, 5, 4)


async def test_gap_causes_a_seek_back_instead_of_a_fold(bench: Bench) -> None:
    bench.broker.append(bench.names.source, 0, [(None, b"k|0 1")] * 9)
    partition = own(bench, Position(5))
    await bench.engine.accept(0, records(7, 8))
    await bench.worker.settle()
    assert bench.host.positions == {TopicPartition(bench.names.source, 0): 5}
    assert (partition.expected, counted(partition), bench.engine.counters.gaps) == (5, 0, 1)


async def test_batch_of_a_foreign_partition_is_not_folded(bench: Bench) -> None:
    await bench.engine.accept(1, records(0))
    assert bench.engine.counters.folded == 0


async def test_source_with_holes_is_refused(bench: Bench) -> None:
    own(bench)
    with pytest.raises(UnfitError, match="0 to 2 hold 2 records"):
        await bench.engine.accept(0, records(0, 2))


async def test_other_source_topic_is_refused(bench: Bench) -> None:
    """The consumer was reset to the start of a topic that was recreated while the worker ran."""
    own(bench, Position(3, 1002))
    await bench.engine.accept(0, records(0, 1, 2))
    with pytest.raises(UnfitError, match="created again"):
        await bench.engine.accept(0, records(0, 1, 2, at=5000))
    with pytest.raises(UnfitError, match="created again"):
        await bench.engine.accept(0, records(0, 1, 2, 3, at=5000))


async def test_message_already_in_a_newer_row_is_not_counted_twice(bench: Bench) -> None:
    """The position went back (a torn group); the row did not."""
    partition = own(bench, Position(0))
    bench.worker.store.write(0, [(b"k|0", bench.fold.dump([1, 2, 2]))], 9)
    await bench.engine.accept(0, records(0, 1, 2))
    assert partition.dirty == {b"k|0": [2, 3, 3]}


async def test_fold_waits_while_too_much_is_unacknowledged(bench: Bench) -> None:
    partition = own(bench)
    bench.fold.max_unacked = 3
    await bench.engine.accept(0, records(0, 1, 2))
    waiting = asyncio.create_task(bench.engine.accept(0, records(3)))
    await asyncio.sleep(0)
    assert (partition.expected, waiting.done()) == (3, False)
    partition.capacity.set()
    await waiting
    assert partition.expected == 4


async def test_records_waiting_for_a_lost_partition_are_dropped(bench: Bench) -> None:
    partition = own(bench)
    partition.capacity.clear()
    waiting = asyncio.create_task(bench.engine.accept(0, records(0)))
    await asyncio.sleep(0)
    bench.engine.revoke_all()
    own(bench)
    await waiting
    assert bench.engine.counters.folded == 0


async def test_records_of_closed_keys_become_dead_letters(bench: Bench) -> None:
    """Records below the offset at which the watermark took effect were already judged; later ones are refused."""
    partition = own(bench, Position(3), Watermark(b"%020d" % 100, 5))
    await bench.engine.accept(0, records(3, 4, 5, 6, value=b"k|99 1"))
    assert counted(partition) == 0
    assert [key for key, _ in bench.fold.letters[0]] == [b"0-5", b"0-6"]


async def test_rows_excludes_closed_and_reserved_keys(bench: Bench) -> None:
    rows = [(b"a|99", b"old"), (b"a|100", b"new"), (b"\0closed", Watermark(b"%020d" % 100, 5).encode())]
    bench.worker.store.write(0, rows, 3)
    assert list(bench.engine.rows(0)) == [(b"a|100", b"new")]


async def test_batch_that_waits_in_line_is_not_read_again(bench: Bench) -> None:
    """On a busy machine folding what came before may take seconds, which is no stall of the fetching."""
    source = TopicPartition(bench.names.source, 0)
    bench.broker.append(source.topic, 0, [(None, b"k|0 1")] * 3)
    own(bench)
    bench.host.positions[source] = 3
    bench.host.lines.add(source.topic)
    for _ in range(PATIENT_TICKS + 1):
        await bench.engine.watch()
    assert (bench.engine.counters.tail_stalls, bench.host.positions[source]) == (0, 3)
    bench.host.lines.clear()
    bench.engine.counters.folded += 1  # of another partition, since the last tick
    await bench.engine.watch()
    await settle()
    assert bench.engine.counters.tail_stalls == 0
    await bench.engine.watch()
    await settle()
    assert (bench.engine.counters.tail_stalls, bench.host.positions[source]) == (1, 0)


async def test_lost_batch_is_read_again_although_others_always_wait(bench: Bench) -> None:
    source = TopicPartition(bench.names.source, 0)
    bench.broker.append(source.topic, 0, [(None, b"k|0 1")] * 3)
    own(bench)
    bench.host.positions[source] = 3
    bench.host.lines.add(source.topic)
    for _ in range(LINE_TICKS + 1):
        await bench.engine.watch()
    await settle()
    assert (bench.engine.counters.tail_stalls, bench.host.positions[source]) == (1, 0)


async def settle() -> None:
    """Let a seek that has begun finish."""
    for _ in range(10):
        await asyncio.sleep(0)
