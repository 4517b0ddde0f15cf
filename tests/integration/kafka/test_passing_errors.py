"""A broker that loses connections, as one does that creates many topics: requests to it are repeated."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace

import pytest
from aiokafka.protocol import metadata
from tests.support.kafka_proxy import METADATA, KafkaProxy, ProxiedRequest, through
from typing_extensions import override

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.connections.registry import Connections
from tallystream.streams.identity import read_identity
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka


@dataclass
class Losing:
    """A broker behind a proxy that answers the first connection, and closes the next `refusals` at once."""

    kafka: KafkaSettings
    refusals: int
    connections: int = 0


@asynccontextmanager
async def losing(kafka: KafkaSettings, refusals: int) -> AsyncIterator[Losing]:
    """Run the proxy. Clients learn its port instead of the broker's, so all they ask goes through it."""
    host, _, port = kafka.bootstrap.rpartition(":")
    writers: list[asyncio.StreamWriter] = []

    async def forward(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 16):
                target.write(data.replace(theirs, ours) if answers else data)
                await target.drain()
        target.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        proxy.connections += 1
        if 1 < proxy.connections <= 1 + proxy.refusals:
            writer.close()
            return
        answers, requests = await asyncio.open_connection(host, int(port))
        writers.append(requests)
        await asyncio.gather(forward(reader, requests, answers=False), forward(answers, writer, answers=True))

    server = await asyncio.start_server(meet, "127.0.0.1", 0)
    own = server.sockets[0].getsockname()[1]
    theirs, ours = struct.pack(">i", int(port)), struct.pack(">i", own)
    proxy = Losing(replace(kafka, bootstrap=f"127.0.0.1:{own}"), refusals)
    try:
        yield proxy
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            with suppress(OSError):
                await writer.wait_closed()


async def test_topics_are_created_though_the_broker_loses_connections(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 3)
    async with losing(kafka, 3) as proxy:
        await ensure(proxy.kafka, topics.all())
        assert proxy.connections > 4
    for spec in topics.all():
        assert await partitions_of(kafka, spec.name) == list(range(spec.partitions))


async def test_connection_is_created_though_the_broker_loses_connections(kafka: KafkaSettings, prefix: str) -> None:
    async with losing(kafka, 2) as proxy:
        issued = await Connections(proxy.kafka, Topics(prefix, 1)).create("codex")
    listing = await Connections(kafka, Topics(prefix, 1)).list()
    assert listing.get(issued.connection.connection_id).provider == "codex"


async def test_identity_is_read_though_the_broker_loses_connections(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, 1)
    await ensure(kafka, (topics.usage,))
    async with losing(kafka, 2) as proxy:
        found = await read_identity(proxy.kafka, prefix, [topics.usage.name])
    assert found == await read_identity(kafka, prefix, [topics.usage.name])
    assert found.topic_ids[topics.usage.name]


async def test_broker_that_goes_on_losing_connections_is_reported_in_time(kafka: KafkaSettings, prefix: str) -> None:
    async with losing(kafka, 1_000_000) as proxy:
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
