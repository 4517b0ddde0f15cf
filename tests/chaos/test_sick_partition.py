"""A partition without a leader: its sessions wait in the spool, and other sessions are not affected."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.chaos.brokers import beside_each_other, brokers
from tests.integration.gateway.test_kafka_away import HEADERS, body, ids_of
from tests.support.gateway import SPOOLS_SOON, config_of, connection, event_ids, logs_path, running, write
from tests.support.waiting import until

from tallystream.schemas import keys
from tallystream.streams.gateway import Gateway
from tallystream.streams.gateway.delivery.batch import settled
from tallystream.streams.gateway.delivery.drain import Drain
from tallystream.streams.gateway.spool.spool import SpooledRow
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.partitioning import partition_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(900)]
PARTITIONS = 3
SICK = 0


def session_on(partition: int) -> str:
    """Return a session whose messages go to a partition of `usage`."""
    names = (f"session-{number}" for number in range(1000))
    return next(n for n in names if partition_of(keys.join("codex-7f3a", n), PARTITIONS) == partition)


async def create(kafka: KafkaSettings, topics: Topics) -> None:
    """Put each partition of `usage` on its own broker, the failing one on the third, and all others on the first."""
    async with opened(AIOKafkaAdminClient(**kafka.client())) as admin:
        places = {SICK: [3], 1: [1], 2: [2]}
        response = await admin.create_topics(
            [
                NewTopic(spec.name, -1, -1, replica_assignments=places, topic_configs=spec.creation(1))
                if spec == topics.usage
                else NewTopic(spec.name, -1, -1, replica_assignments={0: [1]}, topic_configs=spec.creation(1))
                for spec in (topics.usage, topics.connections, topics.activity, topics.deadletters)
            ]
        )
        assert not any(code for _, code, *_ in response.topic_errors), response


def waiting(gateway: Gateway) -> set[int]:
    """Return the partitions of `usage` with messages in the spool. Under load, a late ack may put others there."""
    return {lane.place.partition for lane in gateway.spool.lanes()}


async def careless(self: Drain, rows: list[SpooledRow]) -> tuple[set[int], str]:
    """Send rows and take each for acknowledged, without waiting for those that are late."""
    batches = self._link.send([row.message for row in rows])
    await settled(batches, within=self._link.timeout.seconds)
    return {id(row.message) for row in rows}, ""


async def test_one_failing_partition_does_not_affect_the_others(
    tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = brokers(tmp_path / "kafka", 3, {"min.insync.replicas": "1"})
    await asyncio.to_thread(beside_each_other, [one.start for one in cluster])
    try:
        kafka = KafkaSettings(",".join(one.bootstrap for one in cluster))
        topics = Topics(prefix, PARTITIONS)
        await create(kafka, topics)
        await write(kafka, topics, connection())
        config = config_of(kafka, prefix, tmp_path, topics=topics, **SPOOLS_SOON)
        sent: list[bytes] = []
        async with aiohttp.ClientSession() as http:

            async def post(gateway: Gateway, partition: int) -> bytes:
                content = body(len(sent), session_on(partition))
                sent.append(content)
                async with http.post(gateway.url + logs_path(), data=content, headers=HEADERS) as response:
                    assert response.status == 200
                return content

            async def all_arrive(gateway: Gateway) -> None:
                """Post to the healthy partitions and check that the messages are in Kafka immediately."""
                wanted = ids_of(*[await post(gateway, partition) for partition in (1, 2) for _ in range(5)])

                async def there() -> bool:
                    found = [await events_of(kafka, topics, partition) for partition in (1, 2)]
                    return wanted <= set().union(*found)

                await until(there, "the healthy partitions get theirs")

            async with running(config) as gateway:
                for partition in range(PARTITIONS):
                    await post(gateway, partition)
                os.kill(cluster[2].pid, signal.SIGKILL)
                for _ in range(4):
                    await post(gateway, SICK)
                    await all_arrive(gateway)
                await until(lambda: gateway.link.away == 1, "one partition is known to be away")
                assert gateway.link.live
                await until(lambda: waiting(gateway) == {SICK}, lambda: f"only {SICK} waits, not {waiting(gateway)}")
            # A gateway that starts now behaves in the same way.
            async with running(config) as gateway:
                await until(lambda: gateway.link.connected, "it is connected")
                await post(gateway, SICK)
                await all_arrive(gateway)
                await until(lambda: waiting(gateway) == {SICK}, lambda: f"only {SICK} waits, not {waiting(gateway)}")
                await asyncio.to_thread(cluster[2].stop)
                await asyncio.to_thread(cluster[2].start)
                await until(lambda: not gateway.spool.level.rows, "the spool is drained")
                await until(lambda: gateway.link.away == 0, "all partitions are back")
            found = await event_ids(kafka, topics)
            assert set(found) == ids_of(*sent)
            # The comparison can fail: a row that its own acknowledgement does not delete is lost with its partition.
            monkeypatch.setattr(Drain, "_may_send", lambda *_: True)
            monkeypatch.setattr(Drain, "_send", careless)
            async with running(replace(config, stop_timeout=1.0)) as gateway:
                os.kill(cluster[2].pid, signal.SIGKILL)
                await post(gateway, SICK)
                await until(lambda: not gateway.spool.level.rows, "the spool is empty")
            await asyncio.to_thread(cluster[2].stop)
            await asyncio.to_thread(cluster[2].start)
        assert set(await event_ids(kafka, topics)) == ids_of(*sent[:-1])
    finally:
        await asyncio.to_thread(beside_each_other, [one.stop for one in cluster])


async def events_of(kafka: KafkaSettings, topics: Topics, partition: int) -> set[str]:
    """Return the ids in one partition, because a reader of all would wait for the failing one."""
    import json

    from aiokafka import AIOKafkaConsumer, TopicPartition

    at = TopicPartition(topics.usage.name, partition)
    found: set[str] = set()
    async with opened(AIOKafkaConsumer(**kafka.client(), group_id=None, enable_auto_commit=False)) as consumer:
        consumer.assign([at])
        end = (await consumer.end_offsets([at]))[at]
        await consumer.seek_to_beginning(at)
        while await consumer.position(at) < end:
            for record in (await consumer.getmany(at, timeout_ms=500)).get(at, []):
                found |= {event["event_id"] for event in json.loads(record.value)["events"]}
    return found
