"""Which ranges of a topic an owner checks: foreign rows between, behind and shortly before its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.runtime.late_writes import LOOK_BACK, LateWrites
from tallystream.streams.runtime.memory import MemoryBroker, MemoryHost
from tallystream.streams.runtime.progress import Counters

ROWS, SUMS = TopicPartition("rows", 0), TopicPartition("sums", 0)


def made() -> LateWrites:
    fold: Any = SimpleNamespace(owned_topics=("rows", "sums"))
    return LateWrites(fold, MemoryHost(MemoryBroker()), {}, Counters())


def taken(one: LateWrites, end: int) -> None:
    one.taken(0, {ROWS: 0, SUMS: 0}, {ROWS: end, SUMS: end})


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=30))
def test_foreign_writes_before_our_last_row_are_checked(writes: list[tuple[bool, int]]) -> None:
    one, end, foreign, last = made(), 7, set[int](), 0
    taken(one, end)
    one._ranges.clear()
    for ours, count in writes:
        if ours:
            one.landed(ROWS, [(end, count)])
            last = end
        else:
            foreign |= set(range(end, end + count))
        end += count
    first, stop = one._ranges.get(ROWS, (0, 0))
    assert {offset for offset in foreign if offset < last} <= set(range(first, stop))
    if not foreign:
        assert (first, stop) == (0, 0)


def test_new_owner_checks_earlier_rows() -> None:
    one = made()
    taken(one, 3 * LOOK_BACK)
    assert one._ranges == dict.fromkeys((ROWS, SUMS), (2 * LOOK_BACK, 3 * LOOK_BACK))


def test_returning_owner_checks_rows_written_in_its_absence() -> None:
    one = made()
    taken(one, 10)
    one._ranges.clear()
    one.landed(ROWS, [(10, 5)])
    one.lost(0)
    taken(one, 40)
    assert one._ranges[ROWS] == (15, 40)


def test_unchecked_rows_are_checked_after_a_loss() -> None:
    one = made()
    taken(one, 10)
    one._ranges.clear()
    one.landed(ROWS, [(12, 5)])
    one.lost(0)
    assert ROWS not in one._ranges
    taken(one, 40)
    assert one._ranges[ROWS] == (10, 40)
