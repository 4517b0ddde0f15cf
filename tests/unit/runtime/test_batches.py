"""Batches that wait in line: those of a partition are joined, and none is lost, doubled or moved before another one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runtime.test_accept import records

from tallystream.streams.runtime.faust_backend.batches import MAX_RECORDS, BatchLine


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5), st.integers(0, 9)), max_size=20))
def test_each_partition_keeps_its_order(batches: list[tuple[int, int, int]]) -> None:
    """A batch that does not continue the one before it, as after a seek back, stays a batch of its own."""
    line, ends = BatchLine(), [0, 0, 0]
    added: list[list[int]] = [[], [], []]
    for partition, size, jump in batches:
        start = ends[partition] if jump else max(0, ends[partition] - 3)
        ends[partition] = start + size
        offsets = list(range(start, start + size))
        added[partition] += offsets
        line.add(partition, records(*offsets))
    assert line.size == len(batches)
    taken: list[list[int]] = [[], [], []]
    for partition, joined in line.take():
        offsets = [record.offset for record in joined]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))), "dense, as the engine demands"
        taken[partition] += offsets
    assert taken == added
    assert line.size == 0
    assert list(line.take()) == []


def test_joined_batches_stay_short() -> None:
    line = BatchLine()
    for start in (0, MAX_RECORDS - 1, MAX_RECORDS):
        line.add(0, records(*range(start, start + (MAX_RECORDS - 1 if start == 0 else 1))))
    assert [len(joined) for _, joined in line.take()] == [MAX_RECORDS, 1]
