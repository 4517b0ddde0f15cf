"""A gateway under test, in this process or as a separate one, with connections written directly to the topic."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry
from tests.support.product import free_port
from tests.support.waiting import ANSWER

from tallystream.schemas.connections import Connection, IngestKey, Provider, hash_secret
from tallystream.schemas.ingest import INGEST_PATH
from tallystream.streams.gateway import Gateway, GatewayConfig
from tallystream.streams.gateway.pseudonyms import pseudonyms
from tallystream.streams.kafka.reader import TopicReader
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics, TopicSpec

INGEST_ID = "Zq3vTestIngestId000001"
BEARER = "s3cret-bearer-of-the-tests"
SPOOLS_SOON = MappingProxyType({"ack_timeout": 0.25, "ack_timeout_max": 1.0})
"""Settings of a gateway that spools as early as the product does."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)
PARTITIONS = 3
"""Of each topic. The default is 12, and a broker that keeps the topics of all tests is slower with more."""


def connection(provider: Provider = "codex", *ids: str, **fields: Any) -> Connection:
    """Return a connection with these ingest ids (`INGEST_ID` by default)."""
    ingest = [IngestKey(sha256=hash_secret(ingest_id)) for ingest_id in ids or (INGEST_ID,)]
    defaults: dict[str, Any] = {
        "connection_id": f"{provider}-7f3a",
        "provider": provider,
        "name": "test",
        "created_at": NOW,
        "ingest": ingest,
    }
    return Connection(**(defaults | fields))


async def write(kafka: KafkaSettings, topics: Topics, *connections: Connection) -> None:
    """Write connections to their topic, creating the gateway's topics if need be."""
    await ensure(kafka, (topics.usage, topics.connections, topics.activity, topics.deadletters))
    async with AIOKafkaProducer(**kafka.client(), acks="all") as producer:
        for one in connections:
            await producer.send_and_wait(
                topics.connections.name, one.model_dump_json().encode(), one.connection_id.encode()
            )


async def read_topic(kafka: KafkaSettings, spec: TopicSpec) -> list[tuple[bytes, Any]]:
    """Return (key, decoded value) of every record of a topic."""
    found = []
    async with TopicReader(kafka, spec.name) as reader:
        async for batch in reader.batches():
            found += [(record.key or b"", json.loads(record.value or b"null")) for record in batch.records]
    return found


async def event_ids(kafka: KafkaSettings, topics: Topics) -> list[str]:
    """Return the id of every usage event in Kafka, copies included."""
    return [event["event_id"] for _, batch in await read_topic(kafka, topics.usage) for event in batch["events"]]


def logs_path(ingest_id: str = INGEST_ID, provider: str = "codex", signal_: str = "logs") -> str:
    """Return the path that `connections create` would print."""
    return f"{INGEST_PATH}{provider}/{ingest_id}/v1/{signal_}"


def config_of(kafka: KafkaSettings, prefix: str, directory: Path, **changes: Any) -> GatewayConfig:
    """Return a config for tests: any free port, and so patient with Kafka that a 200 means that Kafka has the data.

    On a busy machine an ack can take longer than the gateway usually waits before it spools. Tests in which Kafka is
    away need `SPOOLS_SOON`.
    """
    made = GatewayConfig(kafka, Topics(prefix, PARTITIONS), directory / "gateway", pseudonyms(b"test key"), port=0)
    patient = replace(made, first_contact=ANSWER, ack_timeout=ANSWER, ack_timeout_max=ANSWER)
    return replace(patient, **changes)


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[Gateway]:
    """Run a gateway in this process."""
    gateway = Gateway(config, CollectorRegistry())
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.stop()


class GatewayProcess:
    """`tallystream gateway` as a separate process, with its log in `directory`."""

    def __init__(self, kafka: KafkaSettings, prefix: str, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.ops_port = free_port()
        self.log = directory / "gateway.log"
        self.options: list[str] = []
        """Further options of the command."""
        self._kafka = kafka
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")} | {
            "TALLYSTREAM_PREFIX": prefix,
            "TALLYSTREAM_USER_KEY": "key of the tests",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return `http://host:port`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; `ready` tells when it serves requests."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "tallystream", "gateway", "--kafka", self._kafka.bootstrap),
                    *("--port", str(self.port), "--ops-port", str(self.ops_port), "--data-dir", str(self.directory)),
                    *self.options,
                ],
                env=self._environment,
                stdout=log,
                stderr=log,
            )

    def ready(self) -> bool:
        """Return whether it answers /readyz with 200; fails when it has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the gateway ended with {self._process.returncode}: {self.log.read_text()}")
        try:
            with urllib.request.urlopen(f"{self.url}/readyz", timeout=10) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    def ready_port(self) -> bool:
        """Return whether something listens on its port."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        assert self._process is not None
        return self._process.wait(ANSWER)

    def metrics(self) -> str:
        """Return its metrics page."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}/metrics", timeout=ANSWER) as response:
            text: str = response.read().decode()
            return text

    def metric(self, sample: str) -> float:
        """Return one sample's value, 0 if it is missing."""
        for line in self.metrics().splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return 0.0

    def kill(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, wait for the end and return the exit code."""
        assert self._process is not None
        self._process.send_signal(number)
        return self.wait()

    def end(self) -> None:
        """Kill it if it still runs at the end of the test."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile: 0.99 for p99."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
