"""A Kafka client that cancels what the exporter waits for does not end the exporter."""

from __future__ import annotations

import asyncio
from pathlib import Path

from prometheus_client import CollectorRegistry

from tallystream.exporter.config import ExporterConfig
from tallystream.exporter.service import MetricsExporter
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


async def test_work_cancelled_by_a_client_library_is_done_again(tmp_path: Path) -> None:
    config = ExporterConfig(KafkaSettings("127.0.0.1:1"), Topics("t"), tmp_path, lateness=1.0, retry=0.001)
    exporter = MetricsExporter(config, CollectorRegistry())
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            waited = asyncio.get_running_loop().create_future()
            waited.cancel()
            await waited

    await asyncio.wait_for(exporter._again(work, once=True), 30)
    assert tries == 3


async def test_cancelled_exporter_does_not_begin_again(tmp_path: Path) -> None:
    config = ExporterConfig(KafkaSettings("127.0.0.1:1"), Topics("t"), tmp_path, lateness=1.0, retry=0.001)
    exporter = MetricsExporter(config, CollectorRegistry())
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(exporter._again(work))
    await begun.wait()
    task.cancel()
    await asyncio.wait((task,), timeout=30)
    assert task.cancelled()
