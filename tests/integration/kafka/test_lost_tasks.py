"""A Kafka client that has lost one of its tasks still looks alive; its owner replaces it, or the process ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tests.integration.gateway.test_kafka_away import HEADERS, body, ids_of
from tests.support.gateway import SPOOLS_SOON, config_of, connection, event_ids, logs_path, running, write
from tests.support.topics import produce
from tests.support.waiting import PATIENCE, until

from tallystream.components.harness import until_told
from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.follower import TopicFollower
from tallystream.streams.kafka.producer import producing
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_settings import TopicSpec
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.leader_election import Election, election_loop, retry_while_away
from tallystream.streams.service.ops import Health

pytestmark = pytest.mark.kafka


async def test_follower_with_a_lost_task_raises_an_error(kafka: KafkaSettings, prefix: str) -> None:
    topic = f"{prefix}.followed"
    await ensure(kafka, (TopicSpec(topic, 1),))
    await produce(kafka, topic, [(b"k", b"v", 0)])
    async with TopicFollower(kafka, (topic,), {}) as tail:
        await until(tail.poll, "a record comes")
        consumer: Any = tail._consumer
        consumer._fetcher._fetch_task.cancel()
        with pytest.raises(UnreachableError, match="fetch task has ended"):
            await until(tail.poll, "it is noticed")


async def test_follower_whose_client_cancels_a_wait_raises_an_error(kafka: KafkaSettings, prefix: str) -> None:
    topic = f"{prefix}.followed"
    await ensure(kafka, (TopicSpec(topic, 1),))
    async with TopicFollower(kafka, (topic,), {}) as tail:
        consumer: Any = tail._consumer
        waiters = consumer._fetcher._fetch_waiters

        async def polled() -> None:
            while True:
                await tail.poll()

        polling = asyncio.create_task(polled())
        await until(lambda: waiters, "it waits for records")
        for waiter in waiters:
            waiter.cancel()
        with pytest.raises(UnreachableError, match="cancelled"):
            await asyncio.wait_for(polling, PATIENCE)


@pytest.mark.parametrize(("ask", "name"), [("renew", "end_offsets"), ("begins", "beginning_offsets")])
async def test_follower_whose_client_cancels_a_question_raises_an_error(
    kafka: KafkaSettings, prefix: str, ask: str, name: str
) -> None:
    topic = f"{prefix}.followed"
    await ensure(kafka, (TopicSpec(topic, 1),))
    async with TopicFollower(kafka, (topic,), {}) as tail:

        async def cancelled(_: object) -> None:
            raise asyncio.CancelledError

        setattr(tail._consumer, name, cancelled)
        with pytest.raises(UnreachableError, match="cancelled"):
            await getattr(tail, ask)()


@pytest.mark.parametrize("task", ["_coordination_task", "_heartbeat_task"])
async def test_election_member_with_a_lost_task_joins_again(kafka: KafkaSettings, prefix: str, task: str) -> None:
    topics = Topics(prefix, 1)
    await ensure(kafka, (topics.poller_control,))
    members: list[Any] = []
    leads = asyncio.Event()

    async def take_part() -> bool:
        async with Election(kafka, topics.poller_group, topics.poller_control.name, 3.0) as election:
            members.append(election)
            return await election_loop(election, lead, lambda: None, 0.05)

    async def lead(_: int) -> bool:
        leads.set()
        if len(members) == 2:
            return True
        await asyncio.Event().wait()
        return False

    taking_part = asyncio.create_task(retry_while_away(take_part))
    await until(leads.is_set, "the first leads")
    coordinator = members[0]._consumer._coordinator

    async def fails() -> None:
        raise ConnectionResetError("as a bug of the library would")

    getattr(coordinator, task).cancel()
    setattr(coordinator, task, asyncio.ensure_future(fails()))
    assert await asyncio.wait_for(taking_part, PATIENCE), "a second member leads"


async def test_gateway_replaces_clients_with_lost_tasks(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    topics = Topics(prefix, 1)
    await ensure(kafka, topics.all())
    await write(kafka, topics, connection())
    config = config_of(kafka, prefix, tmp_path, topics=topics, **SPOOLS_SOON)
    async with running(config) as gateway, aiohttp.ClientSession() as http:
        link: Any = gateway.link
        registry: Any = gateway.registry
        await until(lambda: link.connected and registry.following.is_set(), "it is connected")
        producer, consumer = link._channels[-1].producer, registry._consumer
        producer._sender._sender_task.cancel()
        consumer._fetcher._fetch_task.cancel()
        async with http.post(gateway.url + logs_path(), data=body(1), headers=HEADERS) as response:
            assert response.status == 200
        await until(lambda: link._channels and link._channels[-1].producer is not producer, "there is another producer")
        await until(lambda: registry._consumer not in (None, consumer), "there is another consumer")

        async def arrived() -> bool:
            return set(await event_ids(kafka, topics)) == ids_of(body(1))

        await until(arrived, "what was acknowledged is in Kafka")


class Careless:
    """A component that does not check its producer."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self.producer: Any = None

    async def run(self) -> None:
        async with producing(self._kafka) as self.producer:
            await asyncio.Event().wait()

    def healthy(self) -> Health:
        return Health(True)

    ready = healthy

    def status(self) -> None:
        return None


async def test_component_that_ignores_a_lost_task_is_ended(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystream.components.harness.GRACE", 0.5)
    component = Careless(kafka)
    life = asyncio.create_task(until_told(component, asyncio.Event()))
    await until(lambda: component.producer is not None, "it has a producer")
    component.producer._sender._sender_task.cancel()
    with pytest.raises(UnreachableError, match="KafkaProducer: sender task has ended: cancelled"):
        await asyncio.wait_for(life, PATIENCE)
