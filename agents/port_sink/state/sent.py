"""`port.sent`: the entities in Port, as far as all sinks together know, and requests that may be in flight.

Before a bulk request is sent its entities are planned, after it they are noted as sent, both acknowledged by Kafka. So
a successor knows what Port has (unchanged entities are not sent again), and what is uncertain: planned requests of a
previous writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Annotated, Self

import orjson
from pydantic import Field, TypeAdapter

from tallystream.agents.port_sink.documents.feeds import LatestFeed
from tallystream.agents.port_sink.mapping.entities import EntityKey
from tallystream.agents.port_sink.pipeline.send_queue import QueuedEntity
from tallystream.schemas import keys
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.port import PlannedEntity, PlannedRequest, PortSource, SentEntity, SinkTerm, SweepRequest
from tallystream.streams.kafka.global_table import GlobalTable, TableRow
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.producer import new_producer
from tallystream.streams.kafka.settings import KafkaSettings

PREFIX = b"P|"
TERM, SWEEP = b"term", b"sweep"
"""Keys of notes that exist only once."""
_ENTITY, _PLAN = PREFIX + b"entity|", PREFIX + b"plan|"
HEADERS = {
    "entity": schema_of(SentEntity).headers,
    "plan": schema_of(PlannedRequest).headers,
    "term": schema_of(SinkTerm).headers,
    "sweep": schema_of(SweepRequest).headers,
}


@dataclass(frozen=True, slots=True)
class SentRecord:
    """The state of an entity in Port. `noted_ms` is the broker's time of the note."""

    digest: str
    kind: str
    key: bytes
    order: int
    at_ms: int | None
    writer: str
    noted_ms: int


