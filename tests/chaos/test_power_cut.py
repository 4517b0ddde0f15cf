"""A simulated power cut on one broker: with flushing everything that was acknowledged survives, without it the oracle
fails.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from tests.chaos.hand import World, world
from tests.chaos.mishaps import flushed_at_once
from tests.support.open_kafka import OpenKafka
from tests.support.power_cut import Unsynced
from tests.support.waiting import until

from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.kafka.lifecycle import opened

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(900)]
SESSIONS = [f"s{number}" for number in range(12)]


@asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[EmbeddedKafka]:
    """Provide a broker that does not flush by itself during a test."""
    broker = OpenKafka(folder, overrides={"log.flush.interval.ms": "600000"})
    await asyncio.to_thread(broker.start)
    try:
        yield broker
    finally:
        await asyncio.to_thread(broker.stop)


async def cut(here: World, broker: EmbeddedKafka, folder: Path, spared: frozenset[str]) -> None:
    """Let a worker count, then cut the power; `spared` topics happened to be flushed."""
    names = [spec.name for spec in here.topics.all()]
    flushed = await flushed_at_once(here.kafka, names)
    unsynced = Unsynced(folder / "log", flushed | spared)
    await here.send(*SESSIONS)
    worker = await here.worked()
    await worker.producer.stop()
    os.kill(broker.pid, signal.SIGKILL)
    await until(lambda: broker.poll() is not None, "the broker has ended")
    unsynced.cut(random.Random(1), whole=True)
    await asyncio.to_thread(broker.stop)
    await asyncio.to_thread(broker.start)
    await here.worked()
    await here.send("later")
    await here.worked()


@pytest.mark.parametrize("changelog", ["cut", "kept"])
async def test_product_is_exact_with_all_safeguards(tmp_path: Path, prefix: str, changelog: str) -> None:
    """Whether the changelog, which is not flushed immediately, was on the disk or not."""
    async with alone(tmp_path / "kafka") as broker:
        kafka = broker.settings
        async with world(kafka, prefix, tmp_path) as here:
            kept = frozenset({here.topics.session_hours_changelog.name} if changelog == "kept" else ())
            await cut(here, broker, tmp_path / "kafka", kept)
            assert await here.problems() == []
            assert len((await here.ledger()).hours) == len(SESSIONS) + 1


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        ("usage", r"rows: .* counts 1 requests, usage holds 0"),
        ("cost.session-hours", r"rows: .* is missing, 1 requests"),
        ("cost.hours", r"hours: .* is None, its sessions are"),
    ],
)
async def test_oracle_reports_errors_without_flushing(tmp_path: Path, prefix: str, topic: str, reason: str) -> None:
    async with alone(tmp_path / "kafka") as broker:
        kafka = broker.settings
        async with world(kafka, prefix, tmp_path) as here:
            name = f"{prefix}.{topic}"
            async with opened(AIOKafkaAdminClient(**kafka.client())) as admin:
                careless = {"flush.messages": "9223372036854775807"}
                await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=careless)])
            everything = frozenset(spec.name for spec in here.topics.all())
            gone = {name}
            if name == here.topics.usage.name:
                gone.add(here.topics.session_hours_changelog.name)  # otherwise the worker notices and exits
            await cut(here, broker, tmp_path / "kafka", everything - gone)
            problems = await here.problems()
            assert [one for one in problems if re.search(reason, one)], problems
