"""Gap repair: seeks the consumer back to where the state ends whenever records before a delivered batch are missing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.host import Host
from tallystream.streams.runtime.partition import Partition
from tallystream.streams.runtime.progress import Counters
from tallystream.streams.runtime.source_check import check_offset

log = structlog.get_logger()

REPAIR_EVERY = 1.0
"""Seconds between two seeks of a partition, because batches fetched before the first one still arrive."""
PATIENT_TICKS = 5
"""Ticks of `watch` without progress after which a partition is sought even if the consumer's position seems right."""
LINE_TICKS = 15
"""Ticks after which one is sought although batches wait in line or are being folded: that may take long on a busy
machine, and what seems to be missing is probably among them."""
SHORT_TICKS = 10
"""Ticks after which a source that ends before the position counts as truncated; a new leader may be briefly behind."""
SEEK_TIMEOUT = 30.0
POSITION_TIMEOUT = 5.0


class GapRepair:
    """Finds and repairs gaps between what the consumer delivers and what the state expects.

    Promise: a batch that was dropped around a rebalance is read again. If a later batch follows, the gap shows when
    that arrives; at the tail, `watch` finds that the consumer has read past what the state expects.
    """

    def __init__(self, host: Host, owned: Mapping[int, Partition], source: str, counters: Counters) -> None:
        self._host = host
        self._owned = owned
        self._source = source
        self._counters = counters
        self._folded = 0
        """Records that all partitions had folded at the last tick."""
        self._tasks: set[asyncio.Task[None]] = set()

    def seek_back(self, partition: Partition, why: str) -> None:
        """Seek to `partition.expected`, at most once in REPAIR_EVERY seconds."""
        now = self._host.boottime()
        if now - partition.repaired >= REPAIR_EVERY:
            partition.repaired = now
            task = asyncio.ensure_future(self._seek_back(partition, why))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _ours(self, partition: Partition) -> bool:
        return self._owned.get(partition.number) is partition

    async def _seek_back(self, partition: Partition, why: str) -> None:
        host, tp = self._host, TopicPartition(self._source, partition.number)
        log.warning("sought_back", topic=tp.topic, partition=tp.partition, expected=partition.expected, why=why)
        try:
            async with asyncio.timeout(SEEK_TIMEOUT):
                begin = await host.ask_source_begin(tp)
                if not self._ours(partition):
                    return
                check_offset(tp, partition.expected, begin, partition.expected)
                await host.seek_source(tp, partition.expected)
            self._counters.repairs += 1
        except UnfitError as exc:
            host.fail_fast(exc)
        except Exception as exc:  # noqa: BLE001 - a rebalance, or no broker: the watch tries again
            log.warning("seek_back_failed", topic=tp.topic, partition=tp.partition, error=repr(exc))

    async def watch(self) -> None:
        """Look, once a second, for partitions whose fetching has stalled although the source has more records."""
        busy = self._host.in_line(self._source) or self._counters.folded != self._folded
        self._folded = self._counters.folded
        for partition in list(self._owned.values()):
            if partition.seen != partition.expected or partition.applied.offset != partition.expected:
                partition.seen, partition.still = partition.expected, 0
                continue
            partition.still += 1
            tp = TopicPartition(self._source, partition.number)
            end = self._host.source_end(tp)
            if end is None or end <= partition.expected:
                if end is not None and end < partition.expected and partition.still >= SHORT_TICKS:
                    await self._check_end(tp, partition)
                continue
            if busy and partition.still < LINE_TICKS:
                continue
            try:
                async with asyncio.timeout(POSITION_TIMEOUT):
                    at = await self._host.source_position(tp)
            except Exception:  # noqa: BLE001, S112 - rebalancing: the new assignment seeks
                continue
            still_there = self._ours(partition) and partition.seen == partition.expected
            if still_there and (at is None or at > partition.expected or partition.still >= PATIENT_TICKS):
                self._counters.tail_stalls += 1
                self.seek_back(partition, f"no records for {partition.still} s, consumer at {at} of {end}")

    async def _check_end(self, tp: TopicPartition, partition: Partition) -> None:
        """Ask Kafka whether the source really ends before the counted position."""
        try:
            async with asyncio.timeout(POSITION_TIMEOUT):
                end = await self._host.ask_source_end(tp)
            if self._ours(partition):
                check_offset(tp, partition.expected, 0, end)
        except UnfitError as exc:
            self._host.fail_fast(exc)
        except Exception as exc:  # noqa: BLE001 - rebalancing, or no broker: the next tick asks again
            log.info("source_end_unknown", topic=tp.topic, partition=tp.partition, error=repr(exc))
