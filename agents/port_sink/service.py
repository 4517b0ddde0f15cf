"""The sink: follows the topics always, and writes to Port while it is the active one of its group."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import structlog
from prometheus_client import CollectorRegistry

from tallystream.agents.port_sink.config import SinkConfig
from tallystream.agents.port_sink.documents import feeds, kinds
from tallystream.agents.port_sink.mapping.entities import EntityKey
from tallystream.agents.port_sink.metrics import BEHIND, DOCUMENTS, ENTITIES, PARKED, REPETITIONS, SinkMetrics
from tallystream.agents.port_sink.pipeline.backlog import Backlog
from tallystream.agents.port_sink.pipeline.send_queue import Outbox
from tallystream.agents.port_sink.port.client import Client
from tallystream.agents.port_sink.port.errors import PortError
from tallystream.agents.port_sink.state.in_doubt import Doubts
from tallystream.agents.port_sink.state.sent import PREFIX, SWEEP, Ledger
from tallystream.agents.port_sink.writer import Parts, Term
from tallystream.streams.kafka.global_table import Feed, GlobalTable
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics, ensure
from tallystream.streams.leader_election import Election, Fence, alternate, persist
from tallystream.streams.service.backoff import Backoff, FailureBackoff
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.ops import Health

log = structlog.get_logger()
LONGEST_PAUSE = 60.0
STUCK = 60.0
TICK = 0.25


class Sink:
    """One sink process's work: `run` until it is cancelled."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topics: Topics,
        config: SinkConfig,
        *,
        registry: CollectorRegistry | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._kafka = kafka
        self._topics = topics
        self._config = config
        self._clock = clock or SystemClock()
        self.writer = uuid.uuid4().hex[:12]
        self._kinds = kinds(config.mapper.kinds)
        self._sources: list[Feed] = feeds(topics)
        self._prefixes: dict[bytes, list[str]] = {}
        for name, kind in self._kinds.items():
            for prefix in kind.prefixes:
                self._prefixes.setdefault(prefix, []).append(name)
        self.table = GlobalTable(kafka, config.directory, [*self._sources, Ledger.feed(topics.port_sent.name)])
        self.backlog = Backlog(self._kinds)
        self.outbox = Outbox(linger_ms=int(config.linger * 1000))
        self.doubts = Doubts()
        self.metrics = SinkMetrics(registry or CollectorRegistry())
        self.metrics.paced(0, None)
        self.metrics.watch(
            {
                BEHIND: self.behind,
                DOCUMENTS: lambda: len(self.backlog),
                ENTITIES: lambda: len(self.outbox),
                PARKED: lambda: self.outbox.parked,
                REPETITIONS: lambda: self.doubts.soon,
            },
            lambda: self.table.read,
        )
        self._parts = Parts(
            kafka, topics, config, self._clock, self.table, self._kinds, self.backlog, self.outbox, self.doubts,
            self.metrics, asyncio.Event(), self.port_said,
        )  # fmt: skip
        self._ledger: Ledger | None = None
        self._writing = False
        self._role = "starting"
        self._problem: str | None = None
        self._moved = time.monotonic()

    async def run(self) -> None:
        """Follow, and write when it is our turn, until cancelled.

        Raises:
            UsageError: the CA file cannot be used.
            UnfitError: a topic exists that is not as it must be.

        """
        await persist(self._run, self._kafka_away)

    def behind(self) -> float:
        """Return the age in seconds of the oldest change that is not in Port yet."""
        oldest = [one for one in (self.backlog.since_ms(), self.outbox.since_ms()) if one]
        return max(0.0, self._clock.now_ns() / 1e9 - min(oldest) / 1e3) if oldest else 0.0

    def health(self) -> Health:
        """Return whether the process moves on. A Port that is away is a metric and a log, not a sick sink."""
        silent = time.monotonic() - self._moved
        if silent > STUCK:
            return Health(False, f"nothing has moved for {silent:.0f} s: restart this sink")
        return Health(True, self._role)

    def ready(self) -> Health:
        """Return whether this sink writes to Port, or stands by."""
        if self._problem is not None:
            return Health(False, f"{self._role}; {self._problem}")
        return Health(self._role in ("active", "standby"), self._role)

    def port_said(self, problem: str | None) -> None:
        """Take in what is wrong with Port as a whole, None when it answers well."""
        self._problem = problem
        self._moved = time.monotonic()

    def _kafka_away(self, pause: float) -> None:
        self._role = "waiting for Kafka"
        self._moved = time.monotonic() + pause

    async def _run(self) -> None:
        topics = self._topics
        await ensure(self._kafka, topics.all())
        await self.table.start()
        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(Client(self._config.client, self._clock))
                ledger = self._ledger = await stack.enter_async_context(
                    Ledger(self._kafka, topics.port_sent.name, self.table, self.writer)
                )
                election = await stack.enter_async_context(
                    Election(self._kafka, topics.sink_group, topics.port_control.name, self._config.session_timeout)
                )
                work = [
                    self.table.run(self._on_rows),
                    alternate(
                        election,
                        partial(self._lead, election, client, ledger),
                        partial(self._stand_by, election),
                        TICK,
                    ),
                    self._tick(),
                ]
                tasks = [asyncio.create_task(one) for one in work]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in tasks:
                        if task.done():
                            task.result()
                finally:
                    await cancel(*tasks)
        finally:
            await self.table.stop()

    def _stand_by(self, election: Election) -> None:
        self._role = "standby" if election.joined else "joining"

    async def _lead(self, election: Election, client: Client, ledger: Ledger, number: int) -> None:
        """Write to Port until cancelled, for as long as Port lets us begin.

        Raises:
            NotLeaderError: another sink writes, or may.

        """
        term = Term(self._parts, client, ledger, Fence(election, number))
        self._role, pauses = "taking over", FailureBackoff(Backoff(longest=LONGEST_PAUSE))
        self.metrics.sweeping.set(1)
        try:
            while True:
                try:
                    await term.prepare()
                    self._role, self._writing = "active", True
                    self.metrics.active.set(1)
                    log.info("active", writer=self.writer)
                    await term.run()
                except PortError as exc:
                    pause = pauses.after_failure()
                    self.port_said(exc.message)
                    log.warning("port_away", why=exc.message, hint=exc.hint, retry_in_s=pause)
                    await asyncio.sleep(pause)
        finally:
            self._writing = False
            self.metrics.active.set(0)
            self.metrics.sweeping.set(0)
            self.metrics.paced(0, None)
            self.backlog.clear()
            self.outbox.clear()
            self.doubts.clear()
            self.table.resume()

    def _on_rows(self, feed: Feed, changed: Sequence[tuple[bytes, int]]) -> None:
        """Note what changed; while another sink writes it is its matter."""
        if not self._writing or self._ledger is None:
            return
        if feed.topic == self._topics.port_sent.name:
            for row, _ in changed:
                if row == PREFIX + SWEEP:
                    self._parts.asked.set()
                noted = self._ledger.read(row)
                if noted is not None and noted[1].writer != self.writer:
                    self._overwritten(*noted[0], noted[1].kind, noted[1].key)
            return
        for row, appended_ms in changed:
            for name in self._prefixes.get(row[:2], ()):
                key = self._kinds[name].touched(row)
                if key is not None:
                    self.backlog.add(name, key, appended_ms)
        if len(self.backlog) > self._config.max_backlog:
            self.table.pause(source.topic for source in self._sources)

    def _overwritten(self, blueprint: str, identifier: str, kind: str, key: bytes) -> None:
        """Send again what another sink has just written: it was paused, and has been woken."""
        log.warning("overwritten", blueprint=blueprint, identifier=identifier)
        self.doubts.forced.add(EntityKey(blueprint, identifier))
        if kind in self._kinds:
            self.backlog.again(kind, key, self._clock.now_ns() // 1_000_000)

    async def _tick(self) -> None:
        """Look after what nobody calls: pauses that can end, doubts that are due, signs of life."""
        while True:
            await asyncio.sleep(TICK)
            self._moved = max(self._moved, time.monotonic())
            if len(self.backlog) <= self._config.max_backlog // 2:
                self.table.resume()
            if not self._writing or self._ledger is None:
                continue
            now = self._clock.now_ns() // 1_000_000
            for doubt in self.doubts.due(now):
                if doubt.kind in self._kinds:
                    self.backlog.again(doubt.kind, doubt.key, now)
                else:
                    self.doubts.forced.discard(doubt.entity)
            if settled := self.doubts.settled(now):
                await self._ledger.settle(settled)
