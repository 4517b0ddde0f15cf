"""How long a connection waits while another one floods the gateway: the ratio of its p99 with and without the flood.

    python -m benchmarks.neighbours [--repeats 5] [--seconds 4] [--quota 0 5] [--report docs/benchmarks.md]

One connection sends 50 requests a second. The flood sends over 32 keep-alive connections under an id of its own, each
with up to four unanswered requests, whatever the answers are. With a quota of requests a second most of them are 429.
The two take turns with quiet times in the same gateway process. What is measured of a request is the time until its
answer, and the CPU time that the gateway's event loop used meanwhile, for this request and for others. Only the ratios
are meant to be read, and on a busy machine only those of the CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from benchmarks.gateway import CLIENTS, Load, read_answer, requests_of
from benchmarks.report import machine, publish
from tests.support.gateway import INGEST_ID, GatewayProcess, connection, logs_path, percentile, write
from tests.support.open_kafka import OpenKafka
from tests.support.waiting import eventually

from tallystream.schemas.connections import Quota
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

FLOOD_ID = "Zq3vBenchIngestFlood01"
RATE = 50.0
AHEAD = 4
BODY = Load("protobuf, 24 records")
P99 = 0.99


@dataclass
class Turns:
    """The p99 of each turn in ms (time, CPU time), and what the flood was answered."""

    quiet: list[tuple[float, float]] = field(default_factory=list)
    flooded: list[tuple[float, float]] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def ratio(self, which: int) -> float:
        """Return the median over the turns of flooded to quiet."""
        return statistics.median(f[which] / q[which] for f, q in zip(self.flooded, self.quiet, strict=True))


def used_ns(pid: int) -> int:
    """Return the CPU time of a process's first thread, in which its event loop runs."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0])


async def watch(port: int, pid: int, requests: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """Send 50 requests a second and return the p99 of their times and of the gateway's CPU times, in ms."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found: list[tuple[float, float]] = []
    for number in range(int(seconds * RATE)):
        await asyncio.sleep(1 / RATE)
        began, used = time.perf_counter(), used_ns(pid)
        writer.write(requests[number % len(requests)])
        answer = await read_answer(reader)
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(answer.decode())
        found.append((1e3 * (time.perf_counter() - began), (used_ns(pid) - used) / 1e6))
    writer.close()
    await writer.wait_closed()
    times, cpu = zip(*found, strict=True)
    return percentile(list(times), P99), percentile(list(cpu), P99)


async def flood(port: int) -> None:
    """Send until stdin is closed, and print how often each status came."""
    answers: Counter[str] = Counter()
    requests = requests_of(BODY, logs_path(FLOOD_ID))

    async def client(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for turn in itertools.count(number):
            writer.write(requests[turn % len(requests)])
            if turn < number + AHEAD:
                continue
            answer = await read_answer(reader)
            answers[answer[9:12].decode()] += 1

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client(number)) for number in range(CLIENTS)]
        await asyncio.to_thread(sys.stdin.read)
        for one in clients:
            one.cancel()
    sys.stdout.write(" ".join(f"{status}={number}" for status, number in answers.items()))


@contextmanager
def flooding(port: int, turns: Turns) -> Iterator[None]:
    """Run the flood for the duration of the block."""
    argv = ["nice", "-n", "5", sys.executable, "-m", "benchmarks.neighbours", "--flood", str(port)]
    began = time.monotonic()
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        time.sleep(1.5)  # until it has started
        yield
    finally:
        told, _ = process.communicate()
        turns.seconds += time.monotonic() - began - 1
        turns.answers.update({part.split("=")[0]: int(part.split("=")[1]) for part in told.split()})


def measure(kafka: KafkaSettings, directory: Path, quota: int, repeats: int, seconds: float) -> Turns:
    """Measure with a quota for the flood, 0 for none."""
    prefix = f"bench{os.getpid()}q{quota}"
    flooder = connection("codex", FLOOD_ID, connection_id="codex-f100", quota=Quota(requests=quota))
    asyncio.run(write(kafka, Topics(prefix), connection(), flooder))
    process = GatewayProcess(kafka, prefix, directory / f"gateway-{quota}")
    process.start()
    turns = Turns()
    try:
        os.sched_setaffinity(process.pid, {0})
        eventually(process.ready, "the gateway is ready")
        requests = requests_of(BODY, logs_path(INGEST_ID))

        def p99() -> tuple[float, float]:
            return uvloop.run(watch(process.port, process.pid, requests, seconds))

        p99()
        for _ in range(repeats):
            turns.quiet.append(p99())
            with flooding(process.port, turns):
                turns.flooded.append(p99())
    finally:
        process.end()
    return turns


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quota", type=int, nargs="+", default=[0, 5])
    parser.add_argument("--report", type=Path)
    parser.add_argument("--flood", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.flood:
        uvloop.run(flood(args.flood))
        return
    lines = ["| quota of the flood | neighbour's p99 in CPU time, flooded : quiet | in time | answered to the flood |"]
    lines.append("|---|---|---|---|")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.sched_setaffinity(0, {1} if (os.cpu_count() or 1) > 1 else {0})
        kafka = stack.enter_context(OpenKafka(directory / "kafka")).settings
        for quota in args.quota:
            turns = measure(kafka, directory, quota, args.repeats, args.seconds)
            rates = ", ".join(f"{n / turns.seconds:,.0f}/s {status}" for status, n in sorted(turns.answers.items()))
            named = f"{quota} requests/s" if quota else "none"
            lines.append(f"| {named} | {turns.ratio(1):.1f} | {turns.ratio(0):.1f} | {rates} |")
            print(lines[-1], turns.quiet, turns.flooded, file=sys.stderr, flush=True)
    text = "\n".join(lines)
    note = f"{machine()}; median of {args.repeats} turns of {args.seconds:.0f} s each."
    publish(args.report, "neighbours", note, text)


if __name__ == "__main__":
    main()
