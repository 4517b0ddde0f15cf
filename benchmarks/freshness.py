"""How long an exported event takes to its row: from the request to the row that a consumer reads.

    python -m benchmarks.freshness [--seconds 10] [--report docs/benchmarks.md]

A gateway and a worker in their default configuration on one Kafka. Each request is Codex's, of a session of its own, so
that its row is recognised by its key; 500 requests a second have 2 or 20 usage events each. The worker's share of a
core is measured too, because on a busy machine the times say little.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from benchmarks.gateway import cpu_of, read_answer
from benchmarks.report import machine, publish
from tests.support.gateway import GatewayProcess, connection, logs_path, percentile, write
from tests.support.open_kafka import OpenKafka
from tests.support.otlp_bodies import Group, codex_noise, codex_response, encode
from tests.support.waiting import eventually
from tests.support.worker import worker

from tallystream.schemas.otlp import Encoding
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

REQUESTS = 500
"""A second."""
CLIENTS = 32
WARM_UP = 2.0
PATIENCE = 60.0
NOISE = 22
"""Records of a request that cost nothing."""
SESSION = "00000000-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Sample:
    """One rate: seconds from a request to its row, and the worker's share of a core."""

    events: int
    p50: float
    p99: float
    cores: float


def body(usage: int) -> bytes:
    """Return a request with so many usage events, of SESSION, now."""
    now = time.time_ns()
    records = list(itertools.islice(itertools.cycle(codex_noise(SESSION, at_ns=now)), NOISE))
    records += [codex_response(SESSION, at_ns=now + place) for place in range(usage)]
    return encode([Group(records, {"service.name": "codex_exec"})], Encoding.PROTOBUF)


class Exporter:
    """Sends a session in each request, at a rate, and remembers when."""

    def __init__(self, port: int, usage: int, first: int) -> None:
        self.sent: dict[bytes, float] = {}
        self._port = port
        made = body(usage)
        head = f"POST {logs_path()} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: {Encoding.PROTOBUF.value}\r\n"
        self._request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(made) + made
        self._numbers = itertools.count(first | usage << 40)

    async def run(self, seconds: float) -> None:
        """Send for so many seconds."""
        await asyncio.gather(*(self._client(number, time.monotonic(), seconds) for number in range(CLIENTS)))

    async def _client(self, number: int, began: float, seconds: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for turn in range(number, int(REQUESTS * seconds), CLIENTS):
            await asyncio.sleep(max(0.0, began + turn / REQUESTS - time.monotonic()))
            session = b"%b-%012x" % (SESSION[:23].encode(), next(self._numbers))
            self.sent[session] = time.monotonic()
            writer.write(self._request.replace(SESSION.encode(), session))
            answer = await read_answer(reader)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
        writer.close()
        await writer.wait_closed()


async def arrivals(consumer: AIOKafkaConsumer, exporter: Exporter, wanted: int) -> dict[bytes, float]:
    """Return when each session's row was read, once so many have been."""
    seen: dict[bytes, float] = {}
    while len(seen) < wanted:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            now = time.monotonic()
            for record in records:
                session = (record.key or b"").split(b"|")[1]
                if session in exporter.sent:
                    seen.setdefault(session, now)
    return seen


async def sample(
    kafka: KafkaSettings, topics: Topics, port: int, pid: int, usage: int, seconds: float, turn: int
) -> Sample:
    """Measure one rate."""
    consumer = AIOKafkaConsumer(**kafka.client(), fetch_max_wait_ms=20)
    await consumer.start()
    partitions = [TopicPartition(topics.session_hour_rows.name, p) for p in range(topics.partitions)]
    consumer.assign(partitions)
    await consumer.seek_to_end(*partitions)
    for partition in partitions:
        await consumer.position(partition)
    await Exporter(port, usage, first=turn << 33).run(WARM_UP)
    exporter = Exporter(port, usage, first=turn << 33 | 1 << 32)
    reading = asyncio.create_task(arrivals(consumer, exporter, int(REQUESTS * seconds)))
    cpu = cpu_of(pid)
    await exporter.run(seconds)
    async with asyncio.timeout(PATIENCE):
        seen = await reading
    cores = (cpu_of(pid) - cpu) / seconds
    await consumer.stop()
    waits = [seen[session] - sent for session, sent in exporter.sent.items()]
    return Sample(usage * REQUESTS, statistics.median(waits), percentile(waits, 0.99), cores)


def measure(kafka: KafkaSettings, folder: Path, seconds: float, repeats: int) -> list[Sample]:
    """Start both processes and measure both rates in turn; return the medians of each."""
    topics = Topics(f"bench{os.getpid()}")
    asyncio.run(write(kafka, topics, connection()))
    asyncio.run(ensure(kafka, topics.all()))
    gateway = GatewayProcess(kafka, topics.prefix, folder)
    with worker(kafka, topics, folder / "worker") as made:
        try:
            gateway.start()
            made.start()
            eventually(gateway.ready, "the gateway is ready")
            made.ready()
            assert made.process is not None
            pid = made.process.pid
            found: dict[int, list[Sample]] = {2: [], 20: []}
            for turn in range(repeats):
                for usage, samples in found.items():
                    samples.append(uvloop.run(sample(kafka, topics, gateway.port, pid, usage, seconds, turn)))
            return [median(samples) for samples in found.values()]
        finally:
            gateway.end()


def median(samples: list[Sample]) -> Sample:
    """Return the median of each figure."""
    p50, p99, cores = (
        statistics.median(column) for column in zip(*((s.p50, s.p99, s.cores) for s in samples), strict=True)
    )
    return Sample(samples[0].events, p50, p99, cores)


def main() -> None:
    """Measure, print a table, and write it into the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", help="HOST:PORT; by default one is started")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = KafkaSettings(given.kafka) if given.kafka else None
        kafka = broker or stack.enter_context(OpenKafka(folder / "kafka")).settings
        samples = measure(kafka, folder, given.seconds, given.repeats)
    lines = ["| events/s | p50 | p99 | worker's share of a core |", "|---:|---:|---:|---:|"]
    lines += [f"| {s.events:,} | {s.p50:.3f} s | {s.p99:.3f} s | {s.cores:.2f} |" for s in samples]
    text = "\n".join(lines)
    note = f"{machine()}, load average before the run {load:.1f}; median of {given.repeats} turns of"
    note += f" {given.seconds:.0f} s at each rate."
    publish(given.report, "freshness", note, text)


if __name__ == "__main__":
    main()
