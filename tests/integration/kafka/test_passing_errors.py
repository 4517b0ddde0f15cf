"""A broker that loses connections, as one does that creates many topics: requests to it are repeated."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from aiokafka.protocol import metadata
from tests.support.kafka_proxy import METADATA, KafkaProxy, ProxiedRequest, through
from tests.support.topics import produce
from typing_extensions import override

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.connections.registry import Connections
from tallystream.streams.identity import read_identity
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.topic_ends import topic_ends

pytestmark = pytest.mark.kafka


async def test_topics_are_created_though_the_broker_loses_connections(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 3)
    async with through(KafkaProxy(kafka, lost=3)) as proxy:
        await ensure(proxy.kafka, topics.all())
        assert proxy.connections > 4
    for spec in topics.all():
        assert await partitions_of(kafka, spec.name) == list(range(spec.partitions))


async def test_connection_is_created_though_the_broker_loses_connections(kafka: KafkaSettings, prefix: str) -> None:
    async with through(KafkaProxy(kafka, lost=2)) as proxy:
        issued = await Connections(proxy.kafka, Topics(prefix, 1)).create("codex")
    listing = await Connections(kafka, Topics(prefix, 1)).list()
    assert listing.get(issued.connection.connection_id).provider == "codex"


async def test_identity_is_read_though_the_broker_loses_connections(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 1)
    await ensure(kafka, (topics.usage,))
    async with through(KafkaProxy(kafka, lost=2)) as proxy:
        found = await read_identity(proxy.kafka, prefix, [topics.usage.name])
    assert found == await read_identity(kafka, prefix, [topics.usage.name])
    assert found.topic_ids[topics.usage.name]


async def test_ends_are_read_though_the_broker_loses_connections(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 3)
    usage, rows = topics.usage.name, topics.session_hour_rows.name
    await ensure(kafka, (topics.usage, topics.session_hour_rows))
    await produce(kafka, usage, [(b"k", b"v", partition) for partition in (0, 0, 2)])
    async with through(KafkaProxy(kafka, lost=2)) as proxy:
        identity, ends = await topic_ends(proxy.kafka, prefix, [usage, rows, f"{prefix}.missing"], {usage})
    assert ends == {(usage, 0): 2, (usage, 1): 0, (usage, 2): 1}
    assert identity == await read_identity(kafka, prefix, [usage, rows])
    identity, ends = await topic_ends(kafka, prefix, [f"{prefix}.missing"], {f"{prefix}.missing"})
    assert (identity.topic_ids, ends) == ({}, {})


async def test_broker_that_goes_on_losing_connections_is_reported_in_time(kafka: KafkaSettings, prefix: str) -> None:
    async with through(KafkaProxy(kafka, lost=1_000_000)) as proxy:
        with pytest.raises(UnreachableError, match="NodeNotReadyError"):
            await ensure(proxy.kafka, Topics(prefix, 1).all(), seconds=3.0)


@dataclass
class Starting(KafkaProxy):
    """A broker that has just started: to whoever asks for all topics it first says that it has none, and no broker."""

    answers: int = 0

    @override
    def refusal(self, request: ProxiedRequest) -> bytes | None:
        if request.kind != METADATA or self.answers >= 3:
            return None
        if getattr(metadata, f"MetadataRequest_v{request.version}").decode(request.body).topics is not None:
            return None
        self.answers += 1
        response = getattr(metadata, f"MetadataResponse_v{request.version}")
        fields = {"throttle_time_ms": 0, "brokers": [], "cluster_id": "", "controller_id": -1, "topics": []}
        return request.answered(response(**{name: fields[name] for name in response.SCHEMA.names}).encode())


async def test_topics_are_checked_though_the_broker_has_just_started(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 2)
    async with through(Starting(kafka)) as proxy:
        await ensure(proxy.kafka, topics.all())
    async with through(proxy := Starting(kafka)):
        await ensure(proxy.kafka, topics.all())
        assert proxy.answers == 3
    for spec in topics.all():
        assert await partitions_of(kafka, spec.name) == list(range(spec.partitions))
