"""A deployment with a million live session-hours beside an empty one, on the same Kafka.

    python -m benchmarks.history [--rows 1000000] [--turns 5] [--report docs/benchmarks.md]

Writes a changelog as a worker would (`benchmarks.recovery`), starts `tallystream up` once with it and once without,
and then measures both turn by turn: the worker's CPU time for a message, its memory, the longest answer of /healthz
and /readyz, and how long after a SIGKILL of the worker new usage is in `cost.session-hours`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from benchmarks import recovery
from benchmarks.gateway import cpu_of, peak_of, rss_of
from benchmarks.report import machine, replace_section
from tests.support.open_kafka import OpenKafka

from tallystream.schemas import keys
from tallystream.streams.kafka.partitioning import partition_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.process.tcp_ports import pick

RATE, SECONDS = 300, 8
"""Messages a second and the length of a turn; a message has one event, as those of a single agent do."""


@dataclass
class Deployment:
    """`tallystream up` with a prefix of its own."""

    topics: Topics
    folder: Path
    kafka: KafkaSettings
    process: subprocess.Popen[bytes] | None = None
    slowest: dict[str, float] = field(default_factory=dict)
    answers: int = 0

    @property
    def _log(self) -> Path:
        return self.folder.with_suffix(".log")

    def start(self) -> None:
        """Start it, and return before it is ready."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")}
        environment |= {"TALLYSTREAM_PREFIX": self.topics.prefix, "TALLYSTREAM_USER_KEY": "benchmark"}
        argv = [sys.executable, "-m", "tallystream", "up", "--kafka", self.kafka.bootstrap]
        argv += ["--data-dir", str(self.folder), "--port", str(pick())]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)

    async def ready(self) -> None:
        """Wait until run.json names all components.

        Raises: RuntimeError: `up` ended.
        """
        while not (self.folder / "run.json").exists():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"`tallystream up` ended: {self._log.read_text()}")
            await asyncio.sleep(0.1)

    def worker(self) -> tuple[int, str]:
        """Return the worker's process id and the address of its ops port."""
        run = orjson.loads((self.folder / "run.json").read_bytes())
        (entry,) = [one for one in run["components"] if one["name"] == "worker"]
        return entry["pid"], entry["ops_url"]

    @property
    def pid(self) -> int:
        """Return the worker's process id."""
        return self.worker()[0]

    async def watch_health(self, url: str) -> None:
        """Ask /healthz and /readyz until cancelled; keep the longest time of an answer.

        A refused connection is a process that has not started to listen, and no answer.
        """
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            while True:
                for path in ("/healthz", "/readyz"):
                    began = time.monotonic()
                    with contextlib.suppress(aiohttp.ClientConnectionError):
                        async with session.get(url + path):
                            self.answers += 1
                        taken = time.monotonic() - began
                        self.slowest[path] = max(self.slowest.get(path, 0.0), taken)
                await asyncio.sleep(0.02)

    def stop(self) -> None:
        """Stop it and all that it started."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
            self.process.kill()


class Load:
    """Writes usage messages, and sees when their rows are there."""

    def __init__(self, kafka: KafkaSettings, topics: Topics) -> None:
        self._kafka, self._topics, self._rng = kafka, topics, random.Random(5)
        self._producer = AIOKafkaProducer(**kafka.client(), linger_ms=0)
        self._consumer = AIOKafkaConsumer(**kafka.client(), fetch_max_wait_ms=20)

    async def start(self) -> None:
        """Connect, and read rows from their present ends."""
        await self._producer.start()
        await self._consumer.start()
        row_topic = self._topics.session_hour_rows.name
        partitions = [TopicPartition(row_topic, p) for p in range(self._topics.partitions)]
        self._consumer.assign(partitions)
        await self._consumer.seek_to_end(*partitions)

    async def stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()
        await self._consumer.stop()

    async def _send(self, session: str) -> None:
        event = {
            "event_id": f"{self._rng.getrandbits(64):016x}", "occurred_at": time.time_ns(), "model": "gpt-5.1-codex",
            "input_uncached": self._rng.randrange(9000), "cache_read": self._rng.randrange(90_000),
            "cache_write_5m": 0, "cache_write_1h": 0, "output": 900, "reasoning": 0, "tool": 0,
        }  # fmt: skip
        head = {"connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": session}
        value = orjson.dumps({**head, "attribution": {"team": "platform"}, "events": [event]})
        key = keys.join("codex-7f3a", session)
        partition = partition_of(key, self._topics.partitions)
        await self._producer.send(self._topics.usage.name, value, key=key, partition=partition)

    async def at_rate(self, messages: int, rate: float) -> None:
        """Send `messages` of 500 sessions, `rate` a second, and wait until the last sessions' rows are there."""
        began = time.monotonic()
        for number in range(messages):
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            await self._send(f"load-{number % 500}")
        await self.to_row(f"after-{self._rng.getrandbits(64):x}")

    async def to_row(self, name: str) -> float:
        """Send one message for a new session in each partition; return the seconds until all have rows."""
        began, missing, number = time.monotonic(), dict[int, bytes](), 0
        while len(missing) < self._topics.partitions:
            session = f"{name}-{number}"
            key = keys.join("codex-7f3a", session)
            number += 1
            if (partition := partition_of(key, self._topics.partitions)) not in missing:
                missing[partition] = key
                await self._send(session)
        async with asyncio.timeout(300):
            while missing:
                for partition, records in (await self._consumer.getmany(timeout_ms=50)).items():
                    wanted = missing.get(partition.partition, b"-")
                    if any((one.key or b"").startswith(wanted) for one in records):
                        del missing[partition.partition]
        return time.monotonic() - began


