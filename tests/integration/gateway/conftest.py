"""A deployment with one connection of each kind, a gateway, and a broker that tests may stop."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from tests.support.gateway import BEARER, NOW, PARTITIONS, GatewayProcess, config_of, connection, running, write
from tests.support.open_kafka import OpenKafka

from tallystream.schemas.connections import hash_secret
from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.gateway import Gateway
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

CLAUDE_ID = "Zq3vTestIngestIdClaude"
GUARDED_ID = "Zq3vTestIngestGuarded1"
REVOKED_ID = "Zq3vTestIngestRevoked1"


@dataclass(frozen=True)
class Deployment:
    """A cluster and a prefix on it, with its connections written."""

    kafka: KafkaSettings
    prefix: str

    def process(self, directory: Path) -> GatewayProcess:
        """Return a gateway in a process of its own, not started."""
        return GatewayProcess(self.kafka, self.prefix, directory, TALLYSTREAM_PARTITIONS=str(PARTITIONS))

    @property
    def topics(self) -> Topics:
        return Topics(self.prefix, PARTITIONS)


def deploy(kafka: KafkaSettings) -> Deployment:
    deployment = Deployment(kafka, f"t{uuid.uuid4().hex[:10]}")
    connections = (
        connection(),
        connection("claude", CLAUDE_ID),
        connection("codex", GUARDED_ID, connection_id="codex-9a11", bearer_sha256=hash_secret(BEARER)),
        connection("codex", REVOKED_ID, connection_id="codex-dead", revoked_at=NOW),
    )
    asyncio.run(write(kafka, deployment.topics, *connections))
    return deployment


@pytest.fixture(scope="module")
def deployment(kafka: KafkaSettings) -> Deployment:
    return deploy(kafka)


@pytest.fixture
def fresh(kafka: KafkaSettings) -> Deployment:
    """Provide a deployment whose topics contain nothing of other tests."""
    return deploy(kafka)


@pytest.fixture(scope="package")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """Provide a separate broker that a test may stop or kill, and must leave running."""
    with OpenKafka(tmp_path_factory.mktemp("own-kafka")) as own:
        yield own


@pytest.fixture
async def gateway(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(config_of(deployment.kafka, deployment.prefix, tmp_path)) as one:
        yield one


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session
