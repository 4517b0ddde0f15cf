"""Writes to topics directly, as another program would."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka import AIOKafkaProducer

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
