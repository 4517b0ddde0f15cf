"""The sink as a process, the sandbox's Port, and the expected entities, computed independently."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from aiokafka import AIOKafkaProducer
from tests.support.waiting import ANSWER

from tallystream.sandbox import Sandbox, SandboxConfig
from tallystream.schemas import keys
from tallystream.streams.kafka.reader import TopicReader
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.process.tcp_ports import pick

SRC = Path(__file__).resolve().parents[2] / "src"
SESSION = "coding_agent_session"
COUNTS = (
    "requests", "input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool",
    "total_tokens", "unpriced_requests", "late_events",
)  # fmt: skip
WAITING = ("sweep_running", "backlog_documents", "backlog_entities", "repetitions_due")
"""Metrics of a sink that are 0 when Port has everything."""
Row = dict[str, Any]


@dataclass
class Rig:
    """Topics of one test, a producer to them, and a sandbox."""

    kafka: KafkaSettings
    topics: Topics
    sandbox: Sandbox
    producer: AIOKafkaProducer
    newest: dict[tuple[str, str, str], Row] = field(default_factory=dict)
    """The newest rows, by connection, session and hour."""

    async def rows(self, *rows: Row) -> None:
        """Append session-hour rows, each session's to one partition."""
        for row in rows:
            name = (row["connection_id"], row["session_id"], row["hour"])
            if name not in self.newest or row["version"] >= self.newest[name]["version"]:
                self.newest[name] = row
            partition = sum(row["session_id"].encode()) % self.topics.partitions
            await self.producer.send(
                self.topics.session_hour_rows.name, orjson.dumps(row), key=keys.join(*name), partition=partition
            )
        await self.producer.flush()

    async def append(self, topic: str, key: bytes, value: Any, partition: int = 0) -> None:
        """Append any record."""
        raw = value if isinstance(value, bytes) else orjson.dumps(value)
        await self.producer.send_and_wait(topic, raw, key=key, partition=partition)

    def entities(self, blueprint: str) -> dict[str, Row]:
        """Return Port's entities by identifier; empty while the blueprint does not exist."""
        if blueprint not in {one["identifier"] for one in self.sandbox.store.blueprints()}:
            return {}
        return {one["identifier"]: one for one in self.sandbox.store.entities(blueprint)}

    def wrong_sessions(self) -> dict[str, Any]:
        """Return the differences between Port's sessions and the expected ones."""
        return differences(self.expected_sessions(), self.entities(SESSION))

    def expected_sessions(self) -> dict[str, Row]:
        """Add the newest rows up, session by session."""
        found: dict[str, list[Row]] = {}
        for (connection, session, _), row in self.newest.items():
            found.setdefault(f"{connection}:{session}", []).append(row)
        return {name: expected_session(rows) for name, rows in found.items()}

    async def letters(self) -> list[Row]:
        """Return the dead letters."""
        found = []
        async with TopicReader(self.kafka, self.topics.deadletters.name) as reader:
            async for batch in reader.batches():
                found += [orjson.loads(record.value) for record in batch.records]
        return found


@asynccontextmanager
async def rig(kafka: KafkaSettings, prefix: str, partitions: int = 3, **config: Any) -> AsyncIterator[Rig]:
    """Give a rig."""
    topics = Topics(prefix, partitions)
    await ensure(kafka, topics.all())
    producer = AIOKafkaProducer(**kafka.client(), enable_idempotence=True, linger_ms=2)
    await producer.start()
    sandbox = Sandbox(SandboxConfig(**config))
    await sandbox.start()
    try:
        yield Rig(kafka, topics, sandbox, producer)
        assert not sandbox.violations()
    finally:
        await sandbox.stop()
        await producer.stop()


