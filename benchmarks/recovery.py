"""Recovery of a million session-hours from the changelog alone: the time, and the sizes.

    python -m benchmarks.recovery [--rows 1000000] [--compiled] [--report docs/chaos.md]

Writes a changelog as a worker would (rows of one model and three events each), then starts the product's worker on an
empty data dir, in a separate process, and waits until it folds all partitions.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import uvloop
from aiokafka import AIOKafkaProducer
from benchmarks.report import machine, publish
from prometheus_client import CollectorRegistry
from tests.support.compiled import compiled_copy, paths
from tests.support.open_kafka import OpenKafka

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost import hour_state, state_rows
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.agents.session_cost.parse import parse
from tallystream.components.worker import GC_THRESHOLD
from tallystream.schemas import keys
from tallystream.schemas.hours import hour_iso
from tallystream.streams.kafka.partitioning import partition_of
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime.changelog import POSITION, Position
from tallystream.streams.runtime.faust_backend import App, FoldTable, run

ROOT = Path(__file__).resolve().parents[1]
PARTITIONS = 12
TURNS = 5
SOURCE = 0
"""Offset up to which `usage` is counted; the topic is empty, and only the state is large."""


def state(rng: random.Random, session: str, hour: int) -> hour_state.State:
    """Return a session-hour of three requests."""
    events = [
        {
            "event_id": f"{rng.getrandbits(64):016x}", "occurred_at": hour * 3_600_000_000_000 + rng.randrange(10**12),
            "model": "gpt-5.1-codex", "input_uncached": rng.randrange(9000), "cache_read": rng.randrange(90_000),
            "output": rng.randrange(3000),
        }
        for _ in range(3)
    ]  # fmt: skip
    body: dict[str, Any] = {
        "connection_id": "codex-7f3a",
        "client": "codex",
        "provider": "openai",
        "session_id": session,
    }
    body |= {"attribution": {"team": "platform", "user": "u_0123456789abcdef"}, "events": events}
    batch = parse(keys.join("codex-7f3a", session), orjson.dumps(body))
    made = hour_state.State(batch.client, batch.provider)
    for event in batch.events:
        hour_state.apply(made, event, 12_345_678, "0.2.3-2cbbd406", batch.attribution, late=False)
    made.version = 0
    return made


async def fill(kafka: KafkaSettings, topics: Topics, rows: int) -> int:
    """Write the changelog; return the bytes of keys and values."""
    await ensure(kafka, topics.all())
    rng, hour = random.Random(2), int(time.time()) // 3600
    producer = AIOKafkaProducer(**kafka.client(), linger_ms=5, max_batch_size=900_000)
    await producer.start()
    topic, size = topics.session_hours_changelog.name, 0
    batches: dict[int, Any] = {}
    pending = []
    for number in range(rows):
        session = f"{rng.getrandbits(128):032x}"
        key = keys.join("codex-7f3a", session) + b"|" + hour_iso(hour - number % 100).encode()
        ((_, value),), _ = state_rows.dump(key, state(rng, session, hour - number % 100))
        assert value is not None
        p = partition_of(keys.join("codex-7f3a", session), topics.partitions)
        size += len(key) + len(value)
        batch = batches.setdefault(p, producer.create_batch())
        if batch.append(key=key, value=value, timestamp=None) is None:
            pending.append(await producer.send_batch(batch, topic, partition=p))
            batch = batches[p] = producer.create_batch()
            batch.append(key=key, value=value, timestamp=None)
    for p in range(topics.partitions):
        batch = batches.get(p) or producer.create_batch()
        pending.append(await producer.send_batch(batch, topic, partition=p))
        last = producer.create_batch()
        last.append(key=POSITION, value=Position(SOURCE).encode(), timestamp=None)
        pending.append(await producer.send_batch(last, topic, partition=p))
    await asyncio.gather(*pending)
    await producer.stop()
    return size


async def recover(bootstrap: str, directory: Path) -> None:
    """Run as the worker: print seconds, CPU seconds, rows and peak memory."""
    gc.set_threshold(*GC_THRESHOLD)
    gc.freeze()
    topics = Topics("bench", PARTITIONS)
    app = App(topics.worker_app, KafkaSettings(bootstrap), datadir=directory, partitions=PARTITIONS)
    fold = SessionCost(topics, Book(), hour_state.Window(7 * 86_400_000), FoldMetrics(CollectorRegistry()))
    engine = FoldTable(app, fold, source=topics.usage.name, partitions=PARTITIONS).engine
    began, cpu = time.monotonic(), time.process_time()
    stop = asyncio.Event()
    running = asyncio.create_task(run(app, stop))
    while len(engine.expected()) < PARTITIONS:  # noqa: ASYNC110 - the table has no event for it
        await asyncio.sleep(0.02)
    seconds, used = time.monotonic() - began, time.process_time() - cpu
    rows = sum(1 for p in range(PARTITIONS) for _ in engine.rows(p))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(orjson.dumps({"seconds": seconds, "cpu": used, "rows": rows, "peak_mb": peak}).decode(), flush=True)
    stop.set()
    await running


def tree(path: Path) -> int:
    """Return the size of a directory in MB."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file()) >> 20


