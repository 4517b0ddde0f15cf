"""Repair: the consumer is sent back to where the state ends whenever a record before what came is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import structlog
from faust.types import TP

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.partition import Part
from tallystream.streams.runtime.source_check import check_offset
from tallystream.streams.service.clock import boottime

if TYPE_CHECKING:
    from tallystream.streams.runtime.faust_backend.table import FoldTable

log = structlog.get_logger()

REPAIR_EVERY = 1.0
"""Seconds between two seeks back of a partition: what was fetched before the first is still under way."""
PATIENT_TICKS = 5
"""Ticks of `watch` without progress after which a partition is sought even if the consumer seems to stand right."""
SHORT_TICKS = 10
"""Ticks after which a source that ends before the position is held for cut; a new leader may be behind for a moment."""
SEEK_TIMEOUT = 30.0
POSITION_TIMEOUT = 5.0


class Repair:
    """Finds and mends gaps between what the consumer delivers and what the state expects.

    Promise: a batch that Faust dropped around a rebalance is read again. One before a later batch shows as a gap when
    that comes; one at the tail is found by `watch`, as the consumer has read past what the state expects.
    """

    def __init__(self, table: FoldTable) -> None:
        self._table = table
        self._tasks: set[asyncio.Task[None]] = set()

    def seek_back(self, p: int, part: Part, why: str) -> None:
        """Seek to `part.expected`, at most once a REPAIR_EVERY."""
        if boottime() - part.repaired >= REPAIR_EVERY:
            part.repaired = boottime()
            task = asyncio.ensure_future(self._seek_back(p, part, why))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _seek_back(self, p: int, part: Part, why: str) -> None:
        table = self._table
        tp, consumer = TP(table.source, p), table.app.consumer
        log.warning("sought_back", topic=tp.topic, partition=p, expected=part.expected, why=why)
        try:
            async with asyncio.timeout(SEEK_TIMEOUT):
                begin = (await consumer.earliest_offsets(tp))[tp]
                if table.part(p) is not part:
                    return
                check_offset(tp, part.expected, begin, part.expected)
                consumer.resume_partitions({tp})
                await consumer.seek_wait({tp: part.expected})
            table.counters.repairs += 1
        except UnfitError as exc:
            table.app.die(exc)
        except Exception as exc:  # noqa: BLE001 - a rebalance, or no broker: the watch tries again
            log.warning("seek_back_failed", topic=tp.topic, partition=p, error=repr(exc))

    async def watch(self, parts: Mapping[int, Part]) -> None:
        """Look, once a second, for partitions where nothing comes although the source has more."""
        table = self._table
        for p, part in list(parts.items()):
            if part.seen != part.expected or part.applied.offset != part.expected:
                part.seen, part.still = part.expected, 0
                continue
            part.still += 1
            tp, consumer = TP(table.source, p), table.app.consumer
            end = table.app.source_end(tp)
            if end is None or end <= part.expected:
                if end is not None and end < part.expected and part.still >= SHORT_TICKS:
                    await self._check_end(tp, part)
                continue
            try:
                async with asyncio.timeout(POSITION_TIMEOUT):
                    at = await consumer.position(tp)
            except Exception:  # noqa: BLE001, S112 - rebalancing: the new assignment seeks
                continue
            still_there = table.part(p) is part and part.seen == part.expected
            if still_there and (at is None or at > part.expected or part.still >= PATIENT_TICKS):
                table.counters.tails += 1
                self.seek_back(p, part, f"nothing came for {part.still} s, consumer at {at} of {end}")

    async def _check_end(self, tp: TP, part: Part) -> None:
        """Ask Kafka whether the source really ends before what was counted."""
        table = self._table
        try:
            async with asyncio.timeout(POSITION_TIMEOUT):
                end = (await table.app.consumer.highwaters(tp))[tp]
            if table.part(tp.partition) is part:
                check_offset(tp, part.expected, 0, end)
        except UnfitError as exc:
            table.app.die(exc)
        except Exception as exc:  # noqa: BLE001 - rebalancing, or no broker: the next tick asks again
            log.info("source_end_unknown", topic=tp.topic, partition=tp.partition, error=repr(exc))
