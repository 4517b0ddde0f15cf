"""Changed documents become entities on their way: built from the newest rows, mapped, compared with what Port has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallystream.agents.port_sink.dead_letters import Letters
from tallystream.agents.port_sink.documents import Document, Kind
from tallystream.agents.port_sink.mapping import Failure, Mapper
from tallystream.agents.port_sink.mapping.entities import Entity, Rules
from tallystream.agents.port_sink.mapping.mapper import collisions
from tallystream.agents.port_sink.metrics import SinkMetrics
from tallystream.agents.port_sink.pipeline.backlog import Backlog, Since
from tallystream.agents.port_sink.pipeline.samples import Samples
from tallystream.agents.port_sink.pipeline.send_queue import Item, Outbox
from tallystream.agents.port_sink.state.in_doubt import Doubts
from tallystream.agents.port_sink.state.sent import Ledger
from tallystream.streams.kafka.global_table import GlobalTable
from tallystream.streams.service.clock import Clock

CHUNK = 200
"""Documents mapped in one JQ run: it blocks the event loop for about 20 ms."""
FULL_PAUSE = 0.02


@dataclass(frozen=True)
class Assembly:
    """The mapping of one term."""

    table: GlobalTable
    kinds: Mapping[str, Kind]
    mapper: Mapper
    rules: Mapping[str, Rules]
    """Of Port's blueprints, by identifier."""
    ledger: Ledger
    letters: Letters
    backlog: Backlog
    outbox: Outbox
    doubts: Doubts
    metrics: SinkMetrics
    clock: Clock
    room: Callable[[], int]
    """How many entities may be on their way: about what Port takes in two seconds, so that news need not queue long."""
    retention: float | None
    samples: Samples
    given: Callable[[], None]
    """Called when the outbox has been given something."""

    async def run(self) -> None:
        """Map what changes, until cancelled."""
        while True:
            if len(self.outbox) - self.outbox.parked >= self.room():
                await asyncio.sleep(FULL_PAUSE)
                continue
            taken = self.backlog.take(CHUNK)
            if taken is None:
                await self.backlog.wait()
                continue
            await self._map(*taken)
            self.backlog.mapped()
            await asyncio.sleep(0)

    async def _map(self, kind: str, changed: Sequence[tuple[bytes, Since]]) -> None:
        documents: list[tuple[bytes, Since, Document]] = []
        rows: list[tuple[Any, Mapping[str, Any]]] = []
        owners: list[tuple[int, int]] = []
        oldest = self._oldest_ms()
        for key, since in changed:
            document = self.kinds[kind].build(self.table, key)
            if document is None or (document.at_ms is not None and document.at_ms < oldest):
                continue
            for index, record in enumerate(document.records):
                owners.append((len(documents), index))
                rows.append((record, document.meta))
            documents.append((key, since, document))
        self.samples.keep(kind, [record for record, _ in rows])
        found = self.mapper.run(kind, rows, self.rules)
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
                self.metrics.mapping_errors.labels(kind).inc(len(mapped.failures))
                refused = [(owners[row][1], failure, rows[row][0]) for row, failure in mapped.failures]
                await self.letters.unmapped(kind, key, refused)

    def _offer(self, kind: str, key: bytes, since: Since, document: Document, entities: Sequence[Entity]) -> None:
        """Put entities on their way unless Port has them already, or has them from a document that is right."""
        now = self.clock.now_ns() // 1_000_000
        given = False
        for entity in entities:
            sent = self.ledger.get(entity.key)
            if sent is not None:
                another = (sent.kind, sent.key) != (kind, key)
                if another and sent.kind == kind and sent.order > document.order:
                    continue
                if sent.digest == entity.digest:
                    if entity.key not in self.doubts.forced:
                        self.metrics.unchanged.labels(entity.key.blueprint).inc()
                        # A newer version that was on its way, and is no more what is right, must not arrive after all.
                        if not self.outbox.holds(entity.key):
                            continue
                    else:
                        self.metrics.resent.inc()
            item = Item(entity, kind, key, document.order, document.at_ms, since.ms, since.appended_ms)
            self.outbox.put(item, now)
            given = True
        if given:
            self.given()

    def _oldest_ms(self) -> float:
        return -1 if self.retention is None else self.clock.now_ns() / 1e6 - self.retention * 1000
