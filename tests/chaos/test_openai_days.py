"""`openai.days` on real Kafka: agents are killed, stopped and resumed while days are restated, both topics are
compacted, and the records' topic is recreated. The days must equal the newest records.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from tests.support.compaction import holes, long_ago, tiny
from tests.support.topics import delete_topic
from tests.support.waiting import PATIENCE, until

from tallystream.schemas import exact
from tallystream.schemas.errors import TallystreamError
from tallystream.schemas.openai import BilledDay, OpenAIRecord, digest
from tallystream.streams.kafka.reader import TopicReader
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]
SRC = Path(__file__).resolve().parents[2] / "src"
FIRST = datetime(2026, 11, 1, tzinfo=UTC)
COSTS, COMPLETIONS = "/organization/costs", "/organization/usage/completions"
MODELS = ("gpt-5", "gpt-5-codex", "o4-mini")
RUN = """
import asyncio, sys
from tallystream.agents.openai_days import OpenAIDays
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
asyncio.run(OpenAIDays(KafkaSettings(sys.argv[1]), Topics(sys.argv[2], 1)).run())
"""
Said = dict[tuple[str, str | None, str | None], tuple[Any, Any]]
"""By day, model and project: dollars and counts."""


@dataclass
class World:
    """One deployment's two topics, and OpenAI's latest figures."""

    kafka: KafkaSettings
    topics: Topics
    producer: AIOKafkaProducer
    newest: dict[tuple[str, int], list[dict[str, Any]]] = field(default_factory=dict)
    polls: int = 0

    def __post_init__(self) -> None:
        self.times = long_ago()
        self._rng = random.Random(41)

    async def say(self, day: int) -> None:
        """Let a poll find new figures of a day; about a third of the earlier rows disappear."""
        self.polls += 1
        for resource in (COSTS, COMPLETIONS):
            rows = [self._row(resource, model, project) for model in MODELS for project in ("p", "q")
                    if self._rng.random() < 0.66]  # fmt: skip
            packed, decimals = exact.pack(rows)
            start = FIRST + timedelta(days=day)
            record = OpenAIRecord(
                resource=resource, query="a" * 16, params={"padding": "x" * 4000}, bucket=f"{start:%Y-%m-%d}",
                starts_at=start, ends_at=start + timedelta(days=1), polled_at=FIRST + timedelta(seconds=self.polls),
                digest=digest(rows), rows=packed, decimals=decimals,
            )  # fmt: skip
            await self.producer.send_and_wait(
                self.topics.openai_records.name, record.model_dump_json().encode(), key=record.key,
                timestamp_ms=next(self.times),
            )  # fmt: skip
            self.newest[resource, day] = rows

    def _row(self, resource: str, model: str, project: str) -> dict[str, Any]:
        if resource == COSTS:
            value = Decimal(self._rng.randrange(1, 10**9)).scaleb(-9)
            return {"amount": {"value": value, "currency": "usd"}, "line_item": f"{model}, input",
                    "project_id": project}  # fmt: skip
        return {"model": model, "project_id": project, "num_model_requests": self._rng.randrange(1, 99)}

    def expected(self) -> Said:
        found: dict[tuple[str, str | None, str | None], tuple[Any, Any]] = {}
        for (resource, day), rows in self.newest.items():
            name = f"{FIRST + timedelta(days=day):%Y-%m-%d}"
            for row in rows:
                model = row["line_item"].partition(",")[0] if resource == COSTS else row["model"]
                dollars, requests = found.get((name, model, row["project_id"]), (None, None))
                if resource == COSTS:
                    dollars = row["amount"]["value"]
                else:
                    requests = row["num_model_requests"]
                found[name, model, row["project_id"]] = dollars, requests
        return found

    async def rows(self) -> dict[bytes, BilledDay]:
        """The rows that readers keep."""
        found: dict[bytes, BilledDay] = {}
        async with TopicReader(self.kafka, self.topics.openai_days.name) as reader:
            async for batch in reader.batches():
                for message in batch.records:
                    if message.value is None:
                        found.pop(message.key, None)
                        continue
                    try:
                        row = BilledDay.model_validate_json(message.value)
                    except ValueError:  # poison
                        continue
                    if message.key not in found or row.version >= found[message.key].version:
                        found[message.key] = row
        return found

    async def wrong(self) -> dict[Any, Any]:
        """Return the differences between the rows that readers keep and the expected ones."""
        said: Said = {}
        for row in (await self.rows()).values():
            if row.billed or row.used:
                dollars = Decimal(row.billed[0].usd) if row.billed else None
                said[row.day, row.model, row.project_id] = (
                    dollars, row.used[0].counts["num_model_requests"] if row.used else None,
                )  # fmt: skip
        must = self.expected()
        return {name: (must.get(name), said.get(name)) for name in must.keys() | said.keys()
                if must.get(name) != said.get(name)}  # fmt: skip

    async def right(self, seconds: float = PATIENCE) -> None:
        last: dict[Any, Any] = {}

        async def check() -> bool:
            nonlocal last
            last = await self.wrong()
            return not last

        await until(check, lambda: f"{len(last)} rows differ: {list(last.items())[:3]}", seconds)


@asynccontextmanager
async def world(kafka: KafkaSettings, prefix: str) -> AsyncIterator[World]:
    topics = Topics(prefix, 1)
    await ensure(kafka, (topics.openai_records, topics.openai_days))
    producer = AIOKafkaProducer(**kafka.client(), enable_idempotence=True)
    await producer.start()
    try:
        yield World(kafka, topics, producer)
    finally:
        await producer.stop()


class Agent:
    """The agent in a separate process."""

    def __init__(self, here: World, log: Path) -> None:
        self.log = log
        self._argv = [sys.executable, "-c", RUN, here.kafka.bootstrap, here.topics.prefix]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self._argv, env=os.environ | {"PYTHONPATH": str(SRC)}, stdout=out, stderr=out
            )

    def end(self) -> None:
        self.process.kill()
        self.process.wait(60)


@contextmanager
def agents(here: World, directory: Path, number: int) -> Iterator[list[Agent]]:
    made = [Agent(here, directory / f"agent-{one}.log") for one in range(number)]
    try:
        yield made
    finally:
        for one in made:
            one.end()


async def test_days_equal_the_newest_records_despite_kills_pauses_and_compaction(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with world(kafka, prefix) as here:
        await tiny(kafka, here.topics.openai_records, here.topics.openai_days)
        with agents(here, tmp_path, 3) as (killed, stopped, steady):
            for day in range(6):
                await here.say(day)
            for topic in (here.topics.openai_records, here.topics.openai_days):
                for key in (b"x", b"\xff", b"a|b|2026-11-01", b"2026-11-01|gpt-5|p"):
                    for value in (b"{", b"null", b"\xff", b'{"day": "2026-11-01", "version": ["a", 0]}', None):
                        await here.producer.send_and_wait(topic.name, value, key=key, timestamp_ms=next(here.times))
            await here.right()

            stopped.process.send_signal(signal.SIGSTOP)
            for _ in range(20):
                await here.say(here.polls % 6)
            killed.process.kill()
            killed.process.wait(60)
            for _ in range(20):
                await here.say(here.polls % 6)
            await here.right()
            stopped.process.send_signal(signal.SIGCONT)
            killed.start()

            async def compacted() -> bool:
                await here.say(here.polls % 6)  # the last segment is never compacted
                topics = (here.topics.openai_records.name, here.topics.openai_days.name)
                return min([await holes(kafka, topic) for topic in topics]) > 0.5

            await until(compacted, "both topics are compacted")
            await here.right()
            (tmp_path / "later").mkdir()
            with agents(here, tmp_path / "later", 1) as (new,):
                assert not await here.wrong(), "one that reads nothing but holes and the newest changes nothing"
                await here.say(0)
                await here.right()
                assert new.process.poll() is None
            assert all(row.version[0] == 0 for row in (await here.rows()).values()), "holes are no topic made anew"
            for one in (stopped, killed, steady):
                assert one.process.poll() is None
                assert "Traceback" not in one.log.read_text()
            assert "reading_anew" not in steady.log.read_text()


async def test_recreated_topic_takes_precedence(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    """The new offsets are below the published versions, so without a new generation readers would ignore the rows."""
    async with world(kafka, prefix) as here:
        with agents(here, tmp_path, 2) as both:
            for _ in range(12):
                await here.say(here.polls % 3)
            await here.right()
            before = {key: row.version for key, row in (await here.rows()).items()}

            both[0].process.send_signal(signal.SIGSTOP)
            await made_anew(kafka, here)
            here.newest = {key: rows for key, rows in here.newest.items() if key[1] == 2}  # its row stays
            for day in (0, 1):
                await here.say(day)
            both[0].process.send_signal(signal.SIGCONT)
            await here.right()
            await here.say(0)
            await here.right()
            after = await here.rows()
            raised = [key for key, row in after.items() if row.version[0] == 1]
            assert raised
            assert all(after[key].version > version for key, version in before.items() if key in raised)
            assert {row.version[0] for row in after.values()} <= {0, 1}, "all agents came to the same"
            assert all(one.process.poll() is None for one in both)


async def made_anew(kafka: KafkaSettings, here: World) -> None:
    """Delete the records' topic and create it again."""
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        name = here.topics.openai_records.name
        await delete_topic(admin, name)
    finally:
        await admin.close()

    async def there() -> bool:
        try:
            await ensure(kafka, (here.topics.openai_records,), 5.0)
        except TallystreamError:  # it is still being deleted
            return False
        return True

    await until(there, "the topic is there again")