def measured(bootstrap: str, store: Path, source: str) -> dict[str, Any]:
    """Run the worker on an empty store; `source` is the PYTHONPATH of another copy of the project, or empty."""
    argv = [sys.executable, "-m", "benchmarks.recovery", "--recover", bootstrap, str(store)]
    environment = os.environ | ({"PYTHONPATH": source} if source else {})
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT, env=environment)
    found: dict[str, Any] = orjson.loads(done.stdout.splitlines()[-1]) | {"store_mb": tree(store)}
    shutil.rmtree(store)
    return found


def table(runs: dict[str, list[dict[str, Any]]], size: int) -> str:
    """Return the medians, a column for each form."""

    def seconds(form: list[dict[str, Any]]) -> str:
        every = [run["seconds"] for run in form]
        return f"{median(form)['seconds']:.1f} s (fastest {min(every):.1f}, slowest {max(every):.1f})"

    lines: dict[str, Callable[[list[dict[str, Any]]], str]] = {
        "session-hours": lambda form: f"{median(form)['rows']:,}",
        "changelog, keys and values": lambda _: f"{size >> 20:,} MB",
        f"until all {PARTITIONS} partitions fold again": seconds,
        "CPU of the worker": lambda form: f"{median(form)['cpu']:.1f} s",
        "peak memory of the worker": lambda form: f"{median(form)['peak_mb']:,} MB",
        "store on disk": lambda form: f"{median(form)['store_mb']:,} MB",
    }
    head = [f"| | {' | '.join(runs)} |", f"|---|{'---:|' * len(runs)}"]
    return "\n".join(head + [f"| {what} | {' | '.join(map(show, runs.values()))} |" for what, show in lines.items()])


def median(form: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run in the middle."""
    return sorted(form, key=lambda run: run["seconds"])[len(form) // 2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--compiled", action="store_true", help="measure the compiled form, too")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--recover", nargs=2, metavar=("KAFKA", "DIR"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.recover:
        uvloop.run(recover(arguments.recover[0], Path(arguments.recover[1])))
        return
    with tempfile.TemporaryDirectory() as scratch, OpenKafka(Path(scratch) / "kafka") as broker:
        sources = {"": ""}
        if arguments.compiled:
            sources["compiled"] = paths(compiled_copy(Path(scratch) / "compiled"))
        topics = Topics("bench", PARTITIONS)
        began = time.monotonic()
        size = uvloop.run(fill(broker.settings, topics, arguments.rows))
        print(f"changelog of {arguments.rows:,} rows written in {time.monotonic() - began:.0f} s", flush=True)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in sources}
        for _ in range(TURNS):
            for name, source in sources.items():
                runs[name].append(measured(broker.bootstrap, Path(scratch) / "store", source))
                print(name, runs[name][-1], flush=True)
    note = (
        "## Recovery from the changelog alone\n\n"
        f"{machine()}, load average {os.getloadavg()[0]:.1f}; `python -m benchmarks.recovery`, median of {TURNS} runs,"
        " Kafka on the same machine."
    )
    publish(arguments.report, "recovery", note, table(runs, size))


if __name__ == "__main__":
    main()
