"""The active writer: one term of a sink, from its election until another sink may write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import structlog

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.blueprints import Blueprint, sync
from tallystream.agents.port_sink.config import SinkConfig
from tallystream.agents.port_sink.dead_letters import DeadLetterWriter
from tallystream.agents.port_sink.documents import DocumentKind
from tallystream.agents.port_sink.errors import PortError
from tallystream.agents.port_sink.mapping.entities import Rules, rules
from tallystream.agents.port_sink.metrics import SinkMetrics
from tallystream.agents.port_sink.pipeline.backlog import Backlog
from tallystream.agents.port_sink.pipeline.registration import Registration
from tallystream.agents.port_sink.pipeline.resync import Resync, Retention
from tallystream.agents.port_sink.pipeline.samples import Samples
from tallystream.agents.port_sink.pipeline.send_queue import SendQueue
from tallystream.agents.port_sink.pipeline.sender import Sender
from tallystream.agents.port_sink.pipeline.transform import Transform
from tallystream.agents.port_sink.port import api
from tallystream.agents.port_sink.port.client import PortClient
from tallystream.agents.port_sink.port.rate import RateLimiter
from tallystream.agents.port_sink.result import SinkResult
from tallystream.agents.port_sink.state.in_doubt import InDoubt
from tallystream.agents.port_sink.state.related import RelatedEntities
from tallystream.agents.port_sink.state.sent import SentIndex
from tallystream.streams.kafka.global_table import GlobalTable
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.leader_election import Fence
from tallystream.streams.service.backoff import Backoff
from tallystream.streams.service.clock import Clock

log = structlog.get_logger()
TICK = 0.02
RECHECK = Backoff(first=2.0, longest=60.0)
"""Delay between two checks for blueprints that Port lacked."""
REPORT = 10.0
"""Seconds for Port to take note of a single pass; the pass does not depend on it."""
CLOSE = 8.0
"""Seconds for requests in flight to finish when this sink stops writing."""


@dataclass(frozen=True)
class SinkContext:
    """The parts of a sink process that outlive a term."""

    kafka: KafkaSettings
    topics: Topics
    config: SinkConfig
    clock: Clock
    table: GlobalTable
    kinds: Mapping[str, DocumentKind]
    backlog: Backlog
    send_queue: SendQueue
    in_doubt: InDoubt
    metrics: SinkMetrics
    asked: asyncio.Event
    """Set when a resync is requested."""
    compared: asyncio.Event
    """Set once everything has been put into the backlog since this sink began to write."""
    result: SinkResult
    on_status: Callable[[PortError | None], None]
    """Called with a general problem with Port, None when it works."""
    halted: set[str] = field(default_factory=set)
    """Kinds of which nothing is written, because Port has none of their blueprints."""


class ActiveWriter:
    """`prepare`, then `run` until cancelled or NotLeaderError."""

    def __init__(self, context: SinkContext, client: PortClient, sent_index: SentIndex, fence: Fence) -> None:
        self._context = context
        self._client = client
        self._sent_index = sent_index
        self._fence = fence
        self._begun = False
        self._rules: dict[str, Rules] = {}
        """Of the blueprints that Port has, by identifier; grows when one that was missing is there."""
        self._related = RelatedEntities()
        self._registration = self._registered() if context.config.register else None

    async def prepare(self) -> None:
        """Read the current state; writes only missing blueprints to Port.

        Raises:
            NotLeaderError: another sink writes, or may write.
            PortError: Port does not answer.

        """
        context = self._context
        await context.table.caught_up.wait()
        await self._fence.ensure()
        if not self._begun:
            await self._sent_index.begin()
            while not self._sent_index.begun():  # noqa: ASYNC110 - another task reads the topic
                await asyncio.sleep(TICK)
            self._begun = True
            for plan in self._sent_index.plans():
                context.in_doubt.add_foreign(plan, self._now_ms(), self._window_ms)
        await self._find_blueprints()

    async def run(self) -> None:
        """Write.

        Raises:
            NotLeaderError: another sink writes, or may write.

        """
        context, config, registration = self._context, self._context.config, self._registration
        async with DeadLetterWriter(context.kafka, context.topics.deadletters.name, context.clock) as dead_letters:
            limiter = RateLimiter(context.clock)
            context.metrics.paced(limiter.rate, None)
            sender = Sender(
                client=self._client,
                limiter=limiter,
                fence=self._fence,
                sent_index=self._sent_index,
                dead_letters=dead_letters,
                send_queue=context.send_queue,
                in_doubt=context.in_doubt,
                metrics=context.metrics,
                clock=context.clock,
                on_status=context.on_status,
                result=context.result,
                merge=config.mapper.merge,
                create_missing=config.mapper.create_missing,
            )
            transform = Transform(
                table=context.table,
                kinds=context.kinds,
                mapper=config.mapper,
                rules=self._rules,
                sent_index=self._sent_index,
                dead_letters=dead_letters,
                backlog=context.backlog,
                send_queue=context.send_queue,
                in_doubt=context.in_doubt,
                metrics=context.metrics,
                clock=context.clock,
                room=lambda: api.BULK * (2 * config.senders + int(2 * limiter.rate)),
                retention=config.retention,
                samples=Samples(config.samples, registration.show if registration and config.send_samples else None),
                on_enqueued=sender.wake.set,
                stopped=context.halted,
                result=context.result,
            )
            resync = Resync(
                context.table,
                context.kinds,
                context.backlog,
                context.metrics,
                context.clock,
                config.resync,
                context.asked,
                context.compared,
                context.halted,
                registration.sync_begins if registration else lambda: None,
            )
            work = [transform.run(), resync.run(), self._watch_blueprints(), self._watch_owners()]
            if registration:
                work.append(registration.run())
            if config.retention is not None:
                work.append(
                    Retention(
                        table=context.table,
                        kinds=context.kinds,
                        backlog=context.backlog,
                        client=self._client,
                        limiter=RateLimiter(context.clock),
                        fence=self._fence,
                        sent_index=self._sent_index,
                        metrics=context.metrics,
                        clock=context.clock,
                        seconds=config.retention,
                        interval=config.resync,
                        dependents=config.mapper.delete_dependents,
                    ).run()
                )
            others = [asyncio.create_task(one) for one in work]
            senders = [asyncio.create_task(sender.send(slot)) for slot in range(config.senders)]
            try:
                await asyncio.wait([*others, *senders], return_when=asyncio.FIRST_COMPLETED)
                for task in (*others, *senders):
                    if task.done():
                        task.result()
            finally:
                await _whole(self._close(sender, others, senders))

    async def report(self) -> None:
        """Let Port know that everything has been written, for a limited time."""
        if self._registration is not None:
            await self._registration.settled(REPORT)

    def _registered(self) -> Registration:
        context = self._context

        def problem(why: str | None) -> None:
            context.result.unregistered = why

        return Registration(
            client=self._client,
            fence=self._fence,
            metrics=context.metrics,
            clock=context.clock,
            mapping=context.config.mapper.document(),
            interval=context.config.resync,
            busy=lambda: context.metrics.sweep_running or context.backlog.swept > 0,
            under_way=lambda: len(context.send_queue) > context.send_queue.deferred,
            failed=lambda: bool(context.result.stopped),
            on_problem=problem,
        )

    async def _close(self, sender: Sender, others: list[asyncio.Task[None]], senders: list[asyncio.Task[None]]) -> None:
        """Let requests under way finish, so that their outcome is known."""
        for task in others:
            task.cancel()
        sender.closing.set()
        sender.wake.set()
        _, flying = await asyncio.wait(senders, timeout=CLOSE)
        for task in flying:
            task.cancel()
        await asyncio.gather(*others, *senders, return_exceptions=True)
        await self._sent_index.finish()

    async def _watch_blueprints(self) -> None:
        """Start to write stopped kinds once Port has their blueprints."""
        for looks in count():
            await asyncio.sleep(RECHECK.delay(looks))
            stopped = dict(self._context.result.stopped)
            if not stopped:
                continue
            await self._fence.ensure()
            try:
                await self._find_blueprints()
            except PortError as exc:
                log.warning("blueprints_not_checked", why=exc.message, hint=exc.hint)
                continue
            if begun := [
                kind for kind, missing in stopped.items() if self._context.result.stopped.get(kind) != missing
            ]:
                log.info("kinds_started", kinds=sorted(begun))
                self._context.asked.set()

    async def _watch_owners(self) -> None:
        """Compare everything when teams, users, services or blueprints have changed so that entities change with them.

        A blueprint that has vanished keeps its rules here: Port's answer to the next entity reports it.
        """
        while True:
            await asyncio.sleep(self._context.config.owners_every)
            await self._fence.ensure()
            try:
                found = await self._rules_of(await sync.fetch(self._client, sorted(self._rules)))
            except PortError as exc:
                log.warning("blueprints_not_checked", why=exc.message, hint=exc.hint)
                continue
            if changed := sorted(name for name, one in found.items() if one != self._rules.get(name)):
                self._rules.update(found)
                log.info("owners_changed", blueprints=changed)
                self._context.asked.set()

    async def _rules_of(self, theirs: Mapping[str, Blueprint]) -> dict[str, Rules]:
        """Return the rules of Port's blueprints, with what their entities may relate to."""
        ownership = self._context.config.ownership
        await self._related.refresh(self._client, theirs.values(), ownership=ownership)
        return rules(theirs, dict(self._related.known), ownership=ownership)

    async def _find_blueprints(self) -> None:
        """Fetch the rules of the blueprints that the mapping names, after creating ours if they are missing.

        Of a kind that names a blueprint Port lacks, nothing is written to that one; all else is.
        """
        config, stopped = self._context.config, self._context.result.stopped
        ours = blueprints.load(session_hours=True, ownership=config.ownership)
        every = config.mapper.blueprints()
        wanted = {name: one for name, one in ours.items() if name in every}
        for name in list(wanted):
            wanted |= {target: ours[target] for target in blueprints.targets(ours[name]) if target in ours}
        theirs = await sync.fetch(self._client, sorted(every | wanted.keys()))
        if config.initialize:
            missing = {name: one for name, one in wanted.items() if name not in theirs}
            created = await self._create(blueprints.ordered((await sync.fitting(self._client, missing)).values()))
            if created:
                log.info("blueprints_created", blueprints=created)
                theirs |= await sync.fetch(self._client, created)
        self._rules.update(await self._rules_of(theirs))
        for kind in config.mapper.kinds:
            named = config.mapper.blueprints(kind)
            absent = sorted(named - theirs.keys())
            if absent and not named & theirs.keys():
                self._context.halted.add(kind)
            else:
                self._context.halted.discard(kind)
            self._context.metrics.stopped.labels(kind).set(bool(absent))
            if not absent:
                stopped.pop(kind, None)
            elif stopped.get(kind) != absent:
                stopped[kind] = absent
                log.warning(
                    "kind_stopped", kind=kind, why=f"Port has no blueprint {', '.join(absent)}",
                    hint="`tallystream port blueprints apply` creates ours, `... apply FILE` those of a JSON file",
                )  # fmt: skip
        self._context.send_queue.rank({name: rank for rank, name in enumerate(blueprints.ordered(theirs.values()))})

    async def _create(self, ours: Mapping[str, Any]) -> list[str]:
        """Create our missing blueprints one by one, so that a refused one does not prevent the others."""
        created: list[str] = []
        for name, definition in ours.items():
            try:
                created += await sync.create_missing(self._client, {name: definition}, {})
            except PortError as exc:
                if exc.retryable:
                    raise
                log.warning("blueprint_refused", blueprint=name, why=exc.message, hint=exc.hint)
        return created

    @property
    def _window_ms(self) -> int:
        """Return how long another sink may still have been writing before we began, in ms."""
        config = self._context.config
        return int((config.session_timeout + config.client.timeout) * 1000)

    def _now_ms(self) -> int:
        return self._context.clock.now_ns() // 1_000_000


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Finish the work even when cancelled, because a half-closed writer would leave requests in doubt."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
