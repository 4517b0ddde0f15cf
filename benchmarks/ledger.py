"""A million session-hours: how long the ledger takes to load them, and how long each view of `cost` takes.

    python -m benchmarks.ledger [--rows 1000000] [--hours-a-session 4] [--data-dir DIR] [--only VIEW]

Starts the embedded Kafka and the ledger as processes, writes the rows, waits, and runs the command line once for
each view, including the start of Python. `--data-dir` keeps everything, and a second run with it only measures.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import orjson
from tests.support.open_kafka import OpenKafka

from tallystream.schemas import keys
from tallystream.schemas.hours import hour_iso
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.streams.kafka.partitioning import partition_of
from tallystream.streams.kafka.producer import MANY, producing
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.process.tcp_ports import pick

MODELS = ("gpt-5.1-codex", "gpt-5.1", "gpt-5-mini", "claude-sonnet-4-5", "gemini-2.5-pro")
TEAMS = ("payments", "search", "data", "platform", None)
BY = (
    "team", "user", "repo", "branch", "env", "host", "cost_center", "agent", "billing", "account", "connection",
    "session", "client", "provider", "model", "service_tier", "book", "hour", "team,repo", "team,repo,user",
)  # fmt: skip
VIEWS = (
    ("sessions",), ("session-hours",), ("hours",), ("models",), ("sessions", "--wide"), ("session-hours", "--wide"),
    ("sessions", "--with-children"), ("sessions", "--since", "24h"), ("sessions", "--since", "10d"),
    ("sessions", "--connection", "codex-0003"), ("session-hours", "--since", "10d"), ("models", "--since", "10d"),
    ("models", "--by", "team,repo", "--since", "10d"), ("hours", "--by", "team"), ("hours", "--by", "repo"),
    ("session-hours", "--by", "user"), ("models", "--by", "team,repo"), *(("sessions", "--by", by) for by in BY),
    ("models", "--json"), ("hours", "--by", "team", "--json"), ("hours", "--json"), ("hours", "--csv"),
    ("sessions", "--json"), ("sessions", "--csv"), ("session-hours", "--json"), ("session-hours", "--csv"),
)  # fmt: skip


async def fill(kafka: KafkaSettings, topics: Topics, rows: int, hours: int) -> None:
    """Write the rows."""
    await ensure(kafka, topics.all())
    rng, now = random.Random(1), int(time.time()) // 3600
    topic = topics.session_hour_rows.name
    async with producing(kafka, MANY) as producer:
        for number in range(rows):
            session = number // hours
            rng.seed(session)
            first, model, team, repo = rng.randrange(720), rng.choice(MODELS), rng.choice(TEAMS), rng.randrange(40)
            connection, user = f"codex-{rng.randrange(16):04x}", f"u_{rng.randrange(500):016x}"
            hour = now - first - number % hours
            counts = {name: rng.randrange(100_000) for name in SUM_COUNTS} | {"unpriced_requests": 0, "late_events": 0}
            bucket = counts | {
                "cost_usd": f"0.{rng.randrange(10**9):012d}", "reported_cost_usd": None, "model": model,
                "service_tier": None, "speed": None, "book": "0.2.3-2cbbd406",
                "attribution": {"team": team, "repo": f"repo-{repo}", "user": user},
            }  # fmt: skip
            name = f"019a{session:012x}-{session * 2654435761 % 2**32:08x}"
            row = {
                "connection_id": connection, "client": "codex", "provider": "openai", "session_id": name,
                "hour": hour_iso(hour), "version": [0, number], "duplicates": 0, "buckets": [bucket],
            }  # fmt: skip
            key = keys.join(connection, name, hour_iso(hour))
            partition = partition_of(keys.join(connection, name), topics.partitions)
            await producer.send(topic, orjson.dumps(row), key=key, partition=partition)


def _used() -> float:
    """Return the CPU seconds of the commands that have ended; on a busy machine they say more than the time."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def _first(command: list[str], environment: dict[str, str]) -> float:
    """Run a command to its end; return the CPU seconds that it had used when it printed its first byte."""
    ticks = os.sysconf("SC_CLK_TCK")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        while process.stdout.read(1 << 20):
            pass
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return (int(fields[11]) + int(fields[12])) / ticks


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--hours-a-session", type=int, default=4)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", default="", help="only views whose words contain this")
    options = parser.parse_args()
    folder = options.data_dir or Path(tempfile.mkdtemp(prefix="tallystream-ledger-"))
    broker = OpenKafka(folder / "kafka")
    broker.start()
    kafka, topics, port = broker.settings, Topics(), pick()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")} | {"COLUMNS": "160"}
    if ledger_url := os.environ.get("TALLYSTREAM_LEDGER"):
        environment["TALLYSTREAM_LEDGER"] = ledger_url
    command = [sys.executable, "-m", "tallystream"]
    common = ["--kafka", kafka.bootstrap, "--data-dir", str(folder)]
    ledger = None
    try:
        if not (folder / "filled").exists():
            began = time.monotonic()
            asyncio.run(fill(kafka, topics, options.rows, options.hours_a_session))
            (folder / "filled").touch()
            print(f"{options.rows} rows written in {time.monotonic() - began:.1f} s", flush=True)
        began = time.monotonic()
        ledger = subprocess.Popen([*command, "ledger", *common, "--ops-port", str(port)], env=environment)
        while True:
            time.sleep(0.2)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                    break
            except OSError:
                assert ledger.poll() is None, "the ledger ended"
        print(f"the ledger holds them after {time.monotonic() - began:.1f} s", flush=True)
        for view in (one for one in VIEWS if options.only in " ".join(one)):
            for source in ((), ("--from-topics",)) if view == ("models",) else ((),):
                began, used = time.monotonic(), _used()
                first = _first([*command, "cost", *view, *source, *common], environment)
                took, cpu = time.monotonic() - began, _used() - used
                said = f"{took:.2f} s, {cpu:.2f} s of CPU, {first:.2f} s of it before the first byte"
                print(f"cost {' '.join((*view, *source))}: {said}", flush=True)
    finally:
        if ledger is not None:
            ledger.terminate()
            ledger.wait(30)
        broker.stop()


if __name__ == "__main__":
    main()
