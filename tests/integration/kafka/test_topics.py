"""Topic settings that the promises depend on are checked, and the suggested command corrects them."""

from __future__ import annotations

import asyncio
import subprocess
import time

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import InvalidTimestampError
from tests.support.kafka_tools import class_path
from tests.support.topics import set_topic_config
from tests.support.waiting import until

from tallystream.schemas import keys
from tallystream.schemas.errors import UnfitError
from tallystream.streams.deadletters import replay
from tallystream.streams.embedded.jars import java
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import TopicCheck, ensure, settings_of
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka


async def alter(kafka: KafkaSettings, topic: str, **configs: str) -> None:
    """Give a topic exactly these settings."""
    async with opened(AIOKafkaAdminClient(**kafka.client())) as admin:
        await set_topic_config(admin, topic, {name.replace("_", "."): value for name, value in configs.items()})


async def settings(kafka: KafkaSettings, topic: str) -> dict[str, str]:
    async with opened(AIOKafkaAdminClient(**kafka.client())) as admin:
        return await settings_of(admin, ConfigResource(ConfigResourceType.TOPIC, topic))


async def test_single_broker_flushes_before_a_200_even_with_older_topics(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 2)
    await ensure(kafka, topics.all())
    assert (await settings(kafka, topics.usage.name))["flush.messages"] == "1"
    await alter(kafka, topics.usage.name, retention_ms="2000000000", message_timestamp_type="LogAppendTime")
    await ensure(kafka, topics.all())

    async def mended() -> dict[str, str] | None:
        found = await settings(kafka, topics.usage.name)
        return found if found["flush.messages"] == "1" else None

    after = await until(mended, "the broker flushes each message")  # some time after it has confirmed the setting
    assert after["retention.ms"] == "2000000000"
    assert after["message.timestamp.type"] == "LogAppendTime"


async def test_rows_are_accepted_by_a_broker_whose_clock_is_behind(kafka: KafkaSettings, prefix: str) -> None:
    """Also by topics of an earlier version; to a broker, a clock of its own that is behind is a row from the future."""
    rows = Topics(prefix, 1).session_hour_rows
    await ensure(kafka, (rows,))
    ahead = int(time.time() * 1000) + 12 * 3_600_000
    async with AIOKafkaProducer(**kafka.client()) as producer:

        async def accepted() -> bool:
            try:
                await producer.send_and_wait(rows.name, b"row", b"key", timestamp_ms=ahead)
            except InvalidTimestampError:
                return False
            return True

        async def refused() -> bool:
            return not await accepted()

        assert await accepted()
        await alter(kafka, rows.name, **rows.creation(1))
        await until(refused, "the broker applies its default")  # some time after it has confirmed it
        await ensure(kafka, (rows,))
        await until(accepted, "the broker applies our setting")


async def test_raised_partition_count_is_not_used_and_a_wrong_setting_is_refused(
    kafka: KafkaSettings, prefix: str
) -> None:
    topics = Topics(prefix, 2)
    await ensure(kafka, topics.all())
    async with opened(AIOKafkaAdminClient(**kafka.client())) as admin:
        await admin.create_partitions({topics.usage.name: NewPartitions(total_count=5)})

        async def raised(topic: str, count: int) -> None:
            async def known() -> bool:
                return len(await partitions_of(kafka, topic)) == count

            await until(known, "the broker knows the new partitions")

        await raised(topics.usage.name, 5)
        await ensure(kafka, topics.all())
        for wrong in (1, 3, 5):
            with pytest.raises(UnfitError, match="partitions, we need"):
                await ensure(kafka, Topics(prefix, wrong).all())
        sessions = [keys.join("codex-7f3a", f"session-{number}") for number in range(50)]
        await replay.send(kafka, topics, [(key, b"{}") for key in sessions])
        ends = await ends_of(kafka, topics.usage.name, 5)
        assert ends[2:] == [0, 0, 0]
        assert sum(ends) == 50
        await admin.create_partitions({topics.activity.name: NewPartitions(total_count=2)})
        await raised(topics.activity.name, 2)
        with pytest.raises(UnfitError, match="activity has 2 partitions, we need 1"):
            await ensure(kafka, topics.all())


async def ends_of(kafka: KafkaSettings, topic: str, partitions: int) -> list[int]:
    at = [TopicPartition(topic, number) for number in range(partitions)]
    async with opened(new_consumer(kafka)) as consumer:
        found = await consumer.end_offsets(at)
    return [found[one] for one in at]


async def test_setting_that_changes_while_a_process_runs_stops_only_the_next_process(
    kafka: KafkaSettings, prefix: str
) -> None:
    """It begins its work again after each outage of Kafka."""
    usage = Topics(prefix, 2).usage
    check = TopicCheck(kafka, (usage,))
    await check()
    await alter(kafka, usage.name, **{**usage.creation(1), "max.message.bytes": "10"})
    await check()
    with pytest.raises(UnfitError, match=r"max\.message\.bytes"):
        await TopicCheck(kafka, (usage,))()


@pytest.mark.parametrize(
    ("name", "value"), [("max.message.bytes", "100000"), ("retention.bytes", "1000000"), ("retention.ms", "60000")]
)
async def test_suggested_command_corrects_the_topic(kafka: KafkaSettings, prefix: str, name: str, value: str) -> None:
    usage = Topics(prefix, 2).usage
    await ensure(kafka, (usage,))
    await alter(kafka, usage.name, **{**usage.creation(1), name: value})
    with pytest.raises(UnfitError, match=name) as caught:
        await ensure(kafka, (usage,))
    await ensure(kafka, (usage,), strict=False)
    program, *arguments = caught.value.hint.partition(" or use another")[0].split()
    assert program == "kafka-configs.sh"
    done = await asyncio.to_thread(
        subprocess.run,
        [
            str(java()),
            "-XX:TieredStopAtLevel=1",
            "-cp",
            class_path(),
            "kafka.admin.ConfigCommand",
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-1000:]

    async def fits() -> bool:
        try:
            await ensure(kafka, (usage,))
        except UnfitError:
            return False
        return True

    await until(fits, "the broker applies what the command has set")
