"""A poller, the sandbox and Kafka, connected as in the product, and the expected content of the topic."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry
from tests.support.clock import WallHandClock
from tests.support.waiting import ANSWER

from tallystream.sandbox import Fault, Sandbox, SandboxConfig
from tallystream.schemas import exact
from tallystream.schemas.openai import OpenAIRecord, at
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.poller.client import OpenAIClientConfig
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.poll_run import PollResult
from tallystream.streams.poller.resources import Resource, builtin
from tallystream.streams.poller.service import Poller

DAY = 86_400
NOON = 1_795_262_400  # 2026-11-21T12:00:00Z, a Saturday
TODAY = NOON // DAY
TOKEN = "sk-sandbox-7d1f0c5e9b"


@dataclass
class Rig:
    """One deployment. Each poll runs in a new poller, as after a restart."""

    kafka: KafkaSettings
    topics: Topics
    sandbox: Sandbox
    clock: WallHandClock
    config: PollerConfig
    pollers: list[Poller] = field(default_factory=list)

    async def poll(self, **changes: Any) -> PollResult:
        poller = Poller(replace(self.config, **changes), CollectorRegistry(), self.clock)
        self.pollers.append(poller)
        return await poller.once()

    @asynccontextmanager
    async def polling(self, **changes: Any) -> AsyncIterator[tuple[Poller, asyncio.Task[None]]]:
        """A new poller that runs until the block ends, and its task, which ends earlier only with an error."""
        poller = Poller(replace(self.config, **changes), CollectorRegistry(), self.clock)
        self.pollers.append(poller)
        running = asyncio.create_task(poller.run())
        try:
            yield poller, running
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    def order(self, **fault: Any) -> None:
        self.sandbox.faults.add(Fault(**fault))

    async def messages(self, topic: str) -> list[tuple[bytes, bytes]]:
        """Every message of a one-partition topic, in order."""
        found = []
        consumer = AIOKafkaConsumer(**self.kafka.client(), enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partition = TopicPartition(topic, 0)
            consumer.assign([partition])
            end = (await consumer.end_offsets([partition]))[partition]
            while await consumer.position(partition) < end:
                for message in (await consumer.getmany(partition, timeout_ms=200)).get(partition, []):
                    found.append((message.key, message.value))
        finally:
            await consumer.stop()
        return found

    async def records(self) -> dict[bytes, OpenAIRecord]:
        """The records that readers keep: for each key the one with the newest polled_at."""
        found: dict[bytes, OpenAIRecord] = {}
        for key, value in await self.messages(self.topics.openai_records.name):
            record = OpenAIRecord.model_validate_json(value)
            assert record.key == key
            if key not in found or record.polled_at >= found[key].polled_at:
                found[key] = record
        return found

    async def rows(self) -> dict[tuple[str, str], list[dict[str, Any]]]:
        """Rows by (resource, bucket)."""
        return {(one.resource, one.bucket): one.exact_rows() for one in (await self.records()).values()}

    def metric(self, name: str, **labels: str) -> float:
        """A metric of the last poller."""
        return self.pollers[-1].metrics.registry.get_sample_value(name, labels) or 0.0


@asynccontextmanager
async def rig(
    kafka: KafkaSettings, prefix: str, resources: tuple[Resource, ...] | None = None, seed: int = 1
) -> AsyncIterator[Rig]:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    clock = WallHandClock(NOON)
    sandbox = Sandbox(SandboxConfig(seed=seed), clock)
    await sandbox.start()
    topics = Topics(prefix, 1)
    config = PollerConfig(
        kafka=kafka,
        topics=topics,
        resources=resources or builtin(),
        tokens=ApiKeys({"api": ApiKey(TOKEN)}),
        client=OpenAIClientConfig(sandbox.url + "/openai/v1", timeout=ANSWER, attempts=3, first_wait=0.02),
        session_timeout=10.0,
    )
    try:
        yield Rig(kafka, topics, sandbox, clock, config)
        assert sandbox.violations() == []
    finally:
        await sandbox.stop()


async def ask(sandbox: Sandbox, path: str, params: list[tuple[str, str]]) -> Any:
    """One answer of the sandbox, read by another client than the product's."""
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session,
        session.get(f"{sandbox.url}/openai/v1{path}", params=params) as response,
    ):
        assert response.status == 200, await response.text()
        return exact.loads(await response.read())


def only(*paths: str) -> tuple[Resource, ...]:
    return tuple(resource for resource in builtin() if resource.path in paths)


def day(offset: int = 0) -> str:
    """The name of the bucket `offset` days from today."""
    return at((TODAY + offset) * DAY).strftime("%Y-%m-%d")
