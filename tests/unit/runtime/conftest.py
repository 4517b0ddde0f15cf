"""The counting fold on each host: a broker in memory, and a Faust table that has not been started."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.counting import Counts, CountsTable, Names, WorkerConfig, build, ended

from tallystream.streams.runtime import Engine
from tallystream.streams.runtime.memory import MemoryBroker, MemoryHost, MemoryWorker

PARTITIONS = 2


@dataclass
class Bench:
    """One worker of the counting fold on a broker in memory."""

    broker: MemoryBroker
    names: Names
    fold: Counts
    worker: MemoryWorker

    @property
    def host(self) -> MemoryHost:
        return self.worker.host

    @property
    def engine(self) -> Engine:
        return self.worker.engine


def counts(prefix: str = "unit") -> Counts:
    return Counts(WorkerConfig("", prefix, PARTITIONS, "", "", store="memory", lateness=500))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """Provide a worker without partitions."""
    broker, fold = MemoryBroker(), counts()
    for topic in (fold.names.source, fold.names.changelog, fold.names.rows, fold.names.sums):
        broker.create(topic, PARTITIONS)
    broker.create(fold.names.deadletters, 1)
    worker = MemoryWorker(MemoryHost(broker), fold, source=fold.names.source, changelog=fold.names.changelog)
    yield Bench(broker, fold.names, fold, worker)
    worker.crash()


@pytest.fixture
async def table(tmp_path: Path) -> AsyncIterator[CountsTable]:
    """Provide the counting table of an app that has not been started."""
    config = WorkerConfig("127.0.0.1:1", "unit", PARTITIONS, str(tmp_path), "", store="memory", lateness=500)
    app, made = build(config, exit=ended)
    yield made
    made.engine.revoke_all()
    assert not app.started
