"""Starts a worker on an empty data dir to see what it recovers: `python -m tests.chaos.recover KAFKA PARTITIONS DIR`.

Prints one JSON document: the positions and, by key, the public row of each recovered state.
"""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from pathlib import Path

import orjson
import uvloop
from prometheus_client import CollectorRegistry
from tests.chaos.cluster import PREFIX

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost import state_rows
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime.faust_backend import App, FoldTable, run


async def main(bootstrap: str, partitions: int, directory: Path) -> None:
    topics = Topics(PREFIX, partitions)
    app = App(topics.worker_app, KafkaSettings(bootstrap), datadir=directory, partitions=partitions)
    fold = SessionCost(topics, Book(), Window(7 * 86_400_000), FoldMetrics(CollectorRegistry()))
    engine = FoldTable(app, fold, source=topics.usage.name, partitions=partitions).engine
    began = time.monotonic()
    stop = asyncio.Event()
    running = asyncio.create_task(run(app, stop))
    while len(engine.expected()) < partitions:  # noqa: ASYNC110 - the engine has no event for it
        await asyncio.sleep(0.05)
    seconds = time.monotonic() - began
    rows = {
        key.decode(): orjson.loads(state_rows.public_row(key, raw, partial(engine.store.read, p)))
        for p in range(partitions)
        for key, raw in engine.rows(p)
        if state_rows.is_head(key)
    }
    positions = {str(tp.partition): offset for tp, offset in engine.expected().items()}
    sys.stdout.buffer.write(orjson.dumps({"seconds": seconds, "positions": positions, "rows": rows}))
    sys.stdout.flush()
    stop.set()
    await running


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
