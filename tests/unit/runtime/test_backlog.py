"""When a partition with a backlog writes a group: it waits for many records, and never longer than it must."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.runtime.conftest import Bench
from tests.unit.runtime.test_accept import own, records

from tallystream.streams.runtime import Partition, commit

ALL = 2 * commit.BACKLOG


async def begun(bench: Bench) -> Partition:
    """Have a topic with a backlog, of which 100 records have been folded."""
    bench.broker.append(bench.names.source, 0, [(None, b"k|0 1")] * ALL)
    partition = own(bench)
    bench.engine.begin(partition)
    await bench.engine.accept(0, records(*range(100)))
    await bench.worker.settle()
    return partition


async def test_group_waits_for_more_in_a_backlog(bench: Bench) -> None:
    partition = await begun(bench)
    assert partition.applied.offset == 0
    await bench.engine.accept(0, records(*range(100, 110)))
    await bench.worker.settle()
    assert partition.applied.offset == 0
    await bench.engine.accept(0, records(*range(110, commit.BACKLOG + 1)))
    await bench.worker.settle()
    assert partition.applied.offset == partition.expected, "nearly everything is folded"


async def test_group_does_not_wait_without_a_backlog(bench: Bench) -> None:
    bench.broker.append(bench.names.source, 0, [(None, b"k|0 1")] * 3)
    partition = own(bench)
    bench.engine.begin(partition)
    await bench.engine.accept(0, records(0))
    await bench.worker.settle()
    assert partition.applied.offset == partition.expected


async def test_group_waits_for_a_bounded_number_of_records(bench: Bench) -> None:
    bench.fold.max_unacked = 200
    partition = await begun(bench)
    assert partition.applied.offset == 0
    await bench.engine.accept(0, records(*range(100, 200)))
    await bench.worker.settle()
    assert partition.applied.offset == partition.expected, "folding goes on only after an acknowledgement"


async def test_group_waits_for_a_bounded_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "BACKLOG_SECONDS", 0.05)
    partition = await begun(bench)
    assert partition.applied.offset == 0
    await asyncio.sleep(0.1)
    await bench.worker.settle()
    assert partition.applied.offset == partition.expected


async def test_group_does_not_wait_when_the_worker_stops(bench: Bench) -> None:
    partition = await begun(bench)
    assert partition.applied.offset == 0
    assert await bench.engine.drain(1.0)
    assert partition.applied.offset == 100
