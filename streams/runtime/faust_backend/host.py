"""`runtime.host.Host` implemented with a Faust app's producer and consumer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, cast

from aiokafka.structs import TopicPartition
from faust.types import TP

from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.faust_backend.app import App
from tallystream.streams.runtime.faust_backend.producer import Producer
from tallystream.streams.runtime.faust_backend.reader import kafka_reader
from tallystream.streams.runtime.host import Packed, Reader
from tallystream.streams.service.clock import boottime

READER_BYTES = 1 << 20
"""Bytes of one partition in one fetch of a reader without a limit of its own."""


class FaustHost:
    """The process of one Faust app. Relies on `Consumer.highwater`, `highwaters`, `earliest_offsets`, `position`,
    `resume_partitions` and `seek_wait` of faust/transport/consumer.py.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    def monotonic(self) -> float:
        """Return monotonic seconds for durations of work."""
        return time.monotonic()

    def now_ms(self) -> int:
        """Return the machine's UTC time."""
        return time.time_ns() // 1_000_000

    def boottime(self) -> float:
        """Return seconds of a clock that continues while the machine sleeps."""
        return boottime()

    def fail_fast(self, why: str | BaseException) -> NoReturn:
        """End the process at once."""
        self._app.die(why)

    @property
    def _producer(self) -> Producer:
        return cast(Producer, self._app.producer)

    def pack(
        self,
        topic: str,
        partition: int,
        rows: Sequence[Row],
        *,
        opening: Row | None = None,
        closing: Sequence[Row] = (),
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> Packed:
        """Serialise rows into record batches."""
        return self._producer.pack(topic, partition, rows, opening=opening, closing=closing, headers=headers)

    async def write(self, packs: Sequence[Packed], expect: int | None = None) -> int:
        """Send the batches and wait for all acknowledgements."""
        return await self._producer.write(packs, expect)

    def must_be_member(self) -> None:
        """End the process when another worker may own our partitions."""
        self._app.must_be_member()

    def reader(self, *, fetch_bytes: int | None = None) -> AbstractAsyncContextManager[Reader]:
        """Open a reader."""
        return kafka_reader(self._app.context.kafka, fetch_bytes or READER_BYTES)

    # -- the source's consumer

    @property
    def _consumer(self) -> Any:
        return self._app.consumer

    def source_end(self, source: TopicPartition) -> int | None:
        """Return the end as last seen by the consumer."""
        try:
            end: int | None = self._consumer.highwater(TP(*source))
        except Exception:  # noqa: BLE001 - not assigned, or the consumer has not started
            return None
        return end

    def in_line(self, source: str) -> bool:
        """Tell whether batches of the topic wait for its agent."""
        line = self._app.context.lines.get(source)
        return line is not None and line() > 0

    async def ask_source_end(self, source: TopicPartition) -> int:
        """Ask Kafka for the end."""
        end: int = (await self._consumer.highwaters(TP(*source)))[TP(*source)]
        return end

    async def ask_source_begin(self, source: TopicPartition) -> int:
        """Ask Kafka for the first offset."""
        begin: int = (await self._consumer.earliest_offsets(TP(*source)))[TP(*source)]
        return begin

    async def source_position(self, source: TopicPartition) -> int | None:
        """Return the offset the consumer reads next."""
        position: int | None = await self._consumer.position(TP(*source))
        return position

    async def seek_source(self, source: TopicPartition, offset: int) -> None:
        """Resume the partition and read it from `offset` on."""
        self._consumer.resume_partitions({TP(*source)})
        await self._consumer.seek_wait({TP(*source): offset})
