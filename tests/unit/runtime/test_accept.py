"""What a table does with a batch: fold it exactly where the state ends, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import pytest
from tests.support.counting import Counts

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime import Part
from tallystream.streams.runtime.changelog import Closed, Position


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


def own(table: Counts, position: Position = START, closed: Closed | None = None) -> Part:
    """Give the table a recovered partition that commits nothing."""
    part = Part(position, closed)
    table.recovered_partition(0)
    table._parts[0] = part
    return part


def counted(part: Part) -> int:
    return sum(state[1] for state in part.dirty.values())


async def test_batches_that_follow_each_other_are_folded(table: Counts) -> None:
    part = own(table)
    await table.accept(0, records(0, 1, 2))
    await table.accept(0, records(3))
    assert (part.expected, part.newest_ms, counted(part)) == (4, 1003, 4)
    assert part.waiting
    assert part.wake.is_set()


async def test_what_was_counted_is_skipped(table: Counts) -> None:
    part = own(table)
    await table.accept(0, records(0, 1, 2))
    await table.accept(0, records(0, 1))
    await table.accept(0, records(1, 2, 3, 4))
    assert (part.expected, counted(part), table.counters.skipped) == (5, 5, 4)


async def test_a_gap_is_not_folded(table: Counts) -> None:
    part = own(table, Position(5))
    part.repaired = float("inf")  # the seek back needs a consumer
    await table.accept(0, records(7, 8))
    assert (part.expected, counted(part), table.counters.gaps) == (5, 0, 1)


async def test_a_partition_that_is_not_ours_is_not_folded(table: Counts) -> None:
    await table.accept(1, records(0))
    assert table.counters.folded == 0


async def test_a_source_with_holes_is_refused(table: Counts) -> None:
    own(table)
    with pytest.raises(UnfitError, match="0 to 2 hold 2 records"):
        await table.accept(0, records(0, 2))


async def test_a_source_that_is_another_one_is_refused(table: Counts) -> None:
    """The consumer was thrown back to the start of a topic that was created again under the running worker."""
    own(table, Position(3, 1002))
    await table.accept(0, records(0, 1, 2))
    with pytest.raises(UnfitError, match="created again"):
        await table.accept(0, records(0, 1, 2, at=5000))
    with pytest.raises(UnfitError, match="created again"):
        await table.accept(0, records(0, 1, 2, 3, at=5000))


async def test_a_row_with_a_newer_version_is_not_counted_twice(table: Counts) -> None:
    """The position went back (a torn group); the row did not."""
    part = own(table, Position(0))
    table.store.write(0, [(b"k|0", table.dump([1, 2, 2]))], 9)
    await table.accept(0, records(0, 1, 2))
    assert part.dirty == {b"k|0": [2, 3, 3]}


async def test_folding_waits_while_too_much_is_unacknowledged(table: Counts) -> None:
    part = own(table)
    table.max_unacked = 3
    await table.accept(0, records(0, 1, 2))
    waiting = asyncio.create_task(table.accept(0, records(3)))
    await asyncio.sleep(0)
    assert (part.expected, waiting.done()) == (3, False)
    part.room.set()
    await waiting
    assert part.expected == 4


async def test_what_waited_for_a_partition_that_was_lost_is_dropped(table: Counts) -> None:
    part = own(table)
    part.room.clear()
    waiting = asyncio.create_task(table.accept(0, records(0)))
    await asyncio.sleep(0)
    table.forget_all()
    own(table)
    await waiting
    assert table.counters.folded == 0


async def test_records_of_closed_keys(table: Counts) -> None:
    """Below the offset where the marker came into force they have been judged; above it they are refused."""
    part = own(table, Position(3), Closed(b"%020d" % 100, 5))
    await table.accept(0, records(3, 4, 5, 6, value=b"k|99 1"))
    assert counted(part) == 0
    assert [key for key, _ in table.letters[0]] == [b"0-5", b"0-6"]


async def test_rows_shows_neither_closed_nor_reserved_ones(table: Counts) -> None:
    rows = [(b"a|99", b"old"), (b"a|100", b"new"), (b"\0closed", Closed(b"%020d" % 100, 5).encode())]
    table.store.write(0, rows, 3)
    assert list(table.rows(0)) == [(b"a|100", b"new")]


async def test_rows_change_only_through_fold(table: Counts) -> None:
    for change in (lambda: table.on_key_set(b"k", b"v"), lambda: table.on_key_del(b"k"), lambda: table.data[b"k"]):
        with pytest.raises(TypeError):
            change()
