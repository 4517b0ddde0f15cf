"""The sink service: always follows the topics, and writes to Port while it is the active sink of its group."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

import structlog
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from tallystream.agents.port_sink.config import SinkConfig
from tallystream.agents.port_sink.documents import MODELS, feeds, kinds
from tallystream.agents.port_sink.documents.base import FanOut
from tallystream.agents.port_sink.errors import PortError
from tallystream.agents.port_sink.mapping.entities import EntityKey
from tallystream.agents.port_sink.metrics import BEHIND, DOCUMENTS, ENTITIES, PARKED, REPETITIONS, SinkMetrics
from tallystream.agents.port_sink.pipeline.backlog import Backlog
from tallystream.agents.port_sink.pipeline.send_queue import SendQueue
from tallystream.agents.port_sink.port.client import PortClient
from tallystream.agents.port_sink.result import SinkResult
from tallystream.agents.port_sink.state.in_doubt import InDoubt
from tallystream.agents.port_sink.state.sent import PREFIX, SWEEP, SentIndex
from tallystream.agents.port_sink.writer import ActiveWriter, SinkContext
from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import ReadPosition, SinkStatus
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.global_table import Feed, GlobalTable
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.topic_setup import TopicCheck
from tallystream.streams.leader_election import Election, Fence, election_loop, retry_while_away
from tallystream.streams.service.backoff import Backoff, FailureBackoff
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.ops import Health

log = structlog.get_logger()
LONGEST_PAUSE = 60.0
STUCK = 60.0
TICK = 0.25


class Sink:
    """The work of one sink process: `run` until it is cancelled."""

    def __init__(self, config: SinkConfig, registry: CollectorRegistry, clock: Clock | None = None) -> None:
        kafka, topics = config.kafka, config.topics
        self._kafka = kafka
        self._topics = topics
        self._topics_fit = TopicCheck(kafka, topics.all())
        self._config = config
        self._clock = clock or SystemClock()
        self.writer = uuid.uuid4().hex[:12]
        mapper = config.mapper
        buckets = {kind for kind in mapper.kinds if mapper.reads_buckets(kind)}
        self._kinds = kinds(mapper.kinds, buckets, mapper.endpoints, mapper.blueprints(MODELS))
        self._fan_out = {name: kind for name, kind in self._kinds.items() if isinstance(kind, FanOut)}
        self._sources: list[Feed] = feeds(topics)
        self._prefixes: dict[bytes, list[str]] = {}
        for name, kind in self._kinds.items():
            for prefix in kind.prefixes:
                self._prefixes.setdefault(prefix, []).append(name)
        self.table = GlobalTable(kafka, config.directory, [*self._sources, SentIndex.feed(topics.port_sent.name)])
        self.backlog = Backlog(self._kinds)
        self.send_queue = SendQueue(linger_ms=int(config.linger * 1000))
        self.in_doubt = InDoubt()
        self.metrics = SinkMetrics(registry)
        self.metrics.paced(0, None)
        self.metrics.watch(
            {
                BEHIND: self.behind,
                DOCUMENTS: lambda: len(self.backlog),
                ENTITIES: lambda: len(self.send_queue),
                PARKED: lambda: self.send_queue.deferred,
                REPETITIONS: lambda: self.in_doubt.soon,
            },
            lambda: self.table.read,
        )
        self._context = SinkContext(
            kafka, topics, config, self._clock, self.table, self._kinds, self.backlog, self.send_queue, self.in_doubt,
            self.metrics, asyncio.Event(), asyncio.Event(), SinkResult(), self.on_port_status,
        )  # fmt: skip
        self._sent_index: SentIndex | None = None
        self._writing = False
        self._active = False
        self._role = "starting"
        self._problem: PortError | None = None
        self._moved = time.monotonic()
        self._stood_since = 0.0
        self._told: set[str] = set()

    async def run(self) -> None:
        """Follow the topics, and write when elected, until cancelled.

        Raises:
            UsageError: the CA file cannot be used.
            UnfitError: an existing topic has unsuitable settings.

        """
        await retry_while_away(partial(self._run, once=False), self._kafka_away)

    async def once(self) -> SinkResult:
        """Write everything once and return the result; for a CronJob.

        Entities that Port does not accept yet are counted and left to the next sink.

        Raises:
            UnreachableError: another sink is the active one, or Kafka does not answer.
            PortError: Port does not let us begin.
            UsageError, UnfitError: as `run`.

        """
        try:
            result = await self._run(once=True)
        except (KafkaError, OSError) as exc:
            raise unreachable(self._kafka, exc) from exc
        assert result is not None
        return result

    def behind(self) -> float:
        """Return the age in seconds of the oldest change that is not in Port yet."""
        oldest = [one for one in (self.backlog.since_ms(), self.send_queue.since_ms()) if one]
        return max(0.0, self._clock.now_ns() / 1e9 - min(oldest) / 1e3) if oldest else 0.0

    def healthy(self) -> Health:
        """Return whether the process makes progress. An outage of Port is logged and shown by metrics, but does not
        make the sink unhealthy.
        """
        silent = time.monotonic() - self._moved
        if silent > STUCK:
            return Health(False, f"no progress for {silent:.0f} s: restart this sink")
        return Health(True, self._role)

    def ready(self) -> Health:
        """Return whether this sink writes to Port, or stands by."""
        if self._problem is not None:
            return Health(False, f"{self._role}; {self._problem.message}")
        why = self._role
        stopped = self._context.result.stopped if self._writing else {}
        for kind, missing in stopped.items():
            why += f"; {kind}: Port has no blueprint {', '.join(missing)}, so nothing is written to it"
        some = not self._writing or len(self._context.halted) < len(self._kinds)
        return Health(self._role in ("active", "standby") and some, why)

    def status(self) -> SinkStatus:
        """Return the work that is not in Port yet, what hinders it, and the positions of the local copy."""
        result = self._context.result
        return SinkStatus(
            active=self._active,
            sweep_running=self.metrics.sweep_running,
            repetitions_due=self.in_doubt.soon,
            backlog_documents=len(self.backlog),
            backlog_entities=len(self.send_queue),
            behind_seconds=self.behind(),
            read=[
                ReadPosition(topic=topic, partition=partition, offset=offset)
                for (topic, partition), offset in self.table.read.items()
            ],
            problem=None if self._problem is None else self._problem.message,
            next_step="" if self._problem is None else self._problem.hint,
            kinds=list(self._kinds),
            missing_blueprints=dict(result.stopped) if self._writing else {},
            unmatched_kinds=sorted(self._told),
            deferred_entities=self.send_queue.deferred,
            written_entities=result.written,
            refused_entities=result.refused,
            not_registered=result.unregistered if self._writing else None,
            unmapped_records=result.unmapped,
            requests_per_second=self.metrics.pace[0],
            remaining_calls=self.metrics.pace[1],
        )

    def on_port_status(self, problem: PortError | None) -> None:
        """Note a general problem with Port, None when it works."""
        self._problem = problem
        self._moved = time.monotonic()

    def _kafka_away(self, pause: float) -> None:
        self._role = "waiting for Kafka"
        self._moved = time.monotonic() + pause

    async def _run(self, *, once: bool) -> SinkResult | None:
        topics = self._topics
        await self._topics_fit()
        await self.table.start()
        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(PortClient(self._config.client, self._clock))
                sent_index = self._sent_index = await stack.enter_async_context(
                    SentIndex(self._kafka, topics.port_sent.name, self.table, self.writer)
                )
                election = await stack.enter_async_context(
                    Election(self._kafka, topics.sink_group, topics.port_control.name, self._config.session_timeout)
                )
                work = [
                    self.table.run(self._on_rows),
                    election_loop(
                        election,
                        partial(self._lead, election, client, sent_index, once=once),
                        partial(self._stand_by, election, once=once),
                        TICK,
                    ),
                    self._tick(),
                ]
                tasks = [asyncio.create_task(one) for one in work]
                try:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                    for task in tasks:
                        if task.done() and (result := task.result()) is not None:
                            return result
                    return None
                finally:
                    await cancel(*tasks)
        finally:
            await self.table.stop()

    def _stand_by(self, election: Election, *, once: bool) -> None:
        """Note that another sink is the active one; with `once`, fail after a while."""
        self._role = "standby" if election.joined else "joining"
        self._stood_since = self._stood_since or time.monotonic()
        if once and election.joined and time.monotonic() - self._stood_since > 2 * self._config.session_timeout:
            raise UnreachableError(
                "another sink is the active one", "it already writes; use `--once` only when no sink is running"
            )

    async def _lead(
        self, election: Election, client: PortClient, sent_index: SentIndex, number: int, *, once: bool
    ) -> SinkResult | None:
        """Write to Port until cancelled, or with `once` until everything has been written.

        Raises:
            NotLeaderError: another sink writes, or may write.

        """
        term = ActiveWriter(self._context, client, sent_index, Fence(election, number))
        self._role, pauses = "taking over", FailureBackoff(Backoff(longest=LONGEST_PAUSE))
        self.metrics.sweeps_run(running=True)
        try:
            while True:
                try:
                    await term.prepare()
                    self._role, self._writing = "active", True
                    self._active = True
                    self.metrics.active.set(1)
                    log.info("active", writer=self.writer)
                    if once:
                        return await self._write_once(term)
                    await term.run()
                except PortError as exc:
                    if once:
                        raise
                    pause = pauses.after_failure()
                    self.on_port_status(exc)
                    log.warning("port_away", why=exc.message, hint=exc.hint, retry_in_s=pause)
                    await asyncio.sleep(pause)
        finally:
            self._writing = False
            self._active = False
            self.metrics.active.set(0)
            self.metrics.sweeps_run(running=False)
            self.metrics.paced(0, None)
            self.backlog.clear()
            self.send_queue.clear()
            self.in_doubt.clear()
            self.table.resume()

    async def _write_once(self, writer: ActiveWriter) -> SinkResult:
        """Write until everything is in Port, except entities that Port does not accept for now."""
        writing = asyncio.ensure_future(writer.run())
        try:
            while not self._finished():
                await asyncio.wait([writing], timeout=TICK)
                if writing.done():
                    writing.result()
            await writer.report()
        finally:
            await cancel(writing)
        result = self._context.result
        result.waiting = self.send_queue.deferred
        return result

    def _finished(self) -> bool:
        """Tell whether only entities that wait for another attempt are left."""
        under_way = len(self.send_queue) - self.send_queue.deferred
        return self._context.compared.is_set() and not self.backlog and not under_way and not self.in_doubt.soon

    def _on_rows(self, feed: Feed, changed: Sequence[tuple[bytes, int]]) -> None:
        """Note changes; ignored unless this sink is the active one."""
        if not self._writing or self._sent_index is None:
            return
        if feed.topic == self._topics.port_sent.name:
            for row, _ in changed:
                if row == PREFIX + SWEEP:
                    self._context.asked.set()
                noted = self._sent_index.read(row)
                if noted is not None and noted[1].writer != self.writer:
                    self._overwritten(*noted[0], noted[1].kind, noted[1].key)
            return
        for row, appended_ms in changed:
            for name in self._prefixes.get(row[:2], ()):
                if (kind := self._fan_out.get(name)) is not None:
                    for key in kind.affected(self.table, row):
                        self.backlog.add(name, key, appended_ms)
                elif (one := self._kinds[name].key_for(row)) is not None:
                    self.backlog.add(name, one, appended_ms)
        if len(self.backlog) > self._config.max_backlog:
            self.table.pause(source.topic for source in self._sources)

    def _look_for_matches(self) -> None:
        """Warn once for a kind if its mapping did not match any of its records."""
        if not self._context.compared.is_set() or self.backlog:
            return
        unmatched = self._context.result.unmatched()
        for kind in self._kinds:
            self.metrics.unmatched.labels(kind).set(kind in unmatched)
        for kind in unmatched - self._told:
            log.warning(
                "mapping_never_matches", kind=kind, records=self._context.result.records[kind],
                hint="look at its query and itemsToParse: `tallystream port mapping test` shows what they give",
            )  # fmt: skip
        self._told = unmatched

    def _overwritten(self, blueprint: str, identifier: str, kind: str, key: bytes) -> None:
        """Send again the entities that another sink has just written, which was suspended and has resumed."""
        log.warning("overwritten", blueprint=blueprint, identifier=identifier)
        self.in_doubt.forced.add(EntityKey(blueprint, identifier))
        if kind in self._kinds:
            self.backlog.again(kind, key, self._clock.now_ns() // 1_000_000)

    async def _tick(self) -> None:
        """Periodic work: resume reading, send entities in doubt again, note that the loop runs."""
        while True:
            await asyncio.sleep(TICK)
            self._moved = max(self._moved, time.monotonic())
            if len(self.backlog) <= self._config.max_backlog // 2:
                self.table.resume()
            if not self._writing or self._sent_index is None:
                continue
            self._look_for_matches()
            now = self._clock.now_ns() // 1_000_000
            for doubt in self.in_doubt.due(now):
                if doubt.kind in self._kinds:
                    self.backlog.again(doubt.kind, doubt.key, now)
                else:
                    self.in_doubt.forced.discard(doubt.entity)
            if settled := self.in_doubt.settled(now):
                await self._sent_index.settle(settled)
