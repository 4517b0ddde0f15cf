"""Turns changed documents into queued entities: builds them from the newest rows, maps them, and compares them with
Port's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tallystream.agents.port_sink.dead_letters import DeadLetterWriter
from tallystream.agents.port_sink.documents import Document, DocumentKind
from tallystream.agents.port_sink.documents.base import INVALID_ROWS
from tallystream.agents.port_sink.mapping import Failure, Mapper
from tallystream.agents.port_sink.mapping.entities import Entity, Rules
from tallystream.agents.port_sink.mapping.mapper import collisions
from tallystream.agents.port_sink.metrics import SinkMetrics
from tallystream.agents.port_sink.pipeline.backlog import Backlog, Waiting
from tallystream.agents.port_sink.pipeline.samples import Samples
from tallystream.agents.port_sink.pipeline.send_queue import QueuedEntity, SendQueue
from tallystream.agents.port_sink.result import SinkResult
from tallystream.agents.port_sink.state.in_doubt import InDoubt
from tallystream.agents.port_sink.state.sent import SentIndex
from tallystream.streams.kafka.global_table import GlobalTable
from tallystream.streams.service.clock import Clock

CHUNK = 200
"""Documents mapped in one JQ run: it blocks the event loop for about 20 ms."""
FULL_PAUSE = 0.02


@dataclass(frozen=True)
class Transform:
    """The mapping of one term."""

    table: GlobalTable
    kinds: Mapping[str, DocumentKind]
    mapper: Mapper
    rules: Mapping[str, Rules]
    """Of Port's blueprints, by identifier."""
    sent_index: SentIndex
    dead_letters: DeadLetterWriter
    backlog: Backlog
    send_queue: SendQueue
    in_doubt: InDoubt
    metrics: SinkMetrics
    clock: Clock
    room: Callable[[], int]
    """Maximum number of queued entities: about as many as Port accepts in two seconds, so that new changes do not queue
    long."""
    retention: float | None
    samples: Samples
    on_enqueued: Callable[[], None]
    """Called when the send queue has been given something."""
    stopped: Container[str] = ()
    """Kinds of which nothing is written because Port lacks their blueprints: each is compared once it has one."""
    result: SinkResult = field(default_factory=SinkResult)

    async def run(self) -> None:
        """Map changes until cancelled."""
        while True:
            if len(self.send_queue) - self.send_queue.deferred >= self.room():
                await asyncio.sleep(FULL_PAUSE)
                continue
            taken = self.backlog.take(CHUNK)
            if taken is None:
                await self.backlog.wait()
                continue
            if taken[0] not in self.stopped:
                await self._map(*taken)
            self.backlog.mapped()
            await asyncio.sleep(0)

    async def _map(self, kind: str, changed: Sequence[tuple[bytes, Waiting]]) -> None:
        documents: list[tuple[bytes, Waiting, Document]] = []
        rows: list[tuple[Any, Mapping[str, Any]]] = []
        owners: list[tuple[int, int]] = []
        oldest = self._oldest_ms()
        for key, since in changed:
            document = await self._build(kind, key)
            if document is None or (document.at_ms is not None and document.at_ms < oldest):
                continue
            for index, record in enumerate(document.records):
                owners.append((len(documents), index))
                rows.append((record, document.meta))
            documents.append((key, since, document))
            if document.unusable:
                await self._refuse(
                    kind,
                    key,
                    [(one.place, Failure(one.field, "", one.reason), one.record) for one in document.unusable],
                )
        self.samples.keep(kind, [record for record, _ in rows])
        absent = self.result.stopped.get(kind, ())
        found = self.mapper.run(kind, rows, self.rules, absent)
        self.result.note_mapped(kind, len(rows), len({row for row, _ in (*found.entities, *found.failures)}))
        entities: dict[int, list[tuple[int, Entity]]] = {}
        failures: dict[int, list[tuple[int, Failure]]] = {}
        for row, entity in found.entities:
            entities.setdefault(owners[row][0], []).append((row, entity))
        for row, failure in found.failures:
            failures.setdefault(owners[row][0], []).append((row, failure))
        for number, (key, since, document) in enumerate(documents):
            mapped = collisions(entities.get(number, []), failures.get(number, []))
            self._offer(kind, key, since, document, [entity for _, entity in mapped.entities])
            if mapped.failures:
                await self._refuse(
                    kind, key, [(owners[row][1], failure, rows[row][0]) for row, failure in mapped.failures]
                )

    async def _build(self, kind: str, key: bytes) -> Document | None:
        """Return a document; one whose rows are invalid is a dead letter, so that it does not stop the others."""
        try:
            return self.kinds[kind].build(self.table, key)
        except INVALID_ROWS as exc:
            await self._refuse(kind, key, [(0, Failure("", "", f"invalid rows: {type(exc).__name__}"), None)])
            return None

    async def _refuse(self, kind: str, key: bytes, refused: Sequence[tuple[int, Failure, Any]]) -> None:
        """Report records of a document that cannot be mapped."""
        self.metrics.mapping_errors.labels(kind).inc(len(refused))
        self.result.unmapped += len(refused)
        await self.dead_letters.unmapped(kind, key, refused)

    def _offer(self, kind: str, key: bytes, since: Waiting, document: Document, entities: Sequence[Entity]) -> None:
        """Queue entities unless Port already has them, or has them from a document that takes precedence."""
        now = self.clock.now_ns() // 1_000_000
        enqueued = False
        for entity in entities:
            sent = self.sent_index.get(entity.key)
            if sent is not None:
                another = (sent.kind, sent.key) != (kind, key)
                if another and sent.kind == kind and sent.order > document.order:
                    continue
                if sent.digest == entity.digest:
                    if entity.key not in self.in_doubt.forced:
                        self.metrics.unchanged.labels(entity.key.blueprint).inc()
                        # A queued newer version that is no longer right must not be sent.
                        if not self.send_queue.holds(entity.key):
                            continue
                    else:
                        self.metrics.resent.inc()
            item = QueuedEntity(entity, kind, key, document.order, document.at_ms, since.ms, since.appended_ms)
            self.send_queue.put(item, now)
            enqueued = True
        if enqueued:
            self.on_enqueued()

    def _oldest_ms(self) -> float:
        return -1 if self.retention is None else self.clock.now_ns() / 1e6 - self.retention * 1000
