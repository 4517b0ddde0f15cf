"""`tallystream wait --caught-up` on real Kafka must not succeed while anything is in progress."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.integration.cli.conftest import Cli
from tests.support.topics import produce
from tests.support.waiting import PATIENCE

from tallystream.cli.commands.catch_up import Places, catch_up
from tallystream.components.harness import reporter
from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.status import GatewayStatus, PollerStatus, ReadPosition
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.ops import Health, OpsServer

pytestmark = pytest.mark.kafka
SHORT = 5.0
"""Seconds to wait for what never comes: long enough to find out why, on a busy machine as well."""


async def commit(kafka: KafkaSettings, topics: Topics, offsets: dict[int, int]) -> None:
    consumer = AIOKafkaConsumer(**kafka.client(), group_id=topics.worker_app, enable_auto_commit=False)
    await consumer.start()
    try:
        found = {TopicPartition(topics.usage.name, partition): offset for partition, offset in offsets.items()}
        consumer.assign(list(found))
        await consumer.commit(found)
    finally:
        await consumer.stop()


async def usage(kafka: KafkaSettings, topics: Topics) -> None:
    """Three messages on partition 0, one on 1, none on 2."""
    await ensure(kafka, (topics.usage, topics.calls, topics.session_hour_rows))
    await produce(kafka, topics.usage.name, [(b"k", b"v", partition) for partition in (0, 0, 0, 1)])


@dataclass
class Held:
    """A gateway's status, which a test can change."""

    requests_in_progress: int = 0
    quarantine_requests: int = 0
    spool_messages: int = 0


class Shown:
    """A component of which only what its ops port shows matters."""

    async def run(self) -> None:
        """Do nothing."""

    def healthy(self) -> Health:
        return Health(True)

    def ready(self) -> Health:
        return Health(True)


class Gateway(Shown):
    """A gateway, represented by its ops port."""

    def __init__(self) -> None:
        self.held: Held | None = Held()

    def status(self) -> GatewayStatus | None:
        if self.held is None:
            return None
        return GatewayStatus(
            **asdict(self.held), quarantine_bytes=0, spool_bytes=0, spool_max_bytes=1, spool_oldest_age_seconds=0,
            kafka_live=True, connections=1,
        )  # fmt: skip


@asynccontextmanager
async def ops() -> AsyncIterator[tuple[str, Gateway]]:
    """A gateway's ops port."""
    gateway = Gateway()
    server = OpsServer(gateway.healthy, gateway.ready, status=reporter("gateway", gateway))
    await server.start()
    try:
        yield server.url, gateway
    finally:
        await server.stop()


