"""The worker as a component: the session-cost agent on the exact runtime, run until told to stop."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
import uvloop
from prometheus_client import CollectorRegistry, GCCollector, Info, PlatformCollector, ProcessCollector

from tallystream.agents.genai_calls.agent import CallConfig, GenaiCalls
from tallystream.agents.genai_calls.metrics import CallMetrics
from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics, RuntimeCollector
from tallystream.components import logs
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.kafka import topics as topic_admin
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime.faust_backend import App, FoldTable
from tallystream.streams.runtime.faust_backend import run as run_app
from tallystream.streams.service import locks
from tallystream.streams.service.ops import Health, OpsServer

HEARTBEATS = 4
"""In a session timeout, at least."""
HEARTBEAT_MOST = 2.0
"""Seconds: workers learn of a rebalance from a heartbeat, and all wait for the last one that does."""
BOOK = ("tallystream_book", "The price book requests are priced with.")
REBALANCE_TIMEOUT = 20.0
_INSTANCE = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True)
class WorkerConfig:
    """What a worker is made of. `directory` is its own: the local stores are there."""

    kafka: KafkaSettings
    topics: Topics
    directory: Path
    book: Book
    window: Window
    instance: str
    static: bool
    calls: CallConfig = field(default_factory=CallConfig)
    session_timeout: float = 6.0
    """Seconds without a heartbeat after which the group gives the worker's partitions away."""


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int, instance: str) -> None:
    """Run a worker until SIGTERM or SIGINT. `instance` is its name, stable over restarts and unlike any other's.

    Any failure once it runs ends the process with code 70, before anything wrong is written; start it again.

    Raises:
        UsageError: the prices, the instance name or the ops port are not usable, or the instance runs already.
        UnreachableError: Kafka does not answer.
        UnfitError: a topic is not as it must be.

    """
    logs.configure()
    for name in ("faust", "mode", "tallystream"):  # mode logs each service's steps, ours too, by their module names
        logging.getLogger(name).setLevel(logging.WARNING)
    if not _INSTANCE.fullmatch(instance) or set(instance) <= {"."}:
        raise UsageError(f"{instance!r} is no instance name", "use letters, digits, dots, dashes and underscores")
    config = WorkerConfig(
        kafka=kafka,
        topics=settings.topics(),
        directory=settings.data_dir / "workers" / instance,
        book=Book(read_overlay(settings.prices) if settings.prices else None),
        window=Window(int(settings.lateness.total_seconds() * 1000)),
        instance=instance,
        static=settings.worker_membership == "static",
        calls=CallConfig(
            hold_ms=int(settings.calls_hold.total_seconds() * 1000),
            lateness_ms=int(settings.lateness.total_seconds() * 1000),
        ),
        session_timeout=settings.worker_session_timeout.total_seconds(),
    )
    lock = locks.held(
        config.directory / "lock",
        lambda pid: UsageError(
            f"a worker runs in {config.directory} already (process {pid})",
            "give each worker an --instance name of its own",
        ),
    )
    with lock:
        uvloop.run(_serve(config, (settings.ops_host, ops_port)))


async def _serve(config: WorkerConfig, ops_at: tuple[str, int]) -> None:
    log = structlog.get_logger("worker")
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    Info(*BOOK, registry=registry).info({"hash": config.book.hash})
    app: App | None = None

    def healthy() -> Health:
        return app.healthy() if app is not None else Health(True, "starting")

    def ready() -> Health:
        return app.ready() if app is not None and app.started else Health(False, "starting")

    ops = OpsServer(healthy, ready, host=ops_at[0], port=ops_at[1], registry=registry)
    await ops.listen()
    try:
        if await _unless(stop, topic_admin.ensure(config.kafka, config.topics.all())):
            app = build(config, registry)
            log.info("started", instance=config.instance, book=config.book.hash, ops=ops.url)
            await run_app(app, stop)
        log.info("stopped", instance=config.instance)
    finally:
        await ops.stop()


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do the work unless told to stop before it is done; tell whether it was done."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if working.done():
        working.result()
        return True
    working.cancel()
    return False


def build(config: WorkerConfig, registry: CollectorRegistry) -> App:
    """Return the app with its tables; call it in the running loop."""
    app = App(
        config.topics.worker_app,
        config.kafka,
        datadir=config.directory,
        partitions=config.topics.partitions,
        instance=config.instance if config.static else None,
        session_timeout=config.session_timeout,
        heartbeat_interval=min(config.session_timeout / HEARTBEATS, HEARTBEAT_MOST),
        rebalance_timeout=max(REBALANCE_TIMEOUT, config.session_timeout),
    )
    partitions = config.topics.partitions
    calls = GenaiCalls(config.topics, config.calls, CallMetrics(registry))
    FoldTable(app, calls, source=config.topics.calls.name, partitions=partitions)
    fold = SessionCost(config.topics, config.book, config.window, FoldMetrics(registry))
    table = FoldTable(app, fold, source=config.topics.usage.name, partitions=partitions)
    registry.register(RuntimeCollector(table.engine, lambda: app.rebalances))
    return app
