"""The cost of the session-cost fold, compared with plain aiokafka reading the same messages in the same run.

    python -m benchmarks.session_cost HOST:PORT [--events N] [--profile]

Thousand events per CPU-second of the process, at 1, 5 and 20 events a message: dedupe, prices, session-hour rows,
hours, changelog and RocksDB, all acknowledged. Figures depend on the machine: compare only within one run.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import pstats
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.config import WorkerConfig
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.service import build
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import InputRecord, Partition
from tallystream.streams.runtime.faust_backend import run

PARTITIONS = 12
SESSIONS = 2000
MODELS = ("gpt-5-codex", "gpt-5.4", "gpt-6.1-sol")


def messages(events: int, pack: int, seed: int = 1, now: datetime | None = None) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value; 2,000 sessions over three hours, 5% copies."""
    rng, now = random.Random(seed), now or datetime.now(UTC)
    past: list[dict[str, Any]] = []
    for _ in range(events // pack):
        n = rng.randrange(SESSIONS)
        at = int((now - timedelta(hours=rng.randrange(3))).timestamp()) * 10**9
        made = []
        for _ in range(pack):
            if past and rng.random() < 0.05:
                made.append(rng.choice(past))
                continue
            made.append(
                {
                    "event_id": f"{rng.getrandbits(64):016x}",
                    "occurred_at": at + rng.randrange(10**9),
                    "model": MODELS[n % 3],
                    "input_uncached": rng.randrange(9000),
                    "cache_read": rng.randrange(200_000),
                    "cache_write_5m": 0,
                    "cache_write_1h": 0,
                    "output": 900,
                    "reasoning": rng.randrange(900),
                    "tool": 0,
                }
            )
        past = made
        head = {"connection_id": f"codex-{n % 20:04x}", "client": "codex", "provider": "openai"}
        attribution = {"user": f"u_{n % 300:016x}", "team": f"team-{n % 10}", "repo": f"acme/app-{n % 40}"}
        yield (
            f"codex-{n % 20:04x}|s{n:06d}".encode(),
            orjson.dumps({**head, "session_id": f"s{n:06d}", "attribution": attribution, "events": made}),
        )


async def preload(kafka: KafkaSettings, topics: Topics, events: int, pack: int) -> int:
    """Write the messages; return how many."""
    await ensure(kafka, topics.all())
    producer = AIOKafkaProducer(**kafka.client(), linger_ms=20, max_batch_size=500_000)
    await producer.start()
    count = 0
    for key, value in messages(events, pack):
        await producer.send(topics.usage.name, value, key=key)
        count += 1
    await producer.stop()
    return count


async def bare(kafka: KafkaSettings, topics: Topics, count: int) -> float:
    """Read all messages; return CPU seconds."""
    consumer = AIOKafkaConsumer(**kafka.client(), fetch_max_wait_ms=20)
    await consumer.start()
    partitions = [TopicPartition(topics.usage.name, p) for p in range(PARTITIONS)]
    consumer.assign(partitions)
    await consumer.seek_to_beginning(*partitions)
    before, seen = time.process_time(), 0
    while seen < count:
        for records in (await consumer.getmany(timeout_ms=500)).values():
            seen += len(records)
    spent = time.process_time() - before
    await consumer.stop()
    return spent


async def folded(kafka: KafkaSettings, topics: Topics, count: int, directory: Path, profiling: bool) -> float:
    """Fold all messages; return CPU seconds from the first fold to the last acknowledgement."""
    config = WorkerConfig(kafka, topics, directory, Book(), Window(7 * 24 * 3_600_000), "bench", static=False)
    app = build(config, CollectorRegistry())
    (engine,) = app.context.engines
    begun: list[float] = []
    profile = cProfile.Profile()
    fold = SessionCost.fold

    def measured(self: SessionCost, partition: Partition, records: Sequence[InputRecord]) -> None:
        if not begun:
            begun.append(time.process_time())
            if profiling:
                profile.enable()
        fold(self, partition, records)

    SessionCost.fold = measured  # type: ignore[method-assign]  # to know when it begins
    stop = asyncio.Event()
    running = asyncio.create_task(run(app, stop))

    def done() -> bool:
        partitions = engine.progress().partitions.values()
        return engine.counters.folded >= count and all(one.applied == one.expected for one in partitions)

    while not done():  # noqa: ASYNC110 - the runtime has no event for it
        await asyncio.sleep(0.01)
    spent = time.process_time() - begun[0]
    profile.disable()
    stop.set()
    await running
    if profiling:
        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    counters = engine.counters
    print(f"groups={counters.groups} rows={counters.rows}", file=sys.stderr)
    return spent


def child(kind: str, kafka: KafkaSettings, prefix: str, count: int, profiling: bool) -> float:
    """Run one side in a separate process; return CPU seconds."""
    argv = [sys.executable, "-m", "benchmarks.session_cost", kafka.bootstrap, "--child", kind]
    argv += ["--prefix", prefix, "--count", str(count), *(["--profile"] if profiling else [])]
    done = subprocess.run(argv, check=True, stdout=subprocess.PIPE, text=True, timeout=300)
    return float(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print a line for each packing."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kafka")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--child")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--count", type=int, default=0)
    arguments = parser.parse_args()
    kafka = KafkaSettings(arguments.kafka)
    if arguments.child:
        topics = Topics(arguments.prefix, PARTITIONS)
        if arguments.child == "bare":
            print(uvloop.run(bare(kafka, topics, arguments.count)))
            return
        with tempfile.TemporaryDirectory() as directory:
            print(uvloop.run(folded(kafka, topics, arguments.count, Path(directory), arguments.profile)))
        return
    for pack in (1, 5, 20):
        events = arguments.events if pack > 1 else arguments.events // 2
        topics = Topics(f"b{uuid.uuid4().hex[:10]}", PARTITIONS)
        count = uvloop.run(preload(kafka, topics, events, pack))
        reading = child("bare", kafka, topics.prefix, count, profiling=False)
        folding = child("fold", kafka, topics.prefix, count, arguments.profile)
        print(
            f"{pack:2} a message: bare getmany {events / reading / 1000:6.0f}k events per CPU-second,"
            f" fold {events / folding / 1000:5.0f}k, ratio {reading / folding:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
