"""Dead letters of the sink: records a mapping could not be carried out on, and entities Port refuses."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Self

import orjson
from aiokafka import AIOKafkaProducer

from tallystream.agents.port_sink.mapping import Failure
from tallystream.agents.port_sink.pipeline.send_queue import Item
from tallystream.schemas import keys
from tallystream.schemas.errors import Reason
from tallystream.streams.kafka.lifecycle import close, start
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service.clock import Clock, utc

HEADERS = [("schema", b"dead-letter/1")]
REMEMBERED = 10_000
MAX_RECORD = 64 << 10


class Letters:
    """Writes them, each once for as long as it stays the same; an async context manager."""

    def __init__(self, kafka: KafkaSettings, topic: str, clock: Clock) -> None:
        self._kafka = kafka
        self._topic = topic
        self._clock = clock
        self._last: OrderedDict[bytes, bytes] = OrderedDict()

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(**self._kafka.client(), acks="all", enable_idempotence=True)
        await start(self._producer)
        return self

    async def __aexit__(self, *_: object) -> None:
        await close(self._producer, within=None)

    async def unmapped(self, kind: str, key: bytes, failures: Sequence[tuple[int, Failure, Any]]) -> None:
        """Keep records of a document (index, what failed, the record) that could not be mapped."""
        for index, failure, record in failures:
            source = keys.join("port", kind, key.decode(), str(index))
            expression = f": {failure.expression}" if failure.expression else ""
            await self._send(
                source,
                Reason.MAPPING_FAILED,
                f"{failure.reason} (in {failure.field or 'the mapping'} of {kind}{expression})",
                {"kind": kind, "key": key.decode(), "field": failure.field, "expression": failure.expression,
                 "record": record},
            )  # fmt: skip

    async def refused(self, item: Item, why: str) -> None:
        """Keep an entity that Port will not take."""
        blueprint, identifier = item.entity.key
        await self._send(
            keys.join("port", blueprint, identifier),
            Reason.PORT_REFUSED,
            why,
            {"kind": item.kind, "key": item.key.decode(), "blueprint": blueprint, "entity": dict(item.entity.body)},
        )

    async def _send(self, source: bytes, reason: Reason, detail: str, record: Mapping[str, Any]) -> None:
        body = orjson.dumps(record, default=str)
        if len(body) > MAX_RECORD:
            body = orjson.dumps({name: record[name] for name in record if name not in ("record", "entity")})
        said = detail.encode() + body
        if self._last.get(source) == said:
            return
        at = utc(self._clock.now_ns())
        letter = {
            "source": source.decode(), "reason": reason.value, "detail": detail[:2000], "at": at,
            "record": orjson.Fragment(body),
        }  # fmt: skip
        value = orjson.dumps(letter, option=orjson.OPT_UTC_Z)
        await self._producer.send_and_wait(self._topic, value, key=source, headers=HEADERS)
        self._last[source] = said
        self._last.move_to_end(source)
        while len(self._last) > REMEMBERED:
            self._last.popitem(last=False)
