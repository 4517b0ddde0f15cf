"""Watermarks."""

from __future__ import annotations

from tests.unit.runtime.conftest import Bench

from tallystream.streams.runtime import Partition
from tallystream.streams.runtime.changelog import Position, Watermark


async def test_watermark_never_decreases(bench: Bench) -> None:
    partition = Partition(0, bench.worker.store, Position(0))
    assert bench.engine.expiry.raise_watermark(partition, Position(0)) is None
    assert bench.engine.expiry.raise_watermark(partition, Position(7, 2000)) == Watermark(b"%020d" % 1500, 7)
    assert bench.engine.expiry.raise_watermark(partition, Position(8, 1000)) is None
    assert bench.engine.expiry.raise_watermark(partition, Position(9, 2000)) is None
    assert (partition.watermark, partition.settled) == (b"%020d" % 1500, 7)


async def test_broker_clock_jumping_ahead_closes_no_rows(bench: Bench) -> None:
    """Both clocks must agree that a key is past: a jump of the broker's alone would close it permanently."""
    now = bench.broker.clock.now_ms()
    partition = Partition(0, bench.worker.store, Position(0))
    day = 86_400_000
    assert bench.engine.expiry.raise_watermark(partition, Position(7, now + 30 * day)) == Watermark(
        b"%020d" % (now - 500), 7
    )
    assert bench.engine.expiry.raise_watermark(partition, Position(8, now)) is None
