"""The worker service: runs the session-cost agent on the exact runtime."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from prometheus_client import CollectorRegistry, Info

from tallystream.agents.genai_calls.agent import GenaiCalls
from tallystream.agents.genai_calls.metrics import CallMetrics
from tallystream.agents.session_cost.agent import NAME, SessionCost
from tallystream.agents.session_cost.config import WorkerConfig
from tallystream.agents.session_cost.metrics import BOOK, FoldMetrics, RuntimeCollector
from tallystream.schemas.status import PartitionStatus, WorkerStatus
from tallystream.streams.identity import Identity, read_identity
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.runtime.faust_backend import App, FoldTable
from tallystream.streams.runtime.faust_backend import run as run_app
from tallystream.streams.runtime.standby import total
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.ops import Health
from tallystream.streams.set_aside import claim_directory

log = structlog.get_logger()
STORE = "v1"
"""Where Faust keeps the tables' stores, in the worker's directory."""
HEARTBEATS = 4
"""In a session timeout, at least."""
HEARTBEAT_MOST = 2.0
"""Seconds: workers learn of a rebalance from a heartbeat, and all wait for the last one that does."""
REBALANCE_TIMEOUT = 20.0


class Worker:
    """The work of one worker process: `run` until it is cancelled.

    Promise: any failure once it folds ends the process with code 70, before anything wrong is written.
    """

    def __init__(self, config: WorkerConfig, registry: CollectorRegistry, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._registry = registry
        self._app: App | None = None
        Info(*BOOK, registry=registry).info({"hash": config.book.hash})

    async def run(self) -> None:
        """Fold until cancelled; then what has been folded is acknowledged, and the group told, before this returns.

        Raises:
            UnreachableError: Kafka does not answer at the start.
            UnfitError: a topic has unsuitable settings.

        """
        config = self._config
        await ensure(config.kafka, config.topics.all())
        identity = await claim_store(config)
        self._app = build(config, self._registry, self._clock, identity.topic_ids)
        log.info("worker_started", instance=config.instance, book=config.book.hash)
        stop = asyncio.Event()
        working = asyncio.ensure_future(run_app(self._app, stop))
        try:
            await asyncio.shield(working)
        except asyncio.CancelledError:
            stop.set()
            await working
            raise

    def healthy(self) -> Health:
        """Return whether the worker makes progress."""
        return self._app.healthy() if self._app is not None else Health(True, "starting")

    def ready(self) -> Health:
        """Return whether all assigned partitions are being folded."""
        return self._app.ready() if self._app is not None and self._app.started else Health(False, "starting")

    def status(self) -> WorkerStatus | None:
        """Return its partitions and their progress; None before it has joined."""
        if self._app is None:
            return None
        progress = next(engine for engine in self._app.context.engines if engine.name == NAME).progress()
        return WorkerStatus(
            book=self._config.book.hash,
            rebalances=self._app.rebalances,
            recovering=progress.pending,
            partitions=[
                PartitionStatus(partition=p, expected=part.expected, applied=part.applied, end=part.end)
                for p, part in sorted(progress.partitions.items())
            ],
        )


async def claim_store(config: WorkerConfig) -> Identity:
    """Check that the local store was built from these topics of this cluster; otherwise set it aside.

    Raises:
        UnreachableError: Kafka does not answer.

    """
    topics = config.topics
    wanted = tuple(
        spec.name for spec in (topics.usage, topics.session_hours_changelog, topics.calls, topics.calls_changelog)
    )
    identity = await read_identity(config.kafka, topics.prefix, wanted)
    await asyncio.to_thread(claim_directory, config.directory / STORE, identity)
    return identity


def build(
    config: WorkerConfig,
    registry: CollectorRegistry,
    clock: Clock | None = None,
    topic_ids: Mapping[str, str] | None = None,
) -> App:
    """Return the app with its tables; call it in the running loop.

    `topic_ids` are those of `claim_store`, without which a worker cannot tell a loss from a topic created again.
    """
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
    fold = SessionCost(config.topics, config.book, config.window, FoldMetrics(registry), clock)
    calls = GenaiCalls(config.topics, config.calls, CallMetrics(registry))
    tables = [
        FoldTable(
            app,
            one,
            source=source.name,
            partitions=config.topics.partitions,
            topic_ids=topic_ids,
            accept_loss=config.accept_loss,
            standby=config.standby,
        )
        for one, source in ((calls, config.topics.calls), (fold, config.topics.usage))
    ]
    standbys = [table.standby for table in tables if table.standby is not None]
    registry.register(RuntimeCollector(tables[-1].engine, lambda: app.rebalances, lambda: total(standbys)))
    return app
