"""What a second process adds: two gateways on one port, and two workers.

    python -m benchmarks.scaling [--repeats 5] [--seconds 6] [--events 3000000] [--report docs/benchmarks.md]

One and two processes take turns on the same Kafka. Nothing is pinned: Kafka, and for the gateway the load, use the same
CPUs, so on two of them two processes cannot reach twice the rate of one. The gateway gets bodies of 512 records, of
which decoding is most of the work. Workers fold messages that are in the topic already; what counts is the time between
three and eight tenths of them, when all workers have joined and none has run out of messages. How many are done is what
the workers count themselves: the offsets that they have committed move by thousands of messages at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import uvloop
from benchmarks.gateway import LOADS, WARM_UP, cpu_of, drive, prepare, requests_of
from benchmarks.report import machine, publish
from benchmarks.usage_messages import preload
from benchmarks.worker import remove
from tests.support.gateway import GatewayProcess, logs_path, percentile
from tests.support.open_kafka import OpenKafka
from tests.support.waiting import eventually
from tests.support.worker import Worker

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

PARTITIONS = 12
PACK = 5
COUNTS = (1, 2)
FROM, TO = 0.3, 0.8
"""Shares of the events between which the time is taken."""
PATIENCE = 600.0
_DONE = ("tallystream_worker_usage_events_total", "tallystream_worker_duplicate_events_total")
LOAD = replace(next(load for load in LOADS if load.records == 512), clients=32)


@contextmanager
def gateways(kafka: KafkaSettings, prefix: str, directory: Path, count: int) -> Iterator[list[GatewayProcess]]:
    """Run gateways that share a port."""
    made = [GatewayProcess(kafka, prefix, directory / f"gateway-{number}") for number in range(count)]
    try:
        for one in made:
            one.port = made[0].port
            one.options = ["--reuse-port"]
            one.start()
        for one in made:
            eventually(one.ready, "the gateway is ready")
        yield made
    finally:
        for one in made:
            one.end()


def receive(kafka: KafkaSettings, prefix: str, directory: Path, count: int, seconds: float) -> tuple[float, ...]:
    """Return records a second, CPU microseconds a record and the median latency (ms) of `count` gateways."""
    requests = requests_of(LOAD, logs_path())
    with gateways(kafka, prefix, directory, count) as running:
        uvloop.run(drive(running[0].port, requests, LOAD.clients, WARM_UP, None))
        before, began = sum(cpu_of(one.pid) for one in running), time.perf_counter()
        latencies = uvloop.run(drive(running[0].port, requests, LOAD.clients, seconds, None))
        passed = time.perf_counter() - began
        used = sum(cpu_of(one.pid) for one in running) - before
    records = len(latencies) * LOAD.records
    return records / passed, 1e6 * used / records, 1e3 * percentile(latencies, 0.5)


def fold(kafka: KafkaSettings, directory: Path, count: int, events: int) -> tuple[float, ...]:
    """Return events a second and CPU microseconds an event of `count` workers."""
    topics = Topics(f"b{uuid.uuid4().hex[:10]}", PARTITIONS)
    uvloop.run(preload(kafka, topics, events, PACK))
    made = [Worker(kafka, topics, directory / f"{topics.prefix}-{n}", f"w{n}") for n in range(count)]
    try:
        for one in made:
            one.start(TALLYSTREAM_WORKER_SESSION_TIMEOUT="PT60S")
        return _watched(made, events)
    finally:
        for one in made:
            if one.process is not None and one.process.poll() is None:
                one.kill()
        uvloop.run(remove(kafka, topics))


def _watched(workers: Sequence[Worker], events: int) -> tuple[float, ...]:
    marks = [_reached(workers, share * events) for share in (FROM, TO)]
    (began, used, first), (ended, total, last) = marks
    return (last - first) / (ended - began), 1e6 * (total - used) / (last - first)


def _reached(workers: Sequence[Worker], events: float) -> tuple[float, float, float]:
    """Wait until so many events have been folded; return the time, the CPU seconds so far, and how many they are."""
    mark = (0.0, 0.0, 0.0)

    def reached() -> bool:
        nonlocal mark
        done = sum(map(_done, workers))
        mark = time.perf_counter(), sum(cpu_of(one.process.pid) for one in workers if one.process), done
        return done >= events

    eventually(reached, f"{events:,.0f} events are folded", PATIENCE)
    return mark


def _done(worker: Worker) -> float:
    """Return how many events a worker has folded, copies included, with one question."""
    lines = (line.rpartition(" ") for line in worker.get("/metrics")[1].splitlines())
    return sum(float(value) for name, _, value in lines if name in _DONE)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--events", type=int, default=3_000_000)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    received: dict[int, list[tuple[float, ...]]] = {count: [] for count in COUNTS}
    folded: dict[int, list[tuple[float, ...]]] = {count: [] for count in COUNTS}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kafka = stack.enter_context(OpenKafka(directory / "kafka")).settings
        prefix = f"bench{os.getpid()}"
        asyncio.run(prepare(kafka, prefix))
        for turn in range(given.repeats):
            for count in COUNTS:
                received[count].append(receive(kafka, prefix, directory, count, given.seconds))
                folded[count].append(fold(kafka, directory, count, given.events))
                print(
                    f"turn {turn + 1}, {count}: {received[count][-1]} {folded[count][-1]}", file=sys.stderr, flush=True
                )
    lines = ["| | one | two | ratio |", "|---|---:|---:|---:|"]
    rows = (
        ("gateways: records/s", received, 0, ",.0f"),
        ("gateways: CPU us a record", received, 1, ".2f"),
        ("gateways: p50 ms", received, 2, ".1f"),
        ("workers: events/s", folded, 0, ",.0f"),
        ("workers: CPU us an event", folded, 1, ".1f"),
    )
    for name, found, place, form in rows:
        one, two = (statistics.median(run[place] for run in found[count]) for count in COUNTS)
        lines.append(f"| {name} | {one:{form}} | {two:{form}} | {two / one:.2f}x |")
    text = "\n".join(lines)
    note = (
        f"{machine()}; median of"
        f" {given.repeats} turns: gateways {given.seconds:.0f} s each, workers {given.events:,} events, {PACK} a"
        " message."
    )
    publish(given.report, "scaling", note, text)


if __name__ == "__main__":
    main()
