"""A client whose known brokers are all gone finds the cluster again by the servers that it was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import BrokerMetadata
from tests.support.product import free_port
from tests.support.waiting import until

from tallystream.streams.kafka.lifecycle import close, opened
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka
CLIENTS = (AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient)


def inner(client: Any) -> Any:
    return client.client if isinstance(client, AIOKafkaProducer) else client._client


def forget_all_but(client: Any, port: int) -> None:
    """As after metadata from a time at which only one broker was up, which has gone down since."""
    found = inner(client)
    found.cluster._brokers = {7: BrokerMetadata(7, "127.0.0.1", port, None)}
    for connection in list(found._conns.values()):
        connection.close()


async def updates(client: Any) -> bool:
    return bool(await inner(client).force_metadata_update())


@pytest.mark.parametrize("kind", CLIENTS)
async def test_client_finds_its_cluster_again(kafka: KafkaSettings, kind: Callable[..., Any]) -> None:
    async with opened(kind(**kafka.client())) as client:
        known = inner(client).cluster.brokers()
        forget_all_but(client, free_port())
        await until(lambda: updates(client), "its metadata is new")
        assert inner(client).cluster.brokers() == known
        assert not [node for node, _ in inner(client)._conns if str(node).startswith("bootstrap")]


async def test_aiokafka_itself_asks_only_known_brokers(kafka: KafkaSettings) -> None:
    """The reason for `rebootstrap`. If this fails, aiokafka finds its cluster again, and the module can go."""
    client = AIOKafkaConsumer(**kafka.client())
    await client.start()
    try:
        forget_all_but(client, free_port())
        assert [await updates(client) for _ in range(3)] == [False] * 3
    finally:
        await close(client)


async def test_known_brokers_are_asked_again_when_the_configured_ones_do_not_answer(kafka: KafkaSettings) -> None:
    client = AIOKafkaConsumer(**kafka.client())
    async with opened(client):
        known = inner(client).cluster.brokers()
        port = free_port()
        inner(client)._bootstrap_servers = f"127.0.0.1:{port}"
        forget_all_but(client, port)
        inner(client).cluster._brokers |= {9: BrokerMetadata(9, "127.0.0.1", port, None)}
        assert not await updates(client)
        assert {broker.nodeId for broker in inner(client).cluster.brokers()} == {7, 9}
        inner(client).cluster._brokers[9] = next(iter(known))._replace(nodeId=9)
        await until(lambda: updates(client), "a known broker answers again")
        assert inner(client).cluster.brokers() == known


async def test_cluster_that_is_gone_is_still_an_error(kafka: KafkaSettings) -> None:
    client = AIOKafkaConsumer(bootstrap_servers=f"127.0.0.1:{free_port()}")
    with pytest.raises(KafkaError):
        async with opened(client):
            pass
