"""One term of a sink: from the moment it may write to the moment another one may."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from tallystream.agents.port_sink import blueprints
from tallystream.agents.port_sink.blueprints import sync
from tallystream.agents.port_sink.config import SinkConfig
from tallystream.agents.port_sink.dead_letters import Letters
from tallystream.agents.port_sink.documents import Kind
from tallystream.agents.port_sink.mapping.entities import rules
from tallystream.agents.port_sink.metrics import SinkMetrics
from tallystream.agents.port_sink.pipeline.backlog import Backlog
from tallystream.agents.port_sink.pipeline.resync import Retention, Sweep
from tallystream.agents.port_sink.pipeline.samples import Samples
from tallystream.agents.port_sink.pipeline.send_queue import Outbox
from tallystream.agents.port_sink.pipeline.sender import Delivery
from tallystream.agents.port_sink.pipeline.transform import Assembly
from tallystream.agents.port_sink.port import api
from tallystream.agents.port_sink.port.client import Client
from tallystream.agents.port_sink.port.errors import PortError, Why
from tallystream.agents.port_sink.port.rate import Pace
from tallystream.agents.port_sink.state.in_doubt import Doubts
from tallystream.agents.port_sink.state.sent import Ledger
from tallystream.streams.kafka.global_table import GlobalTable
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.leader_election import Fence
from tallystream.streams.service.clock import Clock

log = structlog.get_logger()
TICK = 0.02
CLOSE = 8.0
"""Seconds that requests under way are given to land when the term ends."""


@dataclass(frozen=True)
class Parts:
    """What a sink process has, term after term."""

    kafka: KafkaSettings
    topics: Topics
    config: SinkConfig
    clock: Clock
    table: GlobalTable
    kinds: Mapping[str, Kind]
    backlog: Backlog
    outbox: Outbox
    doubts: Doubts
    metrics: SinkMetrics
    asked: asyncio.Event
    """Set when somebody wants a sweep."""
    said: Callable[[str | None], None]
    """Told what is wrong with Port as a whole, None when it answers well."""


class Term:
    """`prepare`, then `run` until cancelled or NotLeaderError."""

    def __init__(self, parts: Parts, client: Client, ledger: Ledger, fence: Fence) -> None:
        self._parts = parts
        self._client = client
        self._ledger = ledger
        self._fence = fence
        self._begun = False
        self._theirs: Mapping[str, Any] = {}

    async def prepare(self) -> None:
        """Find out how things stand; nothing is written to Port but blueprints it lacks.

        Raises:
            NotLeaderError: another sink writes, or may.
            PortError: Port does not answer, refuses a blueprint, or lacks one that the mapping names.

        """
        parts = self._parts
        await parts.table.caught_up.wait()
        await self._fence.ensure()
        if not self._begun:
            await self._ledger.begin()
            while not self._ledger.begun():  # noqa: ASYNC110 - another task reads the topic
                await asyncio.sleep(TICK)
            self._begun = True
            for plan in self._ledger.plans():
                parts.doubts.add_foreign(plan, self._now_ms(), self._window_ms)
        self._theirs = await self._blueprints()

    async def run(self) -> None:
        """Write.

        Raises:
            NotLeaderError: another sink writes, or may.

        """
        parts, config = self._parts, self._parts.config
        async with Letters(parts.kafka, parts.topics.deadletters.name, parts.clock) as letters:
            pace = Pace(parts.clock)
            parts.metrics.paced(pace.rate, None)
            delivery = Delivery(
                client=self._client, pace=pace, fence=self._fence, ledger=self._ledger, letters=letters,
                outbox=parts.outbox, doubts=parts.doubts, metrics=parts.metrics, clock=parts.clock, said=parts.said,
                merge=config.mapper.merge, create_missing=config.mapper.create_missing,
            )  # fmt: skip
            assembly = Assembly(
                table=parts.table, kinds=parts.kinds, mapper=config.mapper, rules=rules(self._theirs),
                ledger=self._ledger, letters=letters, backlog=parts.backlog, outbox=parts.outbox,
                doubts=parts.doubts, metrics=parts.metrics, clock=parts.clock,
                room=lambda: api.BULK * (2 * config.senders + int(2 * pace.rate)),
                retention=config.retention,
                samples=Samples(config.samples), given=delivery.wake.set,
            )  # fmt: skip
            sweep = Sweep(
                parts.table, parts.kinds, parts.backlog, parts.metrics, parts.clock, config.resync, parts.asked
            )
            work = [assembly.run(), sweep.run()]
            if config.retention is not None:
                work.append(
                    Retention(
                        self._client, Pace(parts.clock), self._fence, self._ledger, parts.metrics, parts.clock,
                        config.retention, config.resync, config.mapper.delete_dependents,
                    ).run()
                )  # fmt: skip
            others = [asyncio.create_task(one) for one in work]
            senders = [asyncio.create_task(delivery.send(slot)) for slot in range(config.senders)]
            try:
                await asyncio.wait([*others, *senders], return_when=asyncio.FIRST_COMPLETED)
                for task in (*others, *senders):
                    if task.done():
                        task.result()
            finally:
                await _whole(self._close(delivery, others, senders))

    async def _close(
        self, delivery: Delivery, others: list[asyncio.Task[None]], senders: list[asyncio.Task[None]]
    ) -> None:
        """Let requests under way land, so that nobody has to wonder what became of them."""
        for task in others:
            task.cancel()
        delivery.closing.set()
        delivery.wake.set()
        _, flying = await asyncio.wait(senders, timeout=CLOSE)
        for task in flying:
            task.cancel()
        await asyncio.gather(*others, *senders, return_exceptions=True)
        await self._ledger.finish()

    async def _blueprints(self) -> dict[str, Any]:
        """Return the blueprints the mapping names as Port has them, ours created where they were missing."""
        config = self._parts.config
        ours = blueprints.load(session_hours=True)
        named = config.mapper.blueprints()
        wanted = {name: one for name, one in ours.items() if name in named}
        for name in list(wanted):
            wanted |= {target: ours[target] for target in blueprints.targets(ours[name]) if target in ours}
        theirs = await sync.fetch(self._client, sorted(named | wanted.keys()))
        if config.initialize:
            created = await sync.create_missing(self._client, blueprints.ordered(wanted.values()), theirs)
            if created:
                log.info("blueprints_created", blueprints=created)
                theirs |= await sync.fetch(self._client, created)
        if missing := sorted(named - theirs.keys()):
            raise PortError(
                Why.NOT_FOUND,
                f"Port has no blueprint {', '.join(missing)}",
                "`tallystream port blueprints apply` creates ours; others are yours to make, or map less",
            )
        self._parts.outbox.rank({name: rank for rank, name in enumerate(blueprints.ordered(theirs.values()))})
        return theirs

    @property
    def _window_ms(self) -> int:
        """How long before we began another sink may still have been writing."""
        config = self._parts.config
        return int((config.session_timeout + config.client.timeout) * 1000)

    def _now_ms(self) -> int:
        return self._parts.clock.now_ns() // 1_000_000


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Do work to its end, also when cancelled meanwhile: what is half closed would leave others wondering."""
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
