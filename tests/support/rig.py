"""Runs workers of `tests.support.counting` on real Kafka: topics, a producer that knows the truth, and an oracle."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, GroupLoadInProgressError
from tests.support.counting import ROW, Names, WorkerConfig
from tests.support.waiting import ANSWER, PATIENCE, until

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.runtime.changelog import reserved

ROOT = Path(__file__).resolve().parents[2]


class Logged(NamedTuple):
    """A record of a topic."""

    partition: int
    offset: int
    key: bytes
    value: bytes | None
    writer: str
    timestamp: int


@dataclass
class Worker:
    """One process. `n` numbers the workers of a rig; `log` is its output."""

    config: WorkerConfig
    process: subprocess.Popen[bytes]
    log: Path

    def status(self) -> dict[str, Any]:
        """Return its latest report; empty before the first."""
        try:
            document: dict[str, Any] = json.loads(Path(self.config.status).read_text())
        except FileNotFoundError:
            return {}
        return document

    @property
    def owned(self) -> int:
        """Return how many partitions it folds, 0 when it has ended."""
        return len(self.status().get("partitions", {})) if self.process.poll() is None else 0

    def resume(self) -> None:
        """SIGCONT; its earlier reports are dropped."""
        Path(self.config.status).unlink()
        self.process.send_signal(signal.SIGCONT)

    def said(self) -> str:
        return self.log.read_text()

    def signal(self, signum: int) -> None:
        self.process.send_signal(signum)

    def kill(self) -> None:
        """Send SIGKILL, which also ends a stopped process."""
        self.process.kill()
        self.process.wait(ANSWER)


class Seat:
    """Keeps one worker running like a supervisor: a worker that ends is restarted on the same data dir."""

    def __init__(self, start: Callable[[], Worker]) -> None:
        self._start = start
        self.worker = start()
        self.exits: list[int] = []

    @property
    def owned(self) -> int:
        return self.worker.owned

    def supervise(self) -> None:
        """Start the worker again when it has ended."""
        code = self.worker.process.poll()
        if code is not None:
            self.exits.append(code)
            self.worker = self._start()


@dataclass
class Rig:
    """Topics, truth and workers of one test."""

    kafka: KafkaSettings
    prefix: str
    dir: Path
    partitions: int = 2
    truth: dict[bytes, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0]))
    workers: list[Worker] = field(default_factory=list)
    sent: int = 0
    random: random.Random = field(default_factory=lambda: random.Random(1))

    @property
    def names(self) -> Names:
        return Names(self.prefix)

    async def create(self) -> None:
        await ensure(self.kafka, self.names.specs(self.partitions))

    @contextlib.asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        producer = AIOKafkaProducer(**self.kafka.client(), enable_idempotence=True, linger_ms=2)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def send(
        self, producer: AIOKafkaProducer, count: int, *, at: int | None = None, bucket: int = 0, keys: int = 40
    ) -> None:
        """Send `count` records over all partitions and add them to the truth once they are acknowledged."""
        waiting = []
        for _ in range(count):
            key = b"k%d|%d" % (self.random.randrange(keys), bucket)
            amount = self.random.randrange(1, 1000)
            p = int(key.split(b"|")[0][1:]) % self.partitions
            future = await producer.send(self.names.source, b"%s %d" % (key, amount), partition=p, timestamp_ms=at)
            waiting.append((future, key, amount))
        for future, key, amount in waiting:
            await future
            self.truth[key][0] += 1
            self.truth[key][1] += amount
            self.sent += 1

    @contextlib.asynccontextmanager
    async def load(self, rate: int = 400) -> AsyncIterator[None]:
        """Send `rate` records a second, in the background."""
        stop = asyncio.Event()

        async def sending() -> None:
            async with self.producer() as producer:
                started, done = time.monotonic(), 0
                while not stop.is_set():
                    due = int((time.monotonic() - started) * rate) - done
                    if due > 0:
                        await self.send(producer, due)
                        done += due
                    await asyncio.sleep(0.01)

        task = asyncio.create_task(sending())
        try:
            yield
        finally:
            stop.set()
            await task

    def start(self, data: str = "0", **changes: Any) -> Worker:
        """Start a worker on the data dir named `data`."""
        n = len(self.workers)
        config = WorkerConfig(
            bootstrap=self.kafka.bootstrap,
            prefix=self.prefix,
            partitions=self.partitions,
            datadir=str(self.dir / f"data-{data}"),
            status=str(self.dir / f"status-{n}.json"),
            writer=f"w{n}",
        )
        config = replace(config, **changes)
        log = self.dir / f"worker-{n}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.counting", config.encode()],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        worker = Worker(config, process, log)
        self.workers.append(worker)
        return worker

    @contextlib.asynccontextmanager
    async def seats(self, *names: str, static: bool = False, **changes: Any) -> AsyncIterator[list[Seat]]:
        """Keep a worker running for each name (its data dir and, when `static`, its member id)."""

        def start(name: str) -> Worker:
            return self.start(name, instance=name if static else None, **changes)

        kept = [Seat(partial(start, name)) for name in names]

        async def supervise() -> None:
            while True:
                for seat in kept:
                    seat.supervise()
                await asyncio.sleep(0.05)

        task = asyncio.create_task(supervise())
        try:
            yield kept
        finally:
            task.cancel()

    def end(self) -> None:
        """Kill the remaining workers."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.kill()

    async def folds(self, worker: Worker, more_than: int) -> None:
        """Wait until a worker has folded so many records."""
        await self.until(lambda: worker.status().get("folded", 0) > more_than, "it folds")

    async def exit_code(self, worker: Worker, seconds: float = PATIENCE) -> int:
        """Wait for a worker to end."""
        await until(lambda: worker.process.poll() is not None, "the worker ends", seconds)
        assert worker.process.returncode is not None
        return worker.process.returncode

    async def terminate(self, worker: Worker) -> int:
        worker.signal(signal.SIGTERM)
        return await self.exit_code(worker)

    async def until(self, check: Callable[[], Any], what: str, seconds: float = PATIENCE) -> None:
        """Wait for a condition; a failure shows the workers' output."""
        await until(
            check, lambda: what + "".join(f"\n--- {w.log.name}\n{w.said()[-2000:]}" for w in self.workers), seconds
        )

    async def owned(self, *workers: Worker | Seat, seconds: float = PATIENCE) -> None:
        """Wait until these workers own all partitions, each some."""

        def check() -> bool:
            return all(w.owned for w in workers) and sum(w.owned for w in workers) == self.partitions

        await self.until(check, f"{len(workers)} workers own all partitions", seconds)

    # -- the topics

    async def ends(self, topic: str) -> dict[int, int]:
        consumer = AIOKafkaConsumer(**self.kafka.client())
        await consumer.start()
        try:
            partitions = [
                TopicPartition(topic, p)
                for p in sorted(consumer.partitions_for_topic(topic) or await self._partitions(consumer, topic))
            ]
            return {tp.partition: end for tp, end in (await consumer.end_offsets(partitions)).items()}
        finally:
            await consumer.stop()

    async def _partitions(self, consumer: AIOKafkaConsumer, topic: str) -> set[int]:
        consumer.assign([TopicPartition(topic, 0)])
        await consumer.seek_to_beginning()
        return set(consumer.partitions_for_topic(topic) or {0})

    async def read(self, topic: str) -> list[Logged]:
        """Return all records of a topic, in offset order a partition."""
        consumer = AIOKafkaConsumer(**self.kafka.client(), auto_offset_reset="earliest")
        await consumer.start()
        try:
            ends = {TopicPartition(topic, p): end for p, end in (await self.ends(topic)).items()}
            consumer.assign(list(ends))
            await consumer.seek_to_beginning()
            found: list[Logged] = []
            left = {tp for tp, end in ends.items() if await consumer.position(tp) < end}
            while left:
                for tp, records in (await consumer.getmany(*left, timeout_ms=500)).items():
                    found.extend(
                        Logged(
                            tp.partition, r.offset, r.key, r.value,
                            dict(r.headers).get("writer", b"").decode(), r.timestamp,
                        )
                        for r in records
                    )  # fmt: skip
                left = {tp for tp in left if await consumer.position(tp) < ends[tp]}
            return sorted(found)
        finally:
            await consumer.stop()

    async def committed(self) -> dict[int, int]:
        """Return the group's committed offsets."""
        admin = AIOKafkaAdminClient(**self.kafka.client())
        await admin.start()
        try:
            try:
                offsets = await admin.list_consumer_group_offsets(self.names.group)
            except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
                return {}  # a broker that has just created its topic of offsets
            return {tp.partition: at.offset for tp, at in offsets.items() if at.offset >= 0}
        finally:
            await admin.close()

    async def caught_up(self, seconds: float = PATIENCE) -> None:
        """Wait until the committed positions are the ends of the source."""

        async def check() -> bool:
            return await self.committed() == {p: end for p, end in (await self.ends(self.names.source)).items() if end}

        await self.until(check, "all records are counted", seconds)

    # -- the oracle

    async def public_rows(self, topic: str | None = None, *, last: bool = False) -> dict[bytes, list[int]]:
        """Return (records, total) by key: the highest version of each row, or the `last`, as compaction leaves it."""
        best: dict[bytes, tuple[list[int], list[int]]] = {}
        for record in await self.read(topic or self.names.rows):
            assert record.value is not None
            row = json.loads(record.value)
            if last or record.key not in best or row["version"] >= best[record.key][0]:
                best[record.key] = (row["version"], [row["records"], row["total"]])
        return {key: numbers for key, (_, numbers) in best.items()}

    async def changelog_rows(self, *, last: bool = False) -> dict[bytes, list[int]]:
        """Return (records, total) by key from the changelog: by highest version, or what compaction would keep."""
        best: dict[bytes, tuple[int, int, int]] = {}
        for record in await self.read(self.names.changelog):
            if reserved(record.key):
                continue
            if record.value is None:
                best.pop(record.key, None)
                continue
            row = ROW.unpack_from(record.value)
            if last or record.key not in best or row[0] >= best[record.key][0]:
                best[record.key] = row
        return {key: [records, total] for key, (_, records, total) in best.items()}

    async def verify(self) -> None:
        """Check that all counts equal the truth, in every topic."""
        truth = dict(self.truth)
        assert await self.public_rows() == truth
        if any(worker.process.poll() is None for worker in self.workers):

            async def nothing_hidden() -> bool:
                return await self.public_rows(last=True) == truth

            await self.until(nothing_hidden, "the last row of each key is the newest")
        assert await self.changelog_rows() == truth
        assert await self.changelog_rows(last=True) == truth
        sums: dict[bytes, list[int]] = defaultdict(lambda: [0, 0])
        for key, numbers in (await self.public_rows(self.names.sums)).items():
            bucket = sums[key.split(b"|")[1]]
            bucket[0] += numbers[0]
            bucket[1] += numbers[1]
        expected: dict[bytes, list[int]] = defaultdict(lambda: [0, 0])
        for key, numbers in truth.items():
            bucket = expected[key.split(b"|")[1]]
            bucket[0] += numbers[0]
            bucket[1] += numbers[1]
        assert sums == expected
