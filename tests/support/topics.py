"""Creates topics and writes to them directly, as another program would."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.support.waiting import until

from tallystream.streams.kafka.settings import KafkaSettings

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


async def delete_topic(admin: AIOKafkaAdminClient, name: str) -> None:
    """Delete it, and return once the broker that answers no longer knows it."""
    await admin.delete_topics([name])

    async def gone() -> bool:
        return name not in await admin.list_topics()

    await until(gone, f"the topic {name} is gone")
