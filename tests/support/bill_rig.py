"""A sandbox's bill, a poller, telemetry rows and the agent on real Kafka, connected as in the product."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry
from tests.support.clock import WallHandClock
from tests.support.waiting import ANSWER, until

from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation.agent import ReconciliationAgent
from tallystream.agents.reconciliation.config import ReconciliationConfig
from tallystream.components.poller import ANTHROPIC_HEADERS
from tallystream.sandbox import Fault, Sandbox, SandboxConfig
from tallystream.sandbox.billed import Bill
from tallystream.schemas.billing.accounts import AccountLink
from tallystream.streams.connections.accounts import Accounts
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.producer import MANY, producing
from tallystream.streams.kafka.reader import latest, partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.poller.client import OpenAIClientConfig
from tallystream.streams.poller.config import PollerConfig
from tallystream.streams.poller.credentials import ApiKey, ApiKeys
from tallystream.streams.poller.poll_run import PollResult
from tallystream.streams.poller.resources import BUILTIN, builtin
from tallystream.streams.poller.service import Poller

_BILLING = builtin("billing.toml")
RESOURCES = tuple(one for one in builtin(*BUILTIN) if one.path == "/organization/costs" or one in _BILLING)
Key = tuple[str, str, str]
"""Provider, scope, day."""


@dataclass
class BillRig:
    """One deployment."""

    kafka: KafkaSettings
    topics: Topics
    sandbox: Sandbox
    clock: WallHandClock
    config: PollerConfig
    book: Book
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    async def poll(self) -> PollResult:
        """Poll everything once, as a poller that was just started does."""
        return await Poller(self.config, CollectorRegistry(), self.clock).once()

    def order(self, **fault: Any) -> None:
        self.sandbox.faults.add(Fault(**fault))

    async def see(self, rows: Iterable[tuple[bytes, bytes]]) -> None:
        """Write rows of `cost.session-hours`, as a worker does."""
        await ensure(self.kafka, (self.topics.session_hour_rows,))
        async with producing(self.kafka, MANY) as producer:
            for key, value in rows:
                await producer.send(self.topics.session_hour_rows.name, value, key=key)
            await producer.flush()

    async def map(self, link: AccountLink) -> None:
        await Accounts(self.kafka, self.topics).add(link)

    async def statements(self) -> dict[Key, dict[str, Any]]:
        """Run an agent until it has judged everything that is in the topics now, and return what readers hold."""
        registry = CollectorRegistry()
        self.registry = registry
        config = ReconciliationConfig(self.kafka, self.topics, self.book, pause=0.0)
        service = ReconciliationAgent(config, registry, self.clock)
        running = asyncio.ensure_future(service.run())
        try:
            sources = (self.topics.openai_records, self.topics.poller_control, self.topics.accounts,
                       self.topics.session_hour_rows)  # fmt: skip
            await ensure(self.kafka, (*sources, self.topics.reconciliation_days))
            async with opened(new_consumer(self.kafka)) as consumer:
                places = [
                    TopicPartition(one.name, p) for one in sources for p in await partitions_of(self.kafka, one.name)
                ]
                ends = sum((await consumer.end_offsets(places)).values())
            position = "tallystream_poller_reconciliation_position"
            await until(
                lambda: running.done() or (registry.get_sample_value(position) or 0) >= max(1, ends),
                "the agent has judged everything that is in the topics",
            )
            if running.done():
                running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        rows = [
            orjson.loads(value) for value in (await latest(self.kafka, self.topics.reconciliation_days.name)).values()
        ]
        return {(row["provider"], row["scope"], row["day"]): row for row in rows}


@asynccontextmanager
async def bill_rig(kafka: KafkaSettings, prefix: str, bill: Bill, book: Book, now: float) -> AsyncIterator[BillRig]:
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    clock = WallHandClock(now)
    sandbox = Sandbox(SandboxConfig(bill=bill), clock)
    await sandbox.start()
    client = OpenAIClientConfig(sandbox.url + "/openai/v1", timeout=ANSWER, attempts=3, first_wait=0.02)
    anthropic = replace(
        client, base_url=sandbox.url + "/anthropic/v1", name="Anthropic", auth="api_key", key_header="x-api-key",
        headers=ANTHROPIC_HEADERS,
    )  # fmt: skip
    topics = Topics(prefix, 2)
    config = PollerConfig(
        kafka=kafka,
        topics=topics,
        resources=RESOURCES,
        tokens=ApiKeys({"admin": ApiKey("sk-admin-sandbox"), "anthropic": ApiKey("sk-ant-admin-sandbox")}),
        client=client,
        anthropic=anthropic,
        session_timeout=10.0,
    )
    try:
        yield BillRig(kafka, topics, sandbox, clock, config, book)
        assert sandbox.violations() == []
    finally:
        await sandbox.stop()
