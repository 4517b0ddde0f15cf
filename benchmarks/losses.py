"""What a 200 is worth: requests answered with 200 and missing in Kafka, of the gateway and of the Collector.

    python -m benchmarks.losses --collector PATH [--seconds 3] [--report docs/benchmarks.md]

Every request has a session of its own. In the middle of the load the server is killed with SIGKILL, in the second case
after Kafka was stopped for a while (SIGSTOP). Then Kafka goes on, the server is started again as it was, and once
nothing more arrives in the topic, the sessions in it are compared with those that were answered with 200. The Collector
runs once with its exporter's default queue and once without a queue, as in the comparison of speed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from benchmarks.collector import PATH, TOPIC, VERSION, Collector
from benchmarks.gateway import prepare, read_answer
from benchmarks.normalise import bodies
from benchmarks.report import machine, publish
from tests.support.gateway import GatewayProcess, logs_path
from tests.support.open_kafka import OpenKafka
from tests.support.waiting import eventually

from tallystream.schemas.otlp import Encoding
from tallystream.streams.kafka.reader import partitions_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

CLIENTS = 32
QUIET = 5.0
"""Seconds without a new record after which nothing more is expected."""
SESSION = re.compile(rb"01a1ffa0-40af-7151-9d80-[0-9a-f]{12}")


class Server(Protocol):
    """A server that can be killed and started again."""

    port: int
    path: str
    topic: str

    def start(self) -> None:
        """Start it and wait until it listens."""

    def kill(self) -> None:
        """Send SIGKILL."""


class Ours:
    """The gateway in its default configuration."""

    path = logs_path()

    def __init__(self, kafka: KafkaSettings, prefix: str, directory: Path) -> None:
        self._process = GatewayProcess(kafka, prefix, directory / "ours")
        self.port = self._process.port
        self.topic = Topics(prefix).usage.name

    def start(self) -> None:
        """Start it and wait until it listens."""
        self._process.start()
        eventually(self._process.ready, "the gateway is ready")

    def kill(self) -> None:
        """Send SIGKILL."""
        self._process.end()


class Theirs(Collector):
    """The Collector."""

    path = PATH
    topic = TOPIC

    def kill(self) -> None:
        """Send SIGKILL."""
        self.end(signal.SIGKILL)


@dataclass
class Answers:
    """Sessions by what their request was answered with."""

    accepted: set[bytes] = field(default_factory=set)
    refused: int = 0
    unanswered: int = 0


class Load:
    """Sends requests with new sessions over all connections until it is stopped."""

    def __init__(self, server: Server) -> None:
        self.answers = Answers()
        self.stopped = False
        self._server = server
        self._template = bodies(Encoding.PROTOBUF, 24, 2, 1)[0]
        self._number = int(time.time()) << 16

    def _request(self) -> tuple[bytes, bytes]:
        self._number += 1
        session = b"01a1ffa0-40af-7151-9d80-%012x" % self._number
        body = SESSION.sub(session, self._template)
        head = f"POST {self._server.path} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: {Encoding.PROTOBUF.value}\r\n"
        return session, head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    async def client(self) -> None:
        """Send one request after the other over one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        while not self.stopped:
            session, request = self._request()
            try:
                writer.write(request)
                answer = await read_answer(reader)
            except (OSError, asyncio.IncompleteReadError):
                self.answers.unanswered += 1
                break
            if answer.startswith(b"HTTP/1.1 200"):
                self.answers.accepted.add(session)
            else:
                self.answers.refused += 1
                await asyncio.sleep(0.02)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def offer(server: Server, seconds: float, away: Callable[[], None] | None) -> Answers:
    """Send for some seconds, take Kafka away in between if wanted, and kill the server while requests are in flight."""
    load = Load(server)
    clients = [asyncio.create_task(load.client()) for _ in range(CLIENTS)]
    await asyncio.sleep(seconds / 2)
    if away is not None:
        away()
    await asyncio.sleep(seconds / 2)
    server.kill()
    load.stopped = True
    await asyncio.gather(*clients)
    return load.answers


async def arrived(kafka: KafkaSettings, topic: str) -> set[bytes]:
    """Return the sessions in the topic, once nothing more arrives."""
    found: set[bytes] = set()
    async with AIOKafkaConsumer(**kafka.client(), auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(topic, number) for number in await partitions_of(kafka, topic)]
        consumer.assign(partitions)
        last = time.monotonic()
        while time.monotonic() - last < QUIET:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                last = time.monotonic()
                found.update(session for record in records for session in SESSION.findall(record.value or b""))
    return found


def measured(server: Server, broker: OpenKafka, seconds: float, *, away: bool) -> str:
    """Return a row of the table."""
    stop = (lambda: os.kill(broker.pid, signal.SIGSTOP)) if away else None
    server.start()
    try:
        answers = uvloop.run(offer(server, seconds, stop))
        if away:
            os.kill(broker.pid, signal.SIGCONT)
        server.start()
        found = uvloop.run(arrived(broker.settings, server.topic))
    finally:
        server.kill()
    lost = len(answers.accepted - found)
    cells = [len(answers.accepted), answers.refused, answers.unanswered, lost]
    return " | ".join(f"{cell:,}" for cell in cells)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collector", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    lines = ["| | answered 200 | refused | no answer | **200 and missing** |", "|---|---:|---:|---:|---:|"]
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = stack.enter_context(OpenKafka(directory / "kafka"))
        kafka, prefix = broker.settings, f"bench{os.getpid()}"
        asyncio.run(prepare(kafka, prefix))
        servers: dict[str, Server] = {
            "tallystream": Ours(kafka, prefix, directory),
            "Collector, default queue": Theirs(given.collector, kafka, directory, queue=True),
            "Collector, no queue": Theirs(given.collector, kafka, directory, queue=False),
        }
        for case, away in (("killed under load", False), ("Kafka stopped, then killed", True)):
            for name, server in servers.items():
                lines.append(f"| {name}: {case} | {measured(server, broker, given.seconds, away=away)} |")
                print(lines[-1], file=sys.stderr, flush=True)
    text = "\n".join(lines)
    publish(given.report, "losses", f"{machine()}; Collector {VERSION}, {CLIENTS} connections.", text)


if __name__ == "__main__":
    main()
