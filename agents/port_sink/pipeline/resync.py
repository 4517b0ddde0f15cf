"""Compares everything with what was sent periodically (resync), and applies the retention rule, the only rule that
deletes entities.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import structlog

from tallystream.agents.port_sink.documents import DocumentKind
from tallystream.agents.port_sink.documents.base import INVALID_ROWS
from tallystream.agents.port_sink.errors import PortError, PortFailureReason
from tallystream.agents.port_sink.mapping.entities import EntityKey
from tallystream.agents.port_sink.metrics import SinkMetrics
from tallystream.agents.port_sink.pipeline.backlog import Backlog
from tallystream.agents.port_sink.port import api
from tallystream.agents.port_sink.port.client import PortAnswerError, PortClient
from tallystream.agents.port_sink.port.rate import RateLimiter
from tallystream.agents.port_sink.state.sent import SentIndex, SentRecord
from tallystream.streams.kafka.global_table import GlobalTable
from tallystream.streams.leader_election import Fence
from tallystream.streams.service.clock import Clock

log = structlog.get_logger()
CHUNK = 500
LOW = 2_000
"""Maximum number of waiting swept documents, so that a sweep needs little memory."""
TICK = 0.05
RETRY = 60.0


@dataclass(frozen=True)
class Resync:
    """Puts every document into the backlog, at the start of a term and then every `interval` seconds."""

    table: GlobalTable
    kinds: Mapping[str, DocumentKind]
    backlog: Backlog
    metrics: SinkMetrics
    clock: Clock
    interval: float
    asked: asyncio.Event
    """Set when an immediate resync is requested."""
    done: asyncio.Event
    """Set once everything has been put into the backlog for the first time."""
    stopped: Container[str] = ()
    """Kinds that are not compared."""
    on_begin: Callable[[], None] = lambda: None
    """Called when a comparison begins."""

    async def run(self) -> None:
        """Sweep until cancelled."""
        while True:
            self.asked.clear()
            self.on_begin()
            self.metrics.sweeps_run(running=True)
            for kind, documents in self.kinds.items():
                if kind in self.stopped:
                    continue
                await self._kind(kind, documents)
            self.metrics.sweeps.inc()
            self.metrics.sweeps_run(running=False)
            self.done.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.interval):
                    await self.asked.wait()

    async def _kind(self, kind: str, documents: DocumentKind) -> None:
        keys = documents.keys(self.table)
        while chunk := list(islice(keys, CHUNK)):
            while self.backlog.swept >= LOW:  # noqa: ASYNC110 - it has several consumers, and the wait is short
                await asyncio.sleep(TICK)
            self.backlog.resync(kind, chunk, self.clock.now_ns() // 1_000_000)
            self.metrics.swept.inc(len(chunk))
            await asyncio.sleep(0)


@dataclass(frozen=True)
class Retention:
    """Deletes entities whose document's own time is more than `seconds` ago; nothing else deletes entities.

    Only entities noted as sent by us are considered, so others' entities are safe. A document that has been active
    since has a newer time, so its entity is kept, even if it has not changed and was not sent again. One that becomes
    active while its entity is being deleted is sent again.
    """

    table: GlobalTable
    kinds: Mapping[str, DocumentKind]
    backlog: Backlog
    client: PortClient
    limiter: RateLimiter
    fence: Fence
    sent_index: SentIndex
    metrics: SinkMetrics
    clock: Clock
    seconds: float
    interval: float
    dependents: bool

    async def run(self) -> None:
        """Delete expired entities until cancelled.

        Raises:
            NotLeaderError: another sink writes, or may write.

        """
        while True:
            pause = self.interval
            for blueprint in sorted({key.blueprint for key, _ in self._due()}):
                due = (one for one in self._due() if one[0].blueprint == blueprint)
                while chunk := list(islice(due, api.BULK_DELETE)):
                    try:
                        await self._delete(blueprint, chunk)
                    except PortError as exc:
                        log.warning("not_deleted", blueprint=blueprint, why=exc.message, hint=exc.hint)
                        pause = min(pause, RETRY)
            await asyncio.sleep(pause)

    def _due(self) -> Iterator[tuple[EntityKey, SentRecord]]:
        oldest = self.clock.now_ns() / 1e6 - self.seconds * 1000
        for key, sent in self.sent_index.sent():
            if sent.at_ms is not None and sent.at_ms < oldest and not self._active(sent, oldest):
                yield key, sent

    def _active(self, sent: SentRecord, oldest: float) -> bool:
        """Whether the document that an entity was sent for has a newer time by now."""
        documents = self.kinds.get(sent.kind)
        try:
            document = None if documents is None else documents.build(self.table, sent.key)
        except INVALID_ROWS:
            return False  # nothing can be sent for such rows, and a dead letter reports them
        return document is not None and (document.at_ms is None or document.at_ms >= oldest)

    async def _delete(self, blueprint: str, due: Sequence[tuple[EntityKey, SentRecord]]) -> None:
        identifiers = [key.identifier for key, _ in due]
        await self.limiter.wait()
        await self.fence.ensure()
        try:
            self.limiter.observe(await api.delete(self.client, blueprint, identifiers, dependents=self.dependents))
        except PortAnswerError as exc:
            if exc.why is not PortFailureReason.NOT_FOUND:  # the blueprint is gone, and its entities with it
                raise
        await self.sent_index.forget(key for key, _ in due)
        for _, sent in due:
            if sent.kind in self.kinds:
                self.backlog.resync(sent.kind, (sent.key,), self.clock.now_ns() // 1_000_000)
        self.metrics.deleted.labels(blueprint).inc(len(identifiers))
        log.info("deleted", blueprint=blueprint, entities=len(identifiers), rule=f"older than {self.seconds:g} s")
