"""The exporter's two loops, one for offsets and one for topics. Each restarts when Kafka becomes unavailable."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from tallystream.exporter.config import ExporterConfig
from tallystream.exporter.connections import Registers
from tallystream.exporter.counters import CounterLedger, file_name
from tallystream.exporter.errors import CountersUnusableError
from tallystream.exporter.lag import LagReader, Lags
from tallystream.exporter.metrics import ExporterCollector, View
from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.hours import hour_of
from tallystream.schemas.status import ExporterStatus
from tallystream.schemas.versions import find_version
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.errors import TopicRecreatedError, unreachable
from tallystream.streams.kafka.follower import FollowedBatch, TopicFollower
from tallystream.streams.kafka.lifecycle import own_cancel_only
from tallystream.streams.kafka.loops import run_loops
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.ops import Health

log = structlog.get_logger()
TELL_EVERY = 60.0
"""Seconds between two log lines while Kafka is unavailable."""


class MetricsExporter:
    """The work of an exporter process: `run` until cancelled. `view` is what the collector shows.

    Promise: a counter is shown only after it is on disk, and only after the rows have been read to their end once.
    """

    def __init__(self, config: ExporterConfig, registry: CollectorRegistry, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        topics = config.topics
        self._registers = Registers(topics.connections.name, topics.activity.name)
        self._ledger: CounterLedger | None = None
        self._caught_up = False
        self._lags: Lags | None = None
        self._rows_up_to: dict[int, int] = {}
        self._newest_row_ms: int | None = None
        self._failures = 0
        self._lag_at = self._rows_at = 0
        started = self._clock.monotonic()
        self._lag_moved = self._rows_moved = started
        registry.register(ExporterCollector(self.view))

    async def run(self) -> None:
        """Run until cancelled.

        Raises:
            CountersUnusableError: the counters' file is damaged or cannot be written.
            UnfitError: a topic has the wrong settings.

        """
        config = self._config
        await self._again(lambda: ensure(config.kafka, config.topics.all()), once=True)
        await self._again(self._open_ledger, once=True)
        try:
            await run_loops(self._again(self._watch_lag), self._again(self._follow))
        finally:
            assert self._ledger is not None
            self._ledger.close()

    async def _again(self, work: Callable[[], Awaitable[None]], *, once: bool = False) -> None:
        """Do the work, and repeat it after a delay whenever Kafka does not answer."""
        told = None
        while True:
            try:
                await self._asked(work)
                if once:
                    return
            except UnreachableError as exc:
                self._failures += 1
                now = self._clock.monotonic()
                if told is None or now - told > TELL_EVERY:
                    log.warning("kafka_does_not_answer", error=exc.message)
                    told = now
            await asyncio.sleep(self._config.retry)

    async def _asked(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            with own_cancel_only():
                await work()
        except KafkaError as exc:
            raise unreachable(self._config.kafka, exc) from exc

    async def _open_ledger(self) -> None:
        try:
            async with administering(self._config.kafka) as admin:
                cluster = str((await admin.describe_cluster())["cluster_id"])
        except (KafkaError, OSError) as exc:
            raise unreachable(self._config.kafka, exc) from exc
        name = file_name(cluster, self._config.topics.session_hour_rows.name)
        self._ledger = CounterLedger(self._config.directory / name)
        # Start with what the last process published.
        self._caught_up = bool(self._ledger.published.sums)

    # -- offsets

    async def _watch_lag(self) -> None:
        config = self._config
        async with LagReader(config.kafka, config.topics) as reader:
            while True:
                self._lags = await reader.read(self._rows_up_to)
                self._lag_at, self._lag_moved = self._lags.read_at_ns, self._clock.monotonic()
                await asyncio.sleep(config.every)

    # -- rows, connections, activity

    async def _follow(self) -> None:
        assert self._ledger is not None
        topics = self._config.topics
        rows, small = topics.session_hour_rows.name, (topics.connections.name, topics.activity.name)
        positions = self._ledger.positions(rows)
        try:
            async with TopicFollower(self._config.kafka, (rows, *small), positions) as tail:
                while True:
                    batches = await self._gather(tail)
                    await self._take(rows, batches)
                    if not self._caught_up and not tail.behind:
                        self._caught_up = True
                        log.info("caught_up", labels=len(self._ledger.published.sums))
                    self._rows_at, self._rows_moved = self._clock.now_ns(), self._clock.monotonic()
        except TopicRecreatedError as exc:
            log.warning("topic_made_anew", why=str(exc))
            self._ledger.forget_positions(rows)
            self._rows_up_to.clear()

    async def _gather(self, tail: TopicFollower) -> list[FollowedBatch]:
        """Return the next records, with those that follow shortly after, so that one commit covers many rows."""
        batches = await tail.poll()
        until = self._clock.monotonic() + self._config.gather
        size = sum(len(batch.records) for batch in batches)
        while batches and size < 20_000 and self._clock.monotonic() < until:
            more = await tail.poll()
            batches += more
            size += sum(len(batch.records) for batch in more)
        return batches

    async def _take(self, rows: str, batches: Sequence[FollowedBatch]) -> None:
        assert self._ledger is not None
        self._registers.apply(batch for batch in batches if batch.topic != rows)
        mine = [batch for batch in batches if batch.topic == rows]
        if mine:
            # In a thread, because it waits for the disk. Shielded, so that a cancel does not close the file meanwhile.
            applying = asyncio.ensure_future(asyncio.to_thread(self._ledger.apply, mine, hour_of(self._clock.now_ns())))
            try:
                await asyncio.shield(applying)
            except asyncio.CancelledError:
                await applying
                raise
            except sqlite3.Error as exc:
                raise CountersUnusableError(
                    f"the exporter's counters in {self._ledger.path} cannot be written: {exc}",
                    "free space on that disk; nothing is lost, and the exporter continues where it stopped",
                ) from exc
            for batch in mine:
                self._note(batch)

    def _note(self, batch: FollowedBatch) -> None:
        """Record the position in a partition of the rows."""
        self._newest_row_ms = max(self._newest_row_ms or 0, batch.after.timestamp)
        newest = max(
            (found[1] for record in batch.records if (found := find_version(record.value)) is not None),
            default=-1,
        )
        self._rows_up_to[batch.partition] = max(newest, self._rows_up_to.get(batch.partition, -1))

    # -- for the collector and the ops port

    def view(self) -> View:
        """Return the current view."""
        now = self._clock.now_ns()
        fresh = self._lags is not None and now - self._lag_at < self._config.stale * 1e9
        return View(
            now_ns=now,
            cluster=self._config.topics.prefix,
            lags=self._lags if fresh else None,
            published=self._ledger.published if self._ledger is not None and self._caught_up else None,
            connections=self._registers.connections,
            last_synced=self._registers.last_synced,
            newest_row_ms=self._newest_row_ms,
            failures=self._failures,
            lateness=self._config.lateness,
            lag_read_at_ns=self._lag_at,
            rows_read_at_ns=self._rows_at,
        )

    def healthy(self) -> Health:
        """Return whether both loops make progress."""
        now = self._clock.monotonic()
        for what, moved in (("offsets", self._lag_moved), ("rows", self._rows_moved)):
            if now - moved > self._config.hung:
                return Health(ok=False, why=f"no {what} from Kafka for {now - moved:.0f} s")
        return Health(ok=True)

    def ready(self) -> Health:
        """Return whether lags and counters are shown and recent."""
        now = self._clock.monotonic()
        if not self._lag_at or now - self._lag_moved > self._config.stale:
            return Health(ok=False, why="the offsets have not been read yet")
        if not self._caught_up or now - self._rows_moved > self._config.stale:
            return Health(ok=False, why="the rows are still being read")
        return Health(ok=True)

    def status(self) -> ExporterStatus:
        """Return the positions read so far."""
        return ExporterStatus(caught_up=self._caught_up, kafka_failures=self._failures)
