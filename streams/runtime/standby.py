"""A hot standby: keeps copies of the partitions that other workers own, so that taking one over reads only its tail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog_copy import TAIL_BYTES, ChangelogCopy
from tallystream.streams.runtime.engine import Engine
from tallystream.streams.runtime.host import Reader
from tallystream.streams.runtime.progress import Counters, FoldActivity

log = structlog.get_logger()
EVERY = 1.0
"""Seconds between two rounds."""
AGAIN = 5.0
"""Seconds to wait when Kafka does not answer."""
REST = 1.0
"""Seconds to rest after each second of copying, so that the owned partitions keep half of the processor."""


@dataclass
class StandbyProgress:
    """What the copies hold, as of the last round: `behind` is the number of records they lack, by partition."""

    behind: dict[int, int] = field(default_factory=dict)
    copied: int = 0
    """Changelog records copied since the process started; it only increases."""


class Standby:
    """Follows the changelogs of the partitions from 0 to `partitions` - 1 that `engine` is not assigned.

    Promise: a copy is at all times what a recovery interrupted at that record would have left, because it is written by
    the same steps; each round begins with the check that the changelog still contains what was copied. When a partition
    is assigned to this worker, the round in progress writes nothing more, and recovery continues where the copy ends.
    """

    def __init__(self, engine: Engine, partitions: int) -> None:
        self._engine = engine
        self._partitions = partitions
        self._counters = Counters()
        self._copy = ChangelogCopy(
            engine.fold,
            engine.host,
            engine.store,
            engine.changelog,
            self._counters,
            FoldActivity(engine.host.monotonic),  # its own: copying is no sign that the fold makes progress
            engine.topic_ids,
            REST,
        )
        self._behind: dict[int, int] = {}
        self._refused: set[int] = set()

    def progress(self) -> StandbyProgress:
        """Return what the copies hold."""
        return StandbyProgress(dict(self._behind), self._counters.recovered)

    async def run(self) -> None:
        """Follow until cancelled; nothing is copied before the first assignment."""
        host = self._engine.host
        while True:
            try:
                async with host.reader() as reader, host.reader(fetch_bytes=TAIL_BYTES) as tails:
                    while True:
                        await self.follow(reader, tails)
                        await asyncio.sleep(EVERY)
            except (KafkaError, OSError, TimeoutError) as exc:
                log.info("standby_waits_for_kafka", table=self._engine.name, error=repr(exc))
                await asyncio.sleep(AGAIN)
            except Exception as exc:  # noqa: BLE001 - as everywhere: nothing limps on
                host.fail_fast(exc)

    async def follow(self, reader: Reader, tails: Reader) -> None:
        """Copy what the changelogs have gained since the last round.

        Raises:
            KafkaError, TimeoutError: Kafka does not answer; what was copied is kept.

        """
        engine, assignment = self._engine, self._engine.assignments
        if not assignment:
            return
        logs = [TopicPartition(engine.changelog, p) for p in range(self._partitions) if p not in engine.assigned]
        if not logs:
            self._behind = {}
            return
        ends, begins = await reader.ends(logs), await reader.begins(logs)
        if not self._is_current(assignment):
            return
        have = {log: engine.store.changelog_offset(log.partition) + 1 for log in logs}
        self._behind = {log.partition: max(0, ends[log] - have[log]) for log in logs}
        for one in [log for log in logs if have[log] != ends[log]]:
            try:
                done = await self._copy.catch_up(
                    reader, tails, [one], begins, ends, lambda: self._is_current(assignment)
                )
            except UnfitError as exc:
                self._refuse(one.partition, exc)
                continue
            if not done:
                break
            self._behind[one.partition] = 0
        reader.assign({})  # so that nothing is fetched ahead that the next round would fetch again

    def _is_current(self, assignment: int) -> bool:
        return self._engine.assignments == assignment

    def _refuse(self, p: int, why: UnfitError) -> None:
        """Leave a partition to its recovery, which refuses it with the same reason if it is assigned to us."""
        if p not in self._refused:
            self._refused.add(p)
            log.warning("standby_cannot_copy", table=self._engine.name, partition=p, error=why.message)


def total(standbys: Sequence[Standby]) -> StandbyProgress:
    """Return the progress of several tables' standbys together."""
    made = StandbyProgress()
    for one in standbys:
        progress = one.progress()
        made.copied += progress.copied
        for p, behind in progress.behind.items():
            made.behind[p] = made.behind.get(p, 0) + behind
    return made
