"""A batch that is sent directly arrives once, whatever happens to its request or to the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import MessageSizeTooLargeError, NotLeaderForPartitionError
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from tests.support.kafka_proxy import PRODUCE, KafkaProxy, ProxiedRequest, through
from tests.support.topics import create_topics
from tests.support.waiting import ANSWER, until
from typing_extensions import override

from tallystream.streams.gateway.delivery.channels import abandon
from tallystream.streams.gateway.delivery.direct_sender import DirectSender
from tallystream.streams.gateway.message import Place
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import close, opened, start
from tallystream.streams.kafka.producer import ProducerProfile, new_producer
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
PROFILE = ProducerProfile(request_timeout=1.0)


@dataclass
class Refusing(KafkaProxy):
    """Refuses Produce requests with `error` while it is not 0."""

    error: int = 0
    refused: int = 0
    often: int = 1_000_000

    @override
    def refusal(self, request: ProxiedRequest) -> bytes | None:
        if request.kind != PRODUCE or not self.error or self.refused >= self.often:
            return None
        self.refused += 1
        asked = ProduceRequest_v7.decode(request.body)
        told = [(topic, [(one, self.error, -1, -1, -1) for one, _ in places]) for topic, places in asked.topics]
        return request.answered(ProduceResponse_v7(told, 0).encode())


class Sending:
    """A started producer with its direct sender, for one topic."""

    def __init__(self, producer: AIOKafkaProducer, topic: str) -> None:
        self._producer = producer
        self._topic = topic
        self._sender = producer._sender

    def send(self, value: bytes, partition: int = 0) -> asyncio.Future[object] | None:
        """Send a batch; return its outcome, None if it was not taken."""
        builder = self._producer.create_batch()
        builder.append(timestamp=None, key=b"key", value=value, headers=[])
        outcome: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        requests: dict[int, dict[Place, object]] = {}
        if not self._sender.send(Place(self._topic, partition), builder, _passing_on(outcome), requests):
            return None
        for broker, batches in requests.items():
            self._sender.request(broker, batches)
        return outcome

    async def taken(self, value: bytes) -> asyncio.Future[object]:
        """Send a batch as soon as it is taken; return its outcome."""
        found: list[asyncio.Future[object] | None] = []

        def taken() -> bool:
            found.append(self.send(value))
            return found[-1] is not None

        await until(taken, "the batch is taken")
        assert found[-1] is not None
        return found[-1]

    async def sent(self, value: bytes) -> object:
        """Send a batch as soon as it is taken, and wait for its outcome."""
        async with asyncio.timeout(ANSWER):
            return await (await self.taken(value))


def _passing_on(outcome: asyncio.Future[object]) -> Callable[[asyncio.Future[object]], None]:
    def settled(batch: asyncio.Future[object]) -> None:
        if (exc := batch.exception()) is not None:
            outcome.set_exception(exc)
        else:
            outcome.set_result(batch.result())

    return settled


@asynccontextmanager
async def sending(kafka: KafkaSettings, topic: str) -> AsyncIterator[Sending]:
    producer = new_producer(kafka, PROFILE)
    DirectSender(producer)
    try:
        await start(producer)
        await producer.partitions_for(topic)
        yield Sending(producer, topic)
    finally:
        await abandon(producer)


@pytest.fixture
async def topic(kafka: KafkaSettings, prefix: str) -> str:
    async with administering(kafka) as admin:
        await create_topics(admin, NewTopic(prefix, 2, 1))
    return prefix


async def values(kafka: KafkaSettings, topic: str) -> list[bytes]:
    async with opened(new_consumer(kafka)) as consumer:
        places = [TopicPartition(topic, number) for number in range(2)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        found: list[bytes] = []
        for place in places:
            while await consumer.position(place) < ends[place]:
                found += [record.value for record in (await consumer.getmany(place, timeout_ms=100)).get(place, ())]
        return found


async def test_batches_arrive_once_and_in_order(kafka: KafkaSettings, topic: str) -> None:
    async with sending(kafka, topic) as link:
        for number in range(20):
            await link.sent(b"%d" % number)
    assert await values(kafka, topic) == [b"%d" % number for number in range(20)]


async def test_a_second_batch_waits_for_the_answer_to_the_first(kafka: KafkaSettings, topic: str) -> None:
    async with sending(kafka, topic) as link:
        await link.sent(b"first")
        under_way = link.send(b"second")
        assert under_way is not None
        assert link.send(b"third") is None
        assert link.send(b"third", partition=1) is None, "the broker has not answered yet"
        await under_way


async def test_a_batch_refused_for_a_while_is_sent_again(kafka: KafkaSettings, topic: str) -> None:
    error = NotLeaderForPartitionError.errno
    async with through(proxy := Refusing(kafka, error=error, often=2)), sending(proxy.kafka, topic) as link:
        await link.sent(b"first")
        await link.sent(b"second")
        assert proxy.refused == 2
    assert await values(kafka, topic) == [b"first", b"second"]


async def test_a_batch_refused_for_good_fails(kafka: KafkaSettings, topic: str) -> None:
    error = MessageSizeTooLargeError.errno
    async with through(proxy := Refusing(kafka, error=error)), sending(proxy.kafka, topic) as link:
        with pytest.raises(MessageSizeTooLargeError):
            await link.sent(b"large")
    assert await values(kafka, topic) == []


async def test_a_batch_whose_answer_is_lost_is_sent_again_and_appended_once(kafka: KafkaSettings, topic: str) -> None:
    async with through(proxy := KafkaProxy(kafka)), sending(proxy.kafka, topic) as link:
        await link.sent(b"first")
        proxy.withheld = frozenset({PRODUCE})
        outcome = await link.taken(b"second")
        await until(lambda: proxy.kept, "its answer is withheld")
        proxy.withheld = frozenset()
        async with asyncio.timeout(ANSWER):
            await outcome
        await link.sent(b"third")
    assert await values(kafka, topic) == [b"first", b"second", b"third"]


async def test_a_producer_is_given_up_while_a_batch_is_under_way(kafka: KafkaSettings, topic: str) -> None:
    async with through(proxy := KafkaProxy(kafka, withheld=frozenset({PRODUCE}))):
        producer = new_producer(proxy.kafka, PROFILE)
        sender = DirectSender(producer)
        await start(producer)
        await producer.partitions_for(topic)
        outcome = await Sending(producer, topic).taken(b"lost")
        async with asyncio.timeout(ANSWER):
            await abandon(producer)
            await close(producer)
        assert not outcome.done()
        assert sender.sender_task.done()
