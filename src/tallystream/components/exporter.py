"""The exporter as a component: built from the settings, run until told to stop."""

from __future__ import annotations

import asyncio
import signal

import structlog
import uvloop
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from tallystream.components import logs
from tallystream.exporter import Exporter, ExporterConfig
from tallystream.exporter.metrics import ExporterCollector
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service import locks
from tallystream.streams.service.ops import OpsServer

log = structlog.get_logger()


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int) -> None:
    """Run the exporter until SIGTERM or SIGINT.

    Raises:
        UsageError: the ops port is taken, or another exporter has the data directory.
        UnfitError: the counters' file is damaged, or a topic is not as it must be.

    """
    logs.configure()
    config = ExporterConfig(kafka, settings.topics(), settings.data_dir / "exporter", settings.lateness.total_seconds())
    lock = locks.held(
        config.directory / "lock",
        lambda pid: UsageError(
            f"an exporter runs in {config.directory} already (process {pid})", "one a deployment is enough"
        ),
    )
    with lock:
        uvloop.run(_serve(config, (settings.ops_host, ops_port)))


async def _serve(config: ExporterConfig, ops_at: tuple[str, int]) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    exporter = Exporter(config)
    registry.register(ExporterCollector(exporter.view))
    ops = OpsServer(exporter.healthy, exporter.ready, host=ops_at[0], port=ops_at[1], registry=registry)
    await ops.listen()
    log.info("started", ops=ops.url)
    running, told = asyncio.create_task(exporter.run()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((running, told), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        await cancel(running)
    finally:
        told.cancel()
        await ops.stop()
    log.info("stopped")