class Watch:
    """Collects the messages about what is behind; `until` waits for a word in them."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._more = asyncio.Event()

    def note(self, what: str) -> None:
        self.said.append(what)
        self._more.set()

    async def until(self, word: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not any(word in one for one in self.said):
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def watch() -> Watch:
    return Watch()


async def test_wait_covers_everything_in_progress(kafka: KafkaSettings, topics: Topics, watch: Watch) -> None:
    await usage(kafka, topics)
    async with ops() as (url, gateway):
        held = gateway.held = Held(2, 2, 2)
        waiting = asyncio.create_task(
            catch_up(kafka, topics, lambda: Places({"gateway": url}), seconds=PATIENCE, show=watch.note)
        )
        await watch.until("2 requests being answered")
        held.requests_in_progress = 0
        await watch.until("2 requests in quarantine")
        held.quarantine_requests = 0
        await watch.until("2 messages in the spool")
        # A gateway that is busy again does not delay a wait that began before.
        held.requests_in_progress = 5
        held.spool_messages = 0
        await watch.until("4 messages on 2 partitions")
        await commit(kafka, topics, {0: 3})
        await watch.until("1 messages on 1 partitions")
        # Later messages are not waited for either.
        await produce(kafka, topics.usage.name, [(b"k", b"v", 2)])
        assert not waiting.done()
        await commit(kafka, topics, {1: 1})
        await waiting


async def test_wait_finds_a_gateway_that_restarted_on_another_port(
    kafka: KafkaSettings, topics: Topics, watch: Watch
) -> None:
    await ensure(kafka, (topics.usage, topics.calls, topics.session_hour_rows))
    urls = {"gateway": "http://127.0.0.1:9"}
    waiting = asyncio.create_task(
        catch_up(kafka, topics, lambda: Places(dict(urls)), seconds=PATIENCE, show=watch.note)
    )
    await watch.until("does not answer")
    urls.clear()
    await watch.until("is gone")
    assert not waiting.done()
    async with ops() as (url, _):
        urls["gateway"] = url
        await waiting


async def test_gateway_without_counts_yet_is_not_caught_up(kafka: KafkaSettings, topics: Topics) -> None:
    async with ops() as (url, gateway):
        gateway.held = None
        with pytest.raises(UnreachableError, match="does not report yet"):
            await catch_up(kafka, topics, lambda: Places({"gateway": url}), seconds=SHORT, show=lambda _: None)


async def test_gateway_without_status_is_not_caught_up(kafka: KafkaSettings, topics: Topics) -> None:
    server = OpsServer(lambda: Health(True), lambda: Health(True))
    await server.start()
    try:
        with pytest.raises(UnreachableError, match="does not report its status"):
            await catch_up(kafka, topics, lambda: Places({"gateway": server.url}), seconds=SHORT, show=lambda _: None)
    finally:
        await server.stop()


class Statements(Shown):
    """A poller as its ops port shows it: its days are complete, its statements may not be."""

    def __init__(self, reached: list[ReadPosition] | None) -> None:
        self.reached = reached

    def status(self) -> PollerStatus:
        return PollerStatus(active=True, days_offset=10**6, reconciled=self.reached)


async def test_wait_covers_the_statements_of_bills(kafka: KafkaSettings, topics: Topics, watch: Watch) -> None:
    await ensure(kafka, (topics.usage, topics.calls, topics.session_hour_rows, topics.accounts))
    await produce(kafka, topics.session_hour_rows.name, [(b"k", b"v", 0), (b"k", b"v", 0), (b"k", b"v", 1)])
    poller = Statements([ReadPosition(topic=topics.session_hour_rows.name, partition=0, offset=9)])
    server = OpsServer(lambda: Health(True), lambda: Health(True), status=reporter("poller", poller))
    await server.start()
    try:
        places = Places(pollers={"poller": server.url})
        waiting = asyncio.create_task(catch_up(kafka, topics, lambda: places, seconds=PATIENCE, show=watch.note))
        # What is read beyond the goal of one partition does not make up for another.
        await watch.until(f"1 records are not in {topics.reconciliation_days.name} yet")
        assert not waiting.done()
        poller.reached = [
            ReadPosition(topic=topics.session_hour_rows.name, partition=partition, offset=2 - partition)
            for partition in (0, 1)
        ]
        await waiting
        poller.reached = None  # an older release does not say it, and is not waited for
        await catch_up(kafka, topics, lambda: places, seconds=PATIENCE, show=watch.note)
    finally:
        await server.stop()


def test_wait_reports_what_is_behind_and_exits_with_3(cli: Cli, kafka: KafkaSettings, topics: Topics) -> None:
    said = cli("wait", "--caught-up", "--timeout", "0.5", "--json")
    assert said.code == 3
    asyncio.run(usage(kafka, topics))
    said = cli("wait", "--caught-up", "--timeout", f"{SHORT:g}", "--json")
    assert said.code == 3
    error = json.loads(said.err.splitlines()[-1])
    assert "4 messages on 2 partitions are not counted yet" in error["message"]
    asyncio.run(commit(kafka, topics, {0: 3, 1: 1}))
    said = cli("wait", "--caught-up", "--json")
    assert said.document["caught_up"] is True
    assert "No gateway is known here" in said.err


def test_position_past_the_end_is_not_caught_up(cli: Cli, kafka: KafkaSettings, topics: Topics) -> None:
    asyncio.run(usage(kafka, topics))
    asyncio.run(commit(kafka, topics, {0: 30, 1: 1}))
    said = cli("wait", "--caught-up", "--timeout", f"{SHORT:g}")
    assert said.code == 3
    assert "recreated" in said.err
