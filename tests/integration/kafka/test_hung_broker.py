"""How aiokafka treats a broker that accepts connections but never answers: docs/adr/0007-brokers-that-hang.md."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from tests.support.waiting import until

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka


@asynccontextmanager
async def silence() -> AsyncIterator[tuple[str, Callable[[], int]]]:
    """Listen without ever answering; provide the address and the number of connections."""
    met: list[asyncio.StreamWriter] = []

    async def meet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(writer)

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", lambda: len(met)
    finally:
        for writer in met:
            writer.close()
        server.close()
        await server.wait_closed()


async def test_starting_client_waits_one_request_timeout_for_a_hung_broker() -> None:
    async with silence() as (hung, met):
        patient = AIOKafkaAdminClient(bootstrap_servers=hung)
        starting = asyncio.create_task(patient.start())
        await until(lambda: met() == 1, "it is asked")
        hasty = AIOKafkaAdminClient(bootstrap_servers=hung, request_timeout_ms=200)
        with pytest.raises(KafkaConnectionError):
            await hasty.start()
        await hasty.close()
        assert not starting.done(), "the other one still waits, for 40 s by default"
        starting.cancel()
        await asyncio.wait([starting])
        await patient.close()


async def test_starting_client_continues_with_a_broker_that_answers(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 1)
    await ensure(kafka, topics.all())
    at = TopicPartition(topics.usage.name, 0)
    async with silence() as (hung, met):
        while met() == 0:  # aiokafka shuffles its addresses
            both = f"{hung},{kafka.bootstrap}"
            async with AIOKafkaConsumer(bootstrap_servers=both, group_id=None, request_timeout_ms=5000) as consumer:
                assert await consumer.end_offsets([at]) == {at: 0}
