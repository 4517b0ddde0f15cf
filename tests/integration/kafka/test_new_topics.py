"""A topic just created, whose leader does not know it yet: the first records arrive, each once and in order.

On brokers without the fix of KAFKA-15591, a leader that has just learned of its partition takes any first sequence
number. If an idempotent producer had two requests under way, and the first one came too early, the second one is
appended and the first is refused for ever. Two safeguards prevent this, and each is removed here once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, NotLeaderForPartitionError
from aiokafka.producer.sender import Sender
from aiokafka.protocol import offset, produce
from tests.support.kafka_proxy import LIST_OFFSETS, PRODUCE, KafkaProxy, ProxiedRequest, through
from typing_extensions import override

from tallystream.streams.kafka import topic_setup
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import close, opened, start
from tallystream.streams.kafka.producer import GATEWAY, new_producer
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka
TOO_EARLY = 2
"""Requests that a partition refuses because its leader does not know it yet."""
RECORD_ERRORS = 8
"""The version since which an answer to Produce has errors of single records."""


@dataclass
class Young(KafkaProxy):
    """Partitions refuse their first requests of a kind, and then answer."""

    kind: int = PRODUCE
    refused: Counter[tuple[str, int]] = field(default_factory=Counter)
    reached: set[tuple[str, int]] = field(default_factory=set)

    @override
    def refusal(self, request: ProxiedRequest) -> bytes | None:
        if request.kind != self.kind:
            return None
        module, name = (produce, "Produce") if self.kind == PRODUCE else (offset, "Offset")
        asked = getattr(module, f"{name}Request_v{request.version}").decode(request.body)
        topics = [(topic, [one[0] for one in partitions]) for topic, partitions in asked.topics]
        places = {(topic, partition) for topic, partitions in topics for partition in partitions}
        if all(self.refused[place] >= TOO_EARLY for place in places):
            self.reached |= places
            return None
        self.refused.update(places)
        error = NotLeaderForPartitionError.errno
        rest: tuple[object, ...] = (
            () if self.kind == LIST_OFFSETS else (-1, [], None) if request.version >= RECORD_ERRORS else (-1,)
        )
        told = [(topic, [(one, error, -1, -1, *rest) for one in partitions]) for topic, partitions in topics]
        response = getattr(module, f"{name}Response_v{request.version}")
        fields = {"topics": told, "throttle_time_ms": 0}
        return request.answered(response(**{name: fields[name] for name in response.SCHEMA.names}).encode())


async def test_start_ends_only_when_every_new_partition_has_answered(
    kafka: KafkaSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics(prefix, 3)
    wanted = {(spec.name, number) for spec in topics.all() for number in range(spec.partitions)}
    async with through(proxy := Young(kafka, kind=LIST_OFFSETS)):
        await ensure(proxy.kafka, topics.all())
        assert proxy.reached == proxy.refused.keys() == wanted

    async def no_wait(*_: object) -> None:
        """Stand in for the removed safeguard."""

    monkeypatch.setattr(topic_setup, "_await_answers", no_wait)
    async with through(proxy := Young(kafka, kind=LIST_OFFSETS)):
        await ensure(proxy.kafka, Topics(f"{prefix}-2", 3).all())
        assert not proxy.reached


class Unmuted(set[Any]):
    """What aiokafka remembers as under way, without remembering anything."""

    def add(self, _: object) -> None:
        """Forget it."""

    def remove(self, _: object) -> None:
        """It was forgotten."""


async def test_first_records_of_a_topic_arrive_once_each_and_in_order(
    kafka: KafkaSettings, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics(prefix, 2)
    await ensure(kafka, topics.all())
    async with through(proxy := Young(kafka, kind=PRODUCE)):
        producer = new_producer(proxy.kafka, GATEWAY)
        assert all((await sent(producer, topics.usage.name, count=20)).values())
        assert len(proxy.refused) == 2
    for partition in (0, 1):
        assert await values(kafka, topics.usage.name, partition) == [b"%d" % n for n in range(20)]

    # The proxy can do harm: a producer with several requests under way loses the first ones.
    start_sender = Sender.start

    async def start_hasty(self: Any) -> None:
        self._in_flight = self._muted_partitions = Unmuted()
        await start_sender(self)

    monkeypatch.setattr(Sender, "start", start_hasty)
    async with through(proxy := Young(kafka, kind=PRODUCE)):
        producer = new_producer(proxy.kafka, replace(GATEWAY, request_timeout=3.0))
        delivered = await sent(producer, topics.calls.name, count=20)
    there = await values(kafka, topics.calls.name, 0)
    assert b"0" not in there
    assert there[-1] == b"19"
    assert not delivered[0, 0]


async def sent(producer: AIOKafkaProducer, topic: str, count: int) -> dict[tuple[int, int], bool]:
    """Send `count` record batches to each of two partitions one after the other; return which were acknowledged."""
    futures = {}
    await start(producer)
    try:
        for n in range(count):
            for partition in (0, 1):
                batch = producer.create_batch()
                batch.append(timestamp=None, key=None, value=b"%d" % n)
                batch.close()
                futures[partition, n] = await producer.send_batch(batch, topic, partition=partition)
        await asyncio.wait(futures.values(), timeout=30.0)
        return {place: future.done() and future.exception() is None for place, future in futures.items()}
    finally:
        with suppress(KafkaError):
            await close(producer, within=1.0)


async def values(kafka: KafkaSettings, topic: str, partition: int) -> list[bytes | None]:
    at = TopicPartition(topic, partition)
    found: list[bytes | None] = []
    async with opened(new_consumer(kafka)) as consumer:
        consumer.assign([at])
        end = (await consumer.end_offsets([at]))[at]
        await consumer.seek_to_beginning(at)
        while await consumer.position(at) < end:
            found += [one.value for records in (await consumer.getmany(timeout_ms=200)).values() for one in records]
    return found
