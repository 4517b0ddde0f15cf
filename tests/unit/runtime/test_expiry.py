"""Watermarks."""

from __future__ import annotations

from tests.unit.runtime.conftest import Bench

from tallystream.streams.runtime import Partition
from tallystream.streams.runtime.changelog import Position, Watermark


async def test_a_watermark_never_falls(bench: Bench) -> None:
    partition = Partition(0, bench.worker.store, Position(0))
    assert bench.engine.expiry.raise_watermark(partition, Position(0)) is None
    assert bench.engine.expiry.raise_watermark(partition, Position(7, 2000)) == Watermark(b"%020d" % 1500, 7)
    assert bench.engine.expiry.raise_watermark(partition, Position(8, 1000)) is None
    assert bench.engine.expiry.raise_watermark(partition, Position(9, 2000)) is None
    assert (partition.watermark, partition.settled) == (b"%020d" % 1500, 7)
