"""The internals of aiokafka that the producer uses; this test fails if a new version moves them."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer

from tallystream.streams.gateway.delivery.channels import abandon


async def test_aiokafka_has_the_names_for_abandoning_a_producer() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", enable_idempotence=True)
    assert producer._sender.sender_task is None
    assert not producer._message_accumulator._batches
    assert producer._message_accumulator._pending_batches == set()
    async with asyncio.timeout(5):
        await abandon(producer)
    assert producer._closed