class SinkProcess:
    """`tallystream sink`; `environment` adds `TALLYSTREAM_*`."""

    def __init__(self, one: Rig, directory: Path, **environment: str) -> None:
        self.port = pick()
        self.log = directory / f"sink-{self.port}.log"
        self.argv = [sys.executable, "-m", "tallystream", "sink", "--ops-port", str(self.port)]
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("TALLYSTREAM_")} | {
            "PYTHONPATH": str(SRC),
            "TALLYSTREAM_KAFKA": one.kafka.bootstrap,
            "TALLYSTREAM_PREFIX": one.topics.prefix,
            "TALLYSTREAM_PARTITIONS": str(one.topics.partitions),
            "TALLYSTREAM_DATA_DIR": str(directory),
            "TALLYSTREAM_PORT_BASE_URL": f"{one.sandbox.url}/port",
            "TALLYSTREAM_PORT_CLIENT_ID": "client",
            "TALLYSTREAM_PORT_CLIENT_SECRET": "a-secret-of-ports",
            "TALLYSTREAM_PORT_FAILOVER": "PT3S",
            "TALLYSTREAM_PORT_TIMEOUT": "PT5S",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it without waiting."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(self.argv, env=self.environment, stdout=out, stderr=out)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(ANSWER)

    async def stop(self) -> int:
        """SIGTERM; return the exit code."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, ANSWER)

    async def page(self, path: str) -> str:
        """Return the ops port's answer, empty if there is none."""
        async with aiohttp.ClientSession() as session:
            try:
                async with session.get(
                    f"http://127.0.0.1:{self.port}{path}", timeout=aiohttp.ClientTimeout(ANSWER)
                ) as answer:
                    return await answer.text()
            except (aiohttp.ClientError, TimeoutError, OSError):
                return ""

    async def role(self) -> str:
        """Return the detail of its status."""
        assert self.process is not None
        assert self.process.poll() is None, f"the sink ended with {self.process.returncode}:\n{self.said()[-3000:]}"
        found = re.search(r'"why":"([^"]*)', await self.page("/readyz"))
        return found[1] if found else ""

    async def metric(self, name: str) -> float:
        """Return a metric, added up over its labels."""
        lines = (line.rpartition(" ") for line in (await self.page("/metrics")).splitlines())
        return sum(float(value) for head, _, value in lines if head.partition("{")[0] == name)

    async def idle(self) -> bool:
        """Tell whether it has compared everything with Port, and nothing is left to send; no without an answer."""
        found = {}
        for line in (await self.page("/metrics")).splitlines():
            head, _, value = line.rpartition(" ")
            found[head] = value
        waiting = [found.get(f"tallystream_sink_{name}") for name in WAITING]
        return set(waiting) == {"0.0"} and found.get("tallystream_sink_sweeps_total") not in (None, "0.0")

    def said(self) -> str:
        """Return its log."""
        return self.log.read_text() if self.log.exists() else ""


@contextmanager
def sink(one: Rig, directory: Path, **environment: str) -> Iterator[SinkProcess]:
    """Provide a started sink, and kill it at the end."""
    made = SinkProcess(one, directory, **environment)
    made.start()
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.process.kill()
            made.process.wait(ANSWER)


def make_row(rng: random.Random, session: str, hour: str, version: int, **changes: Any) -> Row:
    """Return a generated session-hour row."""
    buckets = []
    team = rng.choice(["platform", "search", None])
    for model in rng.sample(["gpt-5", "gpt-5-codex", "o4-mini"], rng.randint(1, 2)):
        counts = {name: rng.randrange(10_000) for name in COUNTS}
        counts["requests"] += 1
        priced = rng.random() < 0.9
        buckets.append(
            {
                **counts,
                "cost_usd": str(Decimal(rng.randrange(10**12)).scaleb(-10)) if priced else None,
                "reported_cost_usd": None,
                "model": model,
                "service_tier": None,
                "speed": None,
                "book": "book",
                "attribution": {"team": team, "repo": "acme/app"},
            }
        )
    return {
        "connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": session, "hour": hour,
        "version": [0, version], "duplicates": 0, "buckets": buckets, **changes,
    }  # fmt: skip


def expected_session(rows: list[Row]) -> Row:
    """Return a session's expected entity, from its newest rows."""
    rows = sorted(rows, key=lambda row: row["hour"])
    buckets = [bucket for row in rows for bucket in row["buckets"]]
    sums = {name: sum(bucket[name] for bucket in buckets) for name in COUNTS}
    costs = [Decimal(bucket["cost_usd"]) for bucket in buckets if bucket["cost_usd"] is not None]
    cost = sum(costs, Decimal(0)) if costs else None
    last = rows[-1]["buckets"]
    teams: dict[Any, int] = {}
    for bucket in last:
        teams[bucket["attribution"]["team"]] = teams.get(bucket["attribution"]["team"], 0) + bucket["requests"]
    return {
        "title": rows[0]["session_id"],
        "properties": {
            "session_id": rows[0]["session_id"], "client": "codex", "started_at": rows[0]["hour"],
            "last_hour_at": rows[-1]["hour"],
            "cost_usd": None if cost is None else float(cost),
            "cost_exact": None if cost is None else f"{cost.normalize():f}",
            "reported_cost_usd": None, "requests": sums["requests"], "unpriced_requests": sums["unpriced_requests"],
            "total_tokens": sums["total_tokens"], "input_tokens": sums["input_uncached"],
            "cache_read_tokens": sums["cache_read"],
            "cache_write_tokens": sums["cache_write_5m"] + sums["cache_write_1h"],
            "output_tokens": sums["output"], "reasoning_tokens": sums["reasoning"], "tool_tokens": sums["tool"],
            "model_names": sorted({bucket["model"] for bucket in buckets}),
            "user": None, "team_name": max(teams, key=lambda team: teams[team]), "repo": "acme/app", "branch": None,
            "env": None, "host": None, "cost_center": None, "agent": None, "billing": None,
        },
        "relations": {
            "connection": rows[0]["connection_id"], "models": sorted({bucket["model"] for bucket in buckets}),
        },
    }  # fmt: skip


def differences(expected: dict[str, Row], found: dict[str, Row]) -> dict[str, Any]:
    """Return the differences by identifier; numbers are compared as JavaScript's doubles."""
    wrong: dict[str, Any] = {
        name: "missing" if name not in found else "unexpected" for name in expected.keys() ^ found.keys()
    }
    for name in expected.keys() & found.keys():
        for part, value in expected[name].items():
            if plain(found[name][part]) != plain(value):
                wrong[name] = {part: (plain(value), plain(found[name][part]))}
    return wrong


def plain(value: Any) -> Any:
    """Return a value with Decimals as doubles."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value
