"""Dead letters of the sink: records on which a mapping fails, and entities that Port refuses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Self

import orjson

from tallystream.agents.port_sink.mapping import Failure
from tallystream.agents.port_sink.pipeline.send_queue import QueuedEntity
from tallystream.schemas.catalogue import schema_of
from tallystream.schemas.dead_letter_builder import dead_letter
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.producer import new_producer
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service.clock import Clock, utc

HEADERS = schema_of(DeadLetter).headers
REMEMBERED = 10_000
MAX_RECORD = 64 << 10


class DeadLetterWriter:
    """Writes each dead letter only when it has changed; an async context manager."""

    def __init__(self, kafka: KafkaSettings, topic: str, clock: Clock) -> None:
        self._kafka = kafka
        self._topic = topic
        self._clock = clock
        self._last: OrderedDict[bytes, bytes] = OrderedDict()

    async def __aenter__(self) -> Self:
        self._producer = new_producer(self._kafka)
        await start(self._producer)
        return self

    async def __aexit__(self, *_: object) -> None:
        await close(self._producer, within=None)

    async def unmapped(self, kind: str, key: bytes, failures: Sequence[tuple[int, Failure, object]]) -> None:
        """Write dead letters for records of a document (index, failure, record) that could not be mapped."""
        for index, failure, record in failures:
            source = ("port", kind, key.decode(), str(index))
            expression = f": {failure.expression}" if failure.expression else ""
            await self._send(
                source,
                Reason.MAPPING_FAILED,
                f"{failure.reason} (in {failure.field or 'the mapping'} of {kind}{expression})",
                {"kind": kind, "key": key.decode(), "field": failure.field, "expression": failure.expression,
                 "record": record},
            )  # fmt: skip

    async def refused(self, item: QueuedEntity, why: str) -> None:
        """Write a dead letter for an entity that Port refuses."""
        blueprint, identifier = item.entity.key
        await self._send(
            ("port", blueprint, identifier),
            Reason.PORT_REFUSED,
            why,
            {"kind": item.kind, "key": item.key.decode(), "blueprint": blueprint, "entity": dict(item.entity.body)},
        )

    async def _send(self, source: tuple[str, ...], reason: Reason, detail: str, record: Mapping[str, object]) -> None:
        body = orjson.dumps(record, default=str)
        if len(body) > MAX_RECORD:
            body = orjson.dumps({name: record[name] for name in record if name not in ("record", "entity")})
        said = detail.encode() + body
        key, value = dead_letter(source, reason, detail, utc(self._clock.now_ns()), record=orjson.Fragment(body))
        if self._last.get(key) == said:
            return
        await self._producer.send_and_wait(self._topic, value, key=key, headers=HEADERS)
        self._last[key] = said
        self._last.move_to_end(key)
        while len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
