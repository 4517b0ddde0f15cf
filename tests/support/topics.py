"""Creates topics and writes to them directly, as another program would."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.support.waiting import until

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import TOPIC_SETTING

Message = tuple[bytes, bytes | None, int]
"""Key, value, partition."""


async def produce(kafka: KafkaSettings, topic: str, messages: Iterable[Message]) -> int:
    """Write the messages in order and return how many, once all are acknowledged."""
    producer = AIOKafkaProducer(**kafka.client(), acks="all", enable_idempotence=True)
    await producer.start()
    try:
        sent = [await producer.send(topic, value, key=key, partition=partition) for key, value, partition in messages]
        for one in sent:
            await one
        return len(sent)
    finally:
        await producer.stop()


async def create_topics(admin: AIOKafkaAdminClient, *topics: NewTopic) -> None:
    """Create them, and return once the broker that answers knows them: the controller confirms it earlier than that."""
    answer = await admin.create_topics(list(topics))
    assert not any(code for _, code, *_ in answer.topic_errors), answer
    names = {topic.name for topic in topics}

    async def listed() -> bool:
        return names <= set(await admin.list_topics())

    await until(listed, f"the broker knows the topics {sorted(names)}")


async def raise_partitions(admin: AIOKafkaAdminClient, count: int, *names: str) -> None:
    """Give topics so many partitions, and return once the broker that answers knows it."""
    await admin.create_partitions({name: NewPartitions(count) for name in names})

    async def raised() -> bool:
        return all(len(topic["partitions"]) == count for topic in await admin.describe_topics(list(names)))

    await until(raised, f"the broker knows of {count} partitions of {sorted(names)}")


async def set_topic_config(admin: AIOKafkaAdminClient, name: str, configs: dict[str, str]) -> None:
    """Give a topic exactly these settings of its own, and return once the broker that answers applies them."""
    resource = ConfigResource(ConfigResourceType.TOPIC, name, configs=configs)
    codes = [found[0] for answer in await admin.alter_configs([resource]) for found in answer.resources]
    assert not any(codes), codes

    async def applied() -> bool:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
        entries = [entry for answer in answers for found in answer.resources for entry in found[4]]
        return {key: value for key, value, _, source, *_ in entries if source == TOPIC_SETTING} == configs

    await until(applied, f"the broker applies {configs} to {name}")


async def delete_topic(admin: AIOKafkaAdminClient, name: str) -> None:
    """Delete it, and return once the broker that answers no longer knows it."""
    await admin.delete_topics([name])

    async def gone() -> bool:
        return name not in await admin.list_topics()

    await until(gone, f"the topic {name} is gone")