class SentIndex:
    """The topic through the local copy, and a producer to it; an async context manager. `writer` is this process."""

    def __init__(self, kafka: KafkaSettings, topic: str, table: GlobalTable, writer: str) -> None:
        self._kafka = kafka
        self._topic = topic
        self._table = table
        self.writer = writer
        self._names: dict[int, int] = {}
        """By sender, what its plans are called in the topic."""
        self._numbers = count()
        self._open: dict[int, PlannedRequest] = {}
        """By sender, the plan of a request that is not answered yet."""

    @staticmethod
    def feed(topic: str) -> LatestFeed:
        """Return the feed that brings the topic into the local copy."""
        return LatestFeed(topic, PREFIX, _key_of)

    async def __aenter__(self) -> Self:
        self._producer = new_producer(self._kafka)
        await start(self._producer)
        return self

    async def __aexit__(self, *_: object) -> None:
        await close(self._producer, within=None)

    def get(self, key: EntityKey) -> SentRecord | None:
        """Return the recorded state of an entity in Port, None if there is no record."""
        kept = self._table.get(PREFIX + keys.join("entity", *key))
        return None if kept is None else _sent(kept.value, kept.timestamp)

    def sent(self) -> Iterator[tuple[EntityKey, SentRecord]]:
        """Iterate over all that was noted."""
        for row, kept in self._table.scan(_ENTITY):
            _, blueprint, identifier = keys.split(row[len(PREFIX) :])
            yield EntityKey(blueprint, identifier), _sent(kept.value, kept.timestamp)

    def read(self, row: bytes) -> tuple[EntityKey, SentRecord] | None:
        """Return a row of the local copy when it is a noted entity."""
        if not row.startswith(_ENTITY) or (kept := self._table.get(row)) is None:
            return None
        _, blueprint, identifier = keys.split(row[len(PREFIX) :])
        return EntityKey(blueprint, identifier), _sent(kept.value, kept.timestamp)

    def plans(self) -> list[PlannedRequest]:
        """Return the requests that may be under way, or may have been carried out; ours too, of an earlier term."""
        return [PlannedRequest.model_validate_json(kept.value) for _, kept in self._table.scan(_PLAN)]

    async def begin(self) -> None:
        """Say that this process writes from now on."""
        value = orjson.dumps({"writer": self.writer})
        await self._producer.send_and_wait(self._topic, value, key=TERM, headers=HEADERS["term"])

    def begun(self) -> bool:
        """Tell whether the local copy has read what `begin` wrote last, and with it all that was written before."""
        kept = self._table.get(PREFIX + TERM)
        return kept is not None and orjson.loads(kept.value)["writer"] == self.writer

    async def plan(self, slot: int, items: Iterable[QueuedEntity], until_ms: int) -> None:
        """Note that a request of a sender is about to be sent; replaces its last one, unless that was retired."""
        name = self._names.setdefault(slot, next(self._numbers))
        plan = PlannedRequest(
            writer=self.writer,
            slot=name,
            until_ms=until_ms,
            entities=[
                PlannedEntity(
                    blueprint=item.entity.key.blueprint,
                    identifier=item.entity.key.identifier,
                    source=PortSource(kind=item.kind, key=item.key.decode()),
                )
                for item in items
            ],
        )
        self._open[slot] = plan
        await self._producer.send_and_wait(
            self._topic, plan.model_dump_json().encode(), key=plan.message_key, headers=HEADERS["plan"]
        )

    def answered(self, slot: int) -> None:
        """Note that it is known what became of a sender's request: its plan may be replaced."""
        self._open.pop(slot, None)

    def retire(self, slot: int) -> PlannedRequest | None:
        """Keep the plan of a sender's request, for it is not known what became of it; `settle` ends it."""
        plan = self._open.pop(slot, None)
        if plan is not None:
            self._names.pop(slot)
        return plan

    async def note(self, items: Sequence[QueuedEntity]) -> None:
        """Note entities as Port has acknowledged them."""
        rows = [
            (
                keys.join("entity", *item.entity.key),
                orjson.dumps(
                    {
                        "blueprint": item.entity.key.blueprint,
                        "identifier": item.entity.key.identifier,
                        "digest": item.entity.digest,
                        "source": {"kind": item.kind, "key": item.key.decode()},
                        "order": item.order,
                        "at_ms": item.at_ms,
                        "writer": self.writer,
                    }
                ),
            )
            for item in items
        ]
        await self._write(rows)

    async def forget(self, entities: Iterable[EntityKey]) -> None:
        """Note entities as deleted."""
        await self._write([(keys.join("entity", *key), None) for key in entities])

    async def settle(self, plans: Iterable[PlannedRequest]) -> None:
        """Forget requests that cannot be carried out any more, and whose entities have been written since."""
        await self._write([(plan.message_key, None) for plan in plans])

    async def finish(self) -> None:
        """Forget the plans of our requests that were answered: nothing is left to wonder about."""
        done = [name for slot, name in self._names.items() if slot not in self._open]
        self._names.clear()
        self._open.clear()
        await self._write([(keys.join("plan", self.writer, str(name)), None) for name in done])

    async def _write(self, rows: Sequence[tuple[bytes, bytes | None]]) -> None:
        headers = HEADERS["entity"]
        futures = [await self._producer.send(self._topic, value, key=key, headers=headers) for key, value in rows]
        for (key, value), written in zip(rows, await asyncio.gather(*futures), strict=True):
            # The local copy knows at once, not only when the record comes back.
            self._table.put(TableRow(PREFIX + key, (0, written.offset), value), int(written.timestamp))


_Note = Annotated[
    SentEntity | PlannedRequest | SinkTerm | SweepRequest, Field(union_mode="left_to_right")
]  # almost all are the first, and no two have the same fields
_NOTES: TypeAdapter[_Note] = TypeAdapter(_Note)


def _key_of(value: bytes) -> bytes:
    """Return the key of a note. An unreadable one does no harm: the resync compares everything."""
    note = _NOTES.validate_json(value)
    if isinstance(note, SinkTerm):
        return TERM
    return SWEEP if isinstance(note, SweepRequest) else note.message_key


def _sent(value: bytes, noted_ms: int) -> SentRecord:
    found = orjson.loads(value)
    source = found["source"]
    return SentRecord(
        found["digest"], source["kind"], source["key"].encode(), found["order"], found["at_ms"], found["writer"],
        noted_ms,
    )  # fmt: skip
