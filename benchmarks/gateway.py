"""What a request costs the gateway, beside the OpenTelemetry Collector on the same Kafka and the same bodies.

    python -m benchmarks.gateway [--collector PATH] [--compiled] [--repeats 5] [--seconds 3] [--report PATH]

Both answer when all in-sync replicas have the records. The Collector writes every record, the gateway the usage it
finds, after authentication, limits and attribution. For each kind of body and load the servers take turns, each in a
fresh process that has a CPU of its own; the load and Kafka share the other one. The figures are medians over the turns.
CPU time is the server process's own, from /proc, so it means something on a busy machine, where seconds do not.
Without --collector only the gateway is measured; with --compiled also its compiled form, in turn with the other.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop
from aiokafka.admin import NewTopic
from benchmarks.collector import PATH, TOPIC, VERSION, Collector
from benchmarks.normalise import bodies
from benchmarks.report import machine, publish
from tests.support.compiled import compiled_copy, paths
from tests.support.gateway import GatewayProcess, connection, logs_path, percentile, write
from tests.support.open_kafka import OpenKafka
from tests.support.waiting import eventually

from tallystream.schemas.otlp import Encoding
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
CLIENTS = 32
WARM_UP = 1.0


@dataclass(frozen=True)
class Load:
    """One kind of body and how fast it comes; `rate` is requests a second, None as fast as they are answered."""

    name: str
    encoding: Encoding = Encoding.PROTOBUF
    records: int = 24
    usage: int = 2
    packed: bool = False
    rate: float | None = None
    clients: int = CLIENTS


LOADS = (
    Load("protobuf, 24 records"),
    Load("gzip, 24 records", packed=True),
    Load("JSON, 24 records", Encoding.JSON),
    Load("protobuf, 512 records", records=512, usage=40, clients=8),
    Load("protobuf, 400 requests/s", rate=400.0),
)


@dataclass(frozen=True)
class Sample:
    """One turn of one server."""

    cpu_us: float
    """CPU microseconds a record."""
    requests: float
    """Requests a second."""
    p50_ms: float
    p99_ms: float
    rss_mib: float


@dataclass(frozen=True)
class Server:
    """A server that is ready."""

    pid: int
    port: int
    path: str


def cpu_of(pid: int) -> float:
    """Return the CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def rss_of(pid: int) -> float:
    """Return the memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


def peak_of(pid: int) -> float:
    """Return the highest memory of a process so far, in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def requests_of(load: Load, path: str) -> list[bytes]:
    """Return whole HTTP requests, ready to be written."""
    head = f"POST {path} HTTP/1.1\r\nHost: benchmark\r\nContent-Type: {load.encoding.value}\r\n"
    head += "Content-Encoding: gzip\r\n" if load.packed else ""
    made = bodies(load.encoding, load.records, load.usage)
    sent = [gzip.compress(body, 6) if load.packed else body for body in made]
    return [head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body) for body in sent]


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """Read one HTTP response to its end; return its head."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
    return head


async def drive(port: int, requests: Sequence[bytes], clients: int, seconds: float, rate: float | None) -> list[float]:
    """Send requests over `clients` connections, as fast as answers come or `rate` a second in all; return latencies."""
    latencies: list[float] = []
    started = time.perf_counter()
    end = started + seconds

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        due = started + number / (rate or 1)
        while (now := time.perf_counter()) < end:
            if rate is not None:
                if due > now:
                    await asyncio.sleep(due - now)
                due += clients / rate
            sent = time.perf_counter()
            writer.write(requests[turn % len(requests)])
            turn += 1
            answer = await read_answer(reader)
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            latencies.append(time.perf_counter() - sent)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*map(client, range(clients)))
    return latencies


def sample(server: Server, load: Load, seconds: float) -> Sample:
    """Warm a server up, and measure it."""
    requests = requests_of(load, server.path)
    uvloop.run(drive(server.port, requests, load.clients, WARM_UP, load.rate))
    before, started = cpu_of(server.pid), time.perf_counter()
    latencies = uvloop.run(drive(server.port, requests, load.clients, seconds, load.rate))
    passed = time.perf_counter() - started
    cpu = cpu_of(server.pid) - before
    p50, p99 = (1e3 * percentile(latencies, share) for share in (0.5, 0.99))
    per_record = 1e6 * cpu / (len(latencies) * load.records)
    return Sample(per_record, len(latencies) / passed, p50, p99, rss_of(server.pid))


@contextmanager
def gateway(kafka: KafkaSettings, prefix: str, directory: Path, **environment: str) -> Iterator[Server]:
    """Run our gateway in its default configuration, but for what `environment` sets."""
    process = GatewayProcess(kafka, prefix, directory / "gateway", **environment)
    process.start()
    try:
        os.sched_setaffinity(process.pid, {0})
        eventually(process.ready, "the gateway is ready")
        yield Server(process.pid, process.port, logs_path())
    finally:
        process.end()


@contextmanager
def collector(binary: Path, kafka: KafkaSettings, directory: Path) -> Iterator[Server]:
    """Run the Collector without a queue."""
    process = Collector(binary, kafka, directory)
    process.start()
    try:
        os.sched_setaffinity(process.pid, {0})
        yield Server(process.pid, process.port, PATH)
    finally:
        process.end()


async def prepare(kafka: KafkaSettings, prefix: str) -> None:
    """Create our topics with a connection, and the Collector's topic with the same partitions and settings: on one
    broker a topic of ours is flushed to disk with every batch, and what the Collector writes must be as durable.
    """
    topics = Topics(prefix)
    await write(kafka, topics, connection())
    settings = dict(topics.usage.creation(1))
    async with administering(kafka) as admin:
        await admin.create_topics([NewTopic(TOPIC, topics.usage.partitions, 1, topic_configs=settings)])


async def _connect(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await writer.wait_closed()


def median(samples: Sequence[Sample]) -> Sample:
    """Return the median of each figure."""
    columns = [
        statistics.median(column)
        for column in zip(*((s.cpu_us, s.requests, s.p50_ms, s.p99_ms, s.rss_mib) for s in samples), strict=True)
    ]
    return Sample(*columns)


def row(name: str, ours: Sample, theirs: Sample | None) -> str:
    """Return a row of the table: each figure of ours, and its ratio to the Collector's."""

    def cell(figure: str, digits: int) -> str:
        own = getattr(ours, figure)
        return f"{own:,.{digits}f}" + (f" ({own / getattr(theirs, figure):.2f}x)" if theirs else "")

    cells = (cell("cpu_us", 2), cell("requests", 0), cell("p50_ms", 2), cell("p99_ms", 1), cell("rss_mib", 0))
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--collector", type=Path)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--only", default="", help="measure loads whose name contains this")
    parser.add_argument("--report", type=Path)
    args = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        compiled = {"PYTHONPATH": paths(compiled_copy(directory / "compiled"))} if args.compiled else None
        os.sched_setaffinity(0, {1} if (os.cpu_count() or 1) > 1 else {0})
        kafka = stack.enter_context(OpenKafka(directory / "kafka")).settings
        prefix = f"bench{os.getpid()}"
        asyncio.run(prepare(kafka, prefix))
        found: dict[tuple[str, str], list[Sample]] = {}
        loads = [load for load in LOADS if args.only in load.name]
        for turn in range(args.repeats):
            for load in loads:
                with gateway(kafka, prefix, directory) as server:
                    found.setdefault((load.name, "ours"), []).append(sample(server, load, args.seconds))
                if compiled is not None:
                    with gateway(kafka, prefix, directory, **compiled) as server:
                        found.setdefault((load.name, "compiled"), []).append(sample(server, load, args.seconds))
                if args.collector:
                    with collector(args.collector, kafka, directory) as server:
                        found.setdefault((load.name, "theirs"), []).append(sample(server, load, args.seconds))
                for who in ("ours", "compiled", "theirs"):
                    if done := found.get((load.name, who)):
                        print(f"  {who}: {done[-1]}", file=sys.stderr)
                print(f"turn {turn + 1} of {args.repeats}: {load.name}", file=sys.stderr, flush=True)
    lines = ["| load | CPU us a record | requests/s | p50 ms | p99 ms | RSS MiB |", "|---|---|---|---|---|---|"]
    for load in loads:
        others = found.get((load.name, "theirs"))
        theirs = median(others) if others else None
        lines.append(row(load.name, median(found[load.name, "ours"]), theirs))
        if made := found.get((load.name, "compiled")):
            lines.append(row(f"{load.name}, compiled", median(made), theirs))
    text = "\n".join(lines)
    publish(args.report, "gateway", conditions(args.repeats, args.seconds), text)


def conditions(repeats: int, seconds: float) -> str:
    """Return a line that says when and where this was measured."""
    return (
        f"{machine()}; median of {repeats} turns of {seconds:.0f} s each."
        f" In brackets: our figure divided by the Collector's ({VERSION})."
    )


if __name__ == "__main__":
    main()
