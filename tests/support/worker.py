"""The worker as a process, and its topics as a reader sees them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.support.waiting import ANSWER, PATIENCE, eventually, until

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.process.tcp_ports import pick

SRC = Path(__file__).resolve().parents[2] / "src"


class Worker:
    """`tallystream worker` in a data dir of its own; `environment` adds `TALLYSTREAM_*`."""

    def __init__(self, kafka: KafkaSettings, topics: Topics, data_dir: Path, instance: str = "w1") -> None:
        self.kafka = kafka
        self.topics = topics
        self.data_dir = data_dir
        self.instance = instance
        self.port = pick()
        self.log = data_dir / f"{instance}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **environment: str) -> None:
        """Start the process without waiting."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")}
        own = {"TALLYSTREAM_PREFIX": self.topics.prefix, "TALLYSTREAM_PARTITIONS": str(self.topics.partitions)}
        argv = ["worker", "--kafka", self.kafka.bootstrap, "--data-dir", str(self.data_dir)]
        argv += ["--instance", self.instance, "--ops-port", str(self.port)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tallystream", *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**kept, "PYTHONPATH": str(SRC), **own, **environment},
            )

    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def get(self, path: str) -> tuple[int, str]:
        """Return the ops port's answer; status 0 if there is none."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=ANSWER) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode()
        except OSError:
            return 0, ""

    def ready(self, seconds: float = PATIENCE) -> None:
        """Wait until all of its partitions are recovered."""
        process = self.process
        assert process is not None

        def owns_all() -> bool:
            assert process.poll() is None, f"the worker ended with {process.returncode}:\n{self.said()[-3000:]}"
            return (
                self.get("/readyz")[0] == 200 and self.metric("tallystream_worker_partitions") == self.topics.partitions
            )

        eventually(owns_all, "the worker owns all partitions", seconds)

    def metric(self, name: str) -> float:
        """Return a metric as /metrics shows it, labels included in its name; 0 when it is not there."""
        for line in self.get("/metrics")[1].splitlines():
            if line.rpartition(" ")[0] == name:
                return float(line.rpartition(" ")[2])
        return 0.0

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(ANSWER)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(ANSWER)


@contextlib.contextmanager
def worker(kafka: KafkaSettings, topics: Topics, data_dir: Path) -> Iterator[Worker]:
    """Provide a worker that is not started yet, and kill it at the end."""
    made = Worker(kafka, topics, data_dir)
    try:
        yield made
    finally:
        if made.process is not None and made.process.poll() is None:
            made.kill()


@contextlib.asynccontextmanager
async def producing(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    """Give a producer."""
    producer = AIOKafkaProducer(**kafka.client(), enable_idempotence=True, linger_ms=2)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def read(kafka: KafkaSettings, topic: str) -> list[Any]:
    """Return the records of a topic up to its end as it is now."""
    consumer = AIOKafkaConsumer(**kafka.client(), group_id=None, enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic) or ())]
        if not partitions:  # the client does not know the topic yet
            await consumer._client.force_metadata_update()
            consumer.subscribe([topic])
            partitions = [TopicPartition(topic, p) for p in sorted(await _partitions(consumer, topic))]
            consumer.unsubscribe()
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        ends = await consumer.end_offsets(partitions)
        left = {tp for tp in partitions if ends[tp] > 0}
        found = []
        while left:
            for records in (await consumer.getmany(*left, timeout_ms=200)).values():
                found += records
            left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
        return found
    finally:
        await consumer.stop()


async def _partitions(consumer: AIOKafkaConsumer, topic: str) -> set[int]:
    async def known() -> set[int] | None:
        await consumer.topics()
        found: set[int] | None = consumer.partitions_for_topic(topic)
        return found

    return set(await until(known, f"there is a topic {topic}"))


async def newest(kafka: KafkaSettings, topic: str) -> dict[bytes, dict[str, Any]]:
    """Return the rows of a topic by key, as readers must take them: the highest version, of equal ones the later."""
    rows: dict[bytes, dict[str, Any]] = {}
    for record in await read(kafka, topic):
        row = orjson.loads(record.value)
        if record.key not in rows or rows[record.key]["version"] <= row["version"]:
            rows[record.key] = row
    return rows


def shown(value: object) -> str:
    """Return a value for the message of an assertion."""
    return json.dumps(value, indent=1, default=str)[:4000]
