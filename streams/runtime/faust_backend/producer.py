"""Writes rows: groups in few record batches, acknowledged in order, never while another worker may own the
partition.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata
from faust.transport.drivers import aiokafka as driver

from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.faust_backend.context import context_of
from tallystream.streams.runtime.host import Packed

ACK_TIMEOUT = 20.0
"""Seconds without an ack after which the worker ends: aiokafka's idempotent producer can hang permanently."""


RECORD_OVERHEAD = 128
"""Bytes that a record may need besides its key and value (lengths, deltas, a header)."""


class Producer(driver.Producer):
    """Faust's producer, idempotent, with `pack` and `write`.

    Promise: when `write` returns, all in-sync replicas have acknowledged the rows in order; with `expect` they are at
    exactly the given offsets, or the process ends. Produce requests are never sent while the heartbeat guard forbids
    it; the guard wraps `client.send`, so it also covers aiokafka's queued batches and retries.

    Relies on `Producer._settings_extra`, `_new_producer`, `_ensure_producer` of faust/transport/drivers/aiokafka.py (no
    setting turns on idempotence outside transactions) and, in aiokafka, on every request going through
    `AIOKafkaProducer.client.send(node_id, request)` (producer/sender.py).
    """

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**super()._settings_extra(), "acks": "all", "enable_idempotence": True}

    def _new_producer(self, transactional_id: str | None = None) -> Any:
        producer = super()._new_producer(transactional_id)
        send, context = producer.client.send, context_of(self.app)

        async def guarded(node_id: object, request: object, **kwargs: object) -> Any:
            if type(request).__name__.startswith("Produce"):
                context.must_be_member()
            return await send(node_id, request, **kwargs)

        producer.client.send = guarded
        return producer

    async def create_topic(self, topic: str, partitions: int, replication: int, **_kwargs: object) -> None:
        """Do nothing: topics are created, with the settings they need, by `streams.kafka.topics.ensure`."""

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
        """Serialise rows into as few record batches as possible, without sending them.

        `opening` starts every batch and `closing` ends the last one, in that batch: a batch is atomic in Kafka. A
        single batch does not have an opening, because its closing rows override it.

        Raises:
            UnfitError: a row is too large for a batch.

        """
        producer = self._ensure_producer()
        head = list(headers)
        batches = []
        need = sum(len(key) + len(value or b"") + RECORD_OVERHEAD for key, value in (*rows, *closing))
        if closing and need <= self.max_batch_size:
            opening = None

        def new() -> Any:
            batch = producer.create_batch()
            batches.append(batch)
            if opening is not None:
                batch.append(timestamp=None, key=opening[0], value=opening[1], headers=head)
            return batch

        batch = new()
        for key, value in rows:
            if batch.append(timestamp=None, key=key, value=value, headers=head) is None:
                batch = new()
                if batch.append(timestamp=None, key=key, value=value, headers=head) is None:
                    raise self._too_large(topic, key, value)
        if closing:
            # all of `closing` must be in one batch, so that an incomplete group cannot contain only a part of it
            need = sum(len(key) + len(value or b"") + RECORD_OVERHEAD for key, value in closing)
            if batch.size() + need > self.max_batch_size:
                batch = new()
            for key, value in closing:
                if batch.append(timestamp=None, key=key, value=value, headers=head) is None:
                    raise self._too_large(topic, key, value)
        for full in batches:
            full.close()
        return Packed(topic, partition, batches, [])

    def _too_large(self, topic: str, key: bytes, value: bytes | None) -> UnfitError:
        return UnfitError(
            f"a row of {len(value or b'')} bytes does not fit a record batch for {topic}: key {key!r}",
            f"batches hold {self.max_batch_size} bytes",
        )

    async def write(self, packs: Sequence[Packed], expect: int | None = None) -> int:
        """Send the batches and wait for all acks; return the offset of the last record.

        `expect` is the offset that the first record must get. Any other offset means that another process writes to
        this partition, and a store that skipped its rows would never see them.
        """
        context = context_of(self.app)
        producer = self._ensure_producer()
        pending: list[tuple[Packed, asyncio.Future[RecordMetadata], int]] = []
        for out in packs:
            for batch in out.batches:
                context.must_be_member()
                acked = await producer.send_batch(batch, out.topic, partition=out.partition)
                pending.append((out, acked, batch.record_count()))
        if pending:
            await asyncio.wait(
                [acked for _, acked, _ in pending], timeout=ACK_TIMEOUT, return_when=asyncio.FIRST_EXCEPTION
            )
        pending.sort(key=lambda one: not one[1].done())  # report failures before timeouts
        end = -1
        for out, acked, count in pending:
            where = f"{out.topic}-{out.partition}"
            if not acked.done():
                context.fail_fast(f"{where}: no acknowledgement for {ACK_TIMEOUT:.0f} s")
            try:
                offset = acked.result().offset
            except KafkaError as exc:
                context.fail_fast(f"{where}: not written: {exc!r}")
            if expect is not None:
                if offset != expect:
                    context.fail_fast(
                        f"{where}: our rows are at {offset}, expected {expect}: another process writes there"
                    )
                expect += count
            out.landed.append((offset, count))
            end = offset + count - 1
        return end
