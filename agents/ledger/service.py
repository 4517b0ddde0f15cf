"""The ledger service: follows the topics and writes them to a SQL database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import structlog
from prometheus_client import CollectorRegistry

from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.config import LedgerConfig
from tallystream.agents.ledger.coverage_watch import CoverageWatch
from tallystream.agents.ledger.errors import LedgerDamagedError
from tallystream.agents.ledger.metrics import LedgerMetrics
from tallystream.agents.ledger.small_topics import sources_of
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.ledger.store.open import open_database
from tallystream.agents.ledger.store.sqlite import rename_aside
from tallystream.schemas.errors import RetryableError, UnreachableError
from tallystream.schemas.hours import hour_of
from tallystream.schemas.status import LedgerStatus, ReadPosition
from tallystream.streams.identity import Identity, read_identity
from tallystream.streams.kafka.errors import TopicRecreatedError
from tallystream.streams.kafka.follower import FollowedBatch, FollowerPosition, TopicFollower
from tallystream.streams.kafka.topic_setup import TopicCheck
from tallystream.streams.service.backoff import FailureBackoff
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.ops import Health

log = structlog.get_logger()
TELL_EVERY = 60.0
"""Seconds between two log lines about an outage that continues."""
COVERAGE_SHARE = 50
"""Comparing coverage takes at most one part in so many of the time, because nothing is written meanwhile."""
NOTHING_TO_COMPARE = 5.0
"""Seconds between two comparisons while there is nothing to compare, so that the first usage is shown soon."""
T = TypeVar("T")


class Ledger:
    """The work of one ledger process: `run` until it is cancelled.

    Promise: rows and their positions are written in one transaction, so that after a kill at any moment the ledger is
    correct up to its positions. One ledger writes; others stand by.
    """

    def __init__(self, config: LedgerConfig, registry: CollectorRegistry, clock: Clock | None = None) -> None:
        self._config = config
        self._topics_fit = TopicCheck(config.kafka, sources_of(config.topics))
        self._clock = clock or SystemClock()
        self._metrics = LedgerMetrics(registry)
        self._coverage = CoverageWatch(registry)
        self._moved = self._clock.monotonic()
        self._active = False
        self._caught_up = False
        self._behind = 0
        self._unreadable = 0
        self._why = "it is starting"
        self._positions: dict[tuple[str, int], FollowerPosition] = {}

    async def run(self) -> None:
        """Keep the database up to date until cancelled; wait whenever Kafka or the database is unavailable.

        Raises:
            LedgerUnfitError: the database is of a newer release, or refuses a required operation.
            UnfitError: a topic has unsuitable settings.

        """
        failures, told = FailureBackoff(), None
        while True:
            try:
                await self._work()
            except RetryableError as exc:
                self._why, self._active = exc.message, False
                self._metrics.active.set(0)
                self._metrics.failures.inc()
                if isinstance(exc, LedgerDamagedError):
                    await _thread(lambda: rename_aside(self._config.place.file))
                    self._tell_set_aside(exc.message)
                now = self._clock.monotonic()
                if told is None or now - told > TELL_EVERY:
                    log.warning("ledger_waits", why=exc.message)
                    told = now
            self._moved = self._clock.monotonic()
            await asyncio.sleep(failures.after_failure())

    async def _work(self) -> None:
        """Write the ledger until Kafka or the database becomes unavailable."""
        config = self._config
        topics = config.topics
        await self._topics_fit()
        database = await _thread(lambda: open_database(config.place))
        try:
            await self._until_writer(database)
            writer = Writer(database, topics)
            identity = await self._identity(writer)
            why = await _thread(lambda: writer.claim(identity))
            if why:
                self._tell_set_aside(why)
            self._active = True
            self._metrics.active.set(1)
            try:
                await self._follow(database, writer, identity)
            except TopicRecreatedError as exc:
                await _thread(writer.set_aside)
                self._tell_set_aside(exc.message)
        finally:
            self._active = False
            self._metrics.active.set(0)
            self._coverage.forget()
            await _thread(database.close)

    async def _until_writer(self, database: Database) -> None:
        told = False
        while not await _thread(database.try_lock):
            self._why = "another ledger writes it; this one stands by"
            self._caught_up = True
            if not told:
                log.info("ledger_stands_by", where=database.where)
                told = True
            self._moved = self._clock.monotonic()
            await asyncio.sleep(self._config.standby)
        self._caught_up = False
        self._why = "the topics are still being read"

    def _tell_set_aside(self, why: str) -> None:
        self._metrics.set_aside.inc()
        log.warning("ledger_set_aside", why=why, next="it is rebuilt from the topics")

    async def _identity(self, writer: Writer) -> Identity:
        return await read_identity(self._config.kafka, self._config.topics.prefix, writer.sources)

    async def _follow(self, database: Database, writer: Writer, identity: Identity) -> None:
        self._positions = await _thread(writer.positions)
        looked = self._clock.monotonic()
        expired: float | None = None
        compare_at = 0.0
        async with TopicFollower(self._config.kafka, writer.sources, self._positions) as tail:
            while True:
                batches = await self._gather(tail)
                await self._apply(writer, tail, batches)
                now = self._clock.monotonic()
                # Also after a suspension of the process, because topics may have been recreated and have grown
                # meanwhile.
                if now - looked > self._config.look:
                    looked = now
                    await self._look(writer, identity)
                if not batches:
                    await tail.renew()
                if not tail.behind and not self._caught_up:
                    self._caught_up, self._why = True, ""
                    log.info("ledger_caught_up")
                if not tail.behind and (expired is None or now - expired > self._config.expire):
                    expired = now
                    begins = await tail.begins()
                    self._metrics.expired.inc(await _thread(lambda: writer.expire(begins)))  # noqa: B023 - awaited here
                if not tail.behind and now >= compare_at:
                    hour = hour_of(self._clock.now_ns())
                    await _thread(lambda: self._coverage.look(database, hour))  # noqa: B023 - awaited here
                    took = self._clock.monotonic() - now
                    pause = self._config.coverage if self._coverage.rows else NOTHING_TO_COMPARE
                    compare_at = now + max(pause, took * COVERAGE_SHARE)
                self._behind = tail.behind
                self._metrics.behind.set(self._behind)
                self._moved = self._clock.monotonic()

    async def _gather(self, tail: TopicFollower) -> list[FollowedBatch]:
        """Return new records, including those that follow shortly, so that one commit covers many records."""
        batches = await tail.poll()
        until = self._clock.monotonic() + self._config.gather
        size = sum(len(batch.records) for batch in batches)
        while batches and size < self._config.most and (tail.behind or self._clock.monotonic() < until):
            more = await tail.poll()
            if not more:
                break
            batches += more
            size += sum(len(batch.records) for batch in more)
        return batches

    async def _apply(self, writer: Writer, tail: TopicFollower, batches: list[FollowedBatch]) -> None:
        reached = {
            place: FollowerPosition(offset)
            for place, offset in tail.positions().items()
            if offset > (self._positions[place].offset if place in self._positions else 0)
        }
        if not batches and not reached:
            return
        with self._metrics.seconds.time():
            done = await _thread(lambda: writer.apply(batches, reached))
        self._positions |= reached
        for batch in batches:
            at = (batch.topic, batch.partition)
            if at not in reached or reached[at].offset <= batch.after.offset:
                self._positions[at] = batch.after
        for topic, records in done.records.items():
            self._metrics.records.labels(topic).inc(records)
        self._metrics.rows.inc(done.rows)
        self._metrics.unreadable.inc(done.unreadable)
        self._unreadable += done.unreadable

    async def _look(self, writer: Writer, identity: Identity) -> None:
        """Check that the topics are those from which the ledger was built.

        Raises:
            TopicRecreatedError: they are not.

        """
        try:
            now = await self._identity(writer)
        except UnreachableError:
            return  # Reading tells soon enough.
        if why := now.difference(identity):
            raise TopicRecreatedError(why)

    def healthy(self) -> Health:
        """Tell whether the loop makes progress."""
        silent = self._clock.monotonic() - self._moved
        if silent > self._config.hung:
            return Health(ok=False, why=f"nothing has moved for {silent:.0f} s")
        return Health(ok=True)

    def ready(self) -> Health:
        """Tell whether the ledger has everything that the topics contained when it opened them, or is on standby."""
        return Health(ok=self._caught_up, why=self._why)

    def status(self) -> LedgerStatus:
        """Return its progress."""
        return LedgerStatus(
            active=self._active,
            caught_up=self._caught_up,
            behind=self._behind,
            unreadable=self._unreadable,
            coverage=self._coverage.status(),
            read=[
                ReadPosition(topic=topic, partition=partition, offset=position.offset)
                for (topic, partition), position in sorted(self._positions.items())
            ],
        )


async def _thread(work: Callable[[], T]) -> T:
    """Do blocking work in a thread; a cancellation waits for its end, because the connection must not be used by two
    threads.
    """
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()
        raise
