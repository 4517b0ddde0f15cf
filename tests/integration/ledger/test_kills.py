"""A ledger on SQLite and on PostgreSQL that is killed repeatedly under load must finally equal the topics.

TALLYSTREAM_LEDGER_KILLS=50 makes the run longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from tests.integration.cli.conftest import Cli
from tests.support.ledger import LedgerProcess
from tests.support.ledger_rows import HOUR0, bucket, row
from tests.support.postgres import PostgresServer

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka
KILLS = int(os.environ.get("TALLYSTREAM_LEDGER_KILLS", "4"))
BURST = 300


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(
    request: pytest.FixtureRequest,
    kafka: KafkaSettings,
    topics: Topics,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[LedgerProcess]:
    url = None
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.new_database()
        monkeypatch.setenv("TALLYSTREAM_LEDGER", url)
    process = LedgerProcess(kafka, topics, tmp_path, url)
    yield process
    process.kill()


async def load(kafka: KafkaSettings, topics: Topics, stop: asyncio.Event, seed: int) -> int:
    """Write rows of a few sessions until stopped: newer versions, older ones of zombies, tombstones."""
    rng, version, written = random.Random(seed), 0, 0
    await ensure(kafka, (topics.session_hour_rows,))
    producer = AIOKafkaProducer(**kafka.client(), acks="all", enable_idempotence=True, linger_ms=5)
    await producer.start()
    try:
        while not stop.is_set():
            sent = []
            for _ in range(BURST):
                version += 1
                session = f"s{rng.randrange(200)}"
                shown = version if rng.random() > 0.1 else max(0, version - rng.randrange(3000))
                parts = [
                    bucket(
                        model, rng.randrange(10**14), requests=version,
                        attribution={"team": f"t{rng.randrange(3)}", "agent": f"a{rng.randrange(2)}"}
                        if rng.random() < 0.8
                        else {},
                    )
                    for model in rng.sample(["m1", "m2", "m3"], rng.randrange(1, 4))
                ]  # fmt: skip
                key, value = row(session, HOUR0 + rng.randrange(8), [0, shown], parts)
                gone = rng.random() < 0.02
                partition = sum(session.encode()) % topics.partitions
                sent.append(
                    await producer.send(
                        topics.session_hour_rows.name, None if gone else value, key=key, partition=partition
                    )
                )
            for one in sent:
                await one
            written += len(sent)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0.05)
    finally:
        await producer.stop()
    return written


async def kill_again_and_again(kafka: KafkaSettings, topics: Topics, ledger: LedgerProcess) -> int:
    stop, rng = asyncio.Event(), random.Random(7)
    writing = asyncio.create_task(load(kafka, topics, stop, 11))
    try:
        for _ in range(KILLS):
            ledger.start()
            await asyncio.to_thread(ledger.active)
            await asyncio.sleep(rng.uniform(0, 0.8))  # the moment of the kill varies
            await asyncio.to_thread(ledger.kill)
    finally:
        stop.set()
    return await writing


@pytest.mark.timeout(1200)
def test_ledger_equals_the_topics_after_kills(
    kafka: KafkaSettings,
    topics: Topics,
    ledger: LedgerProcess,
    cli: Cli,
) -> None:
    written = asyncio.run(kill_again_and_again(kafka, topics, ledger))
    assert written > BURST
    ledger.start()
    ledger.caught_up()
    for view in ("sessions", "session-hours", "hours", "models"):
        truth = cli("cost", view, "--json", "--from-topics").document
        found = cli("cost", view, "--json").document
        assert found["rows"] == truth["rows"], view
        assert truth["rows"]
    since = ("--since", "2026-06-21T02:00Z")
    for asked in (
        ("hours", "--by", "team", *since), ("models", *since), ("models", "--by", "agent,model", *since),
        ("sessions", "--by", "team,agent"),
    ):  # fmt: skip
        truth = cli("cost", *asked, "--json", "--from-topics").document["rows"]
        assert cli("cost", *asked, "--json").document["rows"] == truth, asked