async def turn(deployment: Deployment, load: Load) -> float:
    """Return the worker's CPU microseconds for a message."""
    before = cpu_of(deployment.pid)
    await load.at_rate(RATE * SECONDS, RATE)
    return (cpu_of(deployment.pid) - before) * 1e6 / (RATE * SECONDS)


async def killed(deployment: Deployment, load: Load) -> float:
    """Kill the worker; return the seconds until usage sent straight afterwards is in the rows."""
    pid, url = deployment.worker()
    os.kill(pid, signal.SIGKILL)
    watching = asyncio.create_task(deployment.watch_health(url))
    taken = await load.to_row(f"killed-{time.monotonic_ns()}")
    await asyncio.sleep(3)
    watching.cancel()
    while deployment.pid == pid:  # noqa: ASYNC110 - another process writes run.json
        await asyncio.sleep(0.05)
    return taken


async def measure(broker: OpenKafka, folder: Path, rows: int, turns: int) -> dict[str, dict[str, float]]:
    """Measure both deployments turn by turn."""
    full, empty = Topics("full", recovery.PARTITIONS), Topics("empty", recovery.PARTITIONS)
    began = time.monotonic()
    await recovery.fill(broker.settings, full, rows)
    print(f"changelog of {rows:,} session-hours written in {time.monotonic() - began:.0f} s", flush=True)
    sides = {name.prefix: Deployment(name, folder / name.prefix, broker.settings) for name in (empty, full)}
    loads = {name.prefix: Load(broker.settings, name) for name in (empty, full)}
    figures: dict[str, dict[str, float]] = {name: {} for name in sides}
    try:
        for name, side in sides.items():
            began = time.monotonic()
            side.start()
            await side.ready()
            await loads[name].start()
            figures[name]["first start"] = time.monotonic() - began
        costs: dict[str, list[float]] = {name: [] for name in sides}
        kills: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(turns + 1):
            for name, side in sides.items():
                cost = await turn(side, loads[name])
                if number:  # the first turn also pays for what is loaded once
                    costs[name].append(cost)
        for name, side in sides.items():
            figures[name]["RSS"] = rss_of(side.pid)
            figures[name]["peak"] = peak_of(side.pid)
        for _ in range(turns):
            for name, side in sides.items():
                kills[name].append(await killed(side, loads[name]))
        for name, side in sides.items():
            figures[name]["RSS after a kill"] = peak_of(side.pid)
            figures[name]["cost"] = statistics.median(costs[name])
            figures[name]["kill"] = statistics.median(kills[name])
            figures[name]["kill, slowest"] = max(kills[name])
            figures[name]["health"] = max(side.slowest.values())
            figures[name]["answers"] = side.answers
    finally:
        for name, side in sides.items():
            await loads[name].stop()
            side.stop()
    return figures


def table(figures: dict[str, dict[str, float]], rows: int, turns: int) -> str:
    """Return the page's section."""
    few, many = figures["empty"], figures["full"]

    def line(title: str, key: str, spec: str, unit: str) -> str:
        return f"| {title} | {few[key]:{spec}} {unit} | {many[key]:{spec}} {unit} |"

    setting = (
        f"{machine()}, load average"
        f" {os.getloadavg()[0]:.1f}; median of {turns} turns of {SECONDS} s with {RATE} messages a second."
    )
    lines = [
        setting,
        "",
        f"| | empty | {rows:,} live session-hours |",
        "|---|---:|---:|",
        line("worker's CPU time for a message of one event", "cost", ".0f", "us"),
        line("worker's memory under load", "RSS", ".0f", "MB"),
        line("its peak after a kill, recovery included", "RSS after a kill", ".0f", "MB"),
        line("from SIGKILL to the rows of usage sent afterwards", "kill", ".2f", "s"),
        line("the slowest of these", "kill, slowest", ".2f", "s"),
        line("longest answer of /healthz or /readyz while it starts", "health", ".2f", "s"),
        line("first start, with no local store", "first start", ".1f", "s"),
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, OpenKafka(Path(scratch) / "kafka") as broker:
        figures = uvloop.run(measure(broker, Path(scratch), options.rows, options.turns))
    print(orjson.dumps(figures).decode(), flush=True)
    text = table(figures, options.rows, options.turns)
    print(text)
    if options.report:
        replace_section(options.report, "history", text)


if __name__ == "__main__":
    main()
