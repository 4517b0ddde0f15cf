"""Runs a component: signal handling, process metrics, the ops port, the lock on its directory.

SIGTERM and SIGINT end it; SIGUSR1 writes what its tasks wait for to the log.

logs.configure()                                      first, so that an invalid setting is logged
with owned(directory, "a worker"):                    if the component keeps state in a directory
run("worker", Worker, config, ops=(host, port))   until SIGTERM or SIGINT
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import structlog
import uvloop
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from tallystream import __version__
from tallystream.components.renamed_metrics import WithOldNames
from tallystream.components.task_stacks import log_tasks
from tallystream.schemas.errors import UnreachableError, UsageError
from tallystream.schemas.status import ComponentReport, Verdict
from tallystream.streams.kafka.lifecycle import started_clients
from tallystream.streams.kafka.task_watch import GRACE, watch_tasks
from tallystream.streams.service import locks
from tallystream.streams.service.clock import Clock, SystemClock
from tallystream.streams.service.component import Component
from tallystream.streams.service.ops import Health, OpsServer

log = structlog.get_logger()
Config = TypeVar("Config")
Factory = Callable[[Config, CollectorRegistry, Clock], Component]


def run(name: str, service: Factory[Config], config: Config, *, ops: tuple[str, int]) -> None:
    """Construct the component and run it until SIGTERM or SIGINT.

    `name` is its subcommand; `ops` the host and port of its ops server (port 0: any free one).

    Raises:
        UsageError: the ops port is taken.
        TallystreamError: the error that ended the component.

    """
    # What has been imported stays for ever. Without this, each full collection examines it again: 40 ms in a worker,
    # and Faust makes one for each table at every rebalance.
    gc.freeze()
    uvloop.run(serve(name, service, config, ops=ops))


async def serve(name: str, service: Factory[Config], config: Config, *, ops: tuple[str, int]) -> None:
    """Do the same as `run` in a running event loop of the main thread."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, log_tasks)
    registry = process_registry()
    component = service(config, registry, SystemClock())
    server = OpsServer(
        component.healthy,
        component.ready,
        host=ops[0],
        port=ops[1],
        registry=WithOldNames(registry),
        status=reporter(name, component),
    )
    await server.listen()
    log.info("component_started", component=name, ops=server.url)
    try:
        await until_told(component, stop)
    finally:
        await server.stop()
    log.info("component_stopped", component=name)


async def until_told(component: Component, stop: asyncio.Event) -> None:
    """Run the component until `stop` is set or it ends by itself. On a cancel it finishes the work in progress.

    Raises:
        UnreachableError: a Kafka client of the component has lost a task and was not reopened.
        TallystreamError: the error that ended the component.

    """
    running, told = asyncio.create_task(component.run()), asyncio.create_task(stop.wait())
    lost = asyncio.create_task(watch_tasks(started_clients, grace=GRACE))
    try:
        await asyncio.wait((running, told, lost), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
            await asyncio.wait((running,), timeout=GRACE if lost.done() else None)
        if lost.done():
            raise UnreachableError(f"a Kafka client has stopped working: {lost.result()}", "start it again")
        if not running.cancelled():
            running.result()
        elif not told.done():
            raise UnreachableError("the work was cancelled by a client library, not by us", "start it again")
    finally:
        told.cancel()
        lost.cancel()
        running.cancel()


def process_registry() -> CollectorRegistry:
    """Return a registry with the metrics of the process."""
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    return registry


def reporter(name: str, component: Component) -> Callable[[], ComponentReport]:
    """Return the content of `/status`."""
    started_at = datetime.now(UTC)

    def verdict(health: Health) -> Verdict:
        return Verdict(ok=health.ok, why=health.why)

    def report() -> ComponentReport:
        return ComponentReport(
            component=name,
            version=__version__,
            pid=os.getpid(),
            started_at=started_at,
            healthy=verdict(component.healthy()),
            ready=verdict(component.ready()),
            detail=component.status(),
        )

    return report


@contextmanager
def owned(directory: Path, what: str, hint: str) -> Iterator[None]:
    """Hold the directory's lock. The kernel releases it however the process ends.

    Raises:
        UsageError: `what` already runs in it; `hint` says what to do.

    """

    def refused(pid: int | None) -> UsageError:
        return UsageError(f"{what} already runs in {directory}" + (f" (process {pid})" if pid else ""), hint)

    with locks.held(directory / "lock", refused):
        yield


@contextmanager
def first_free(parent: Path, places: int, what: str, hint: str) -> Iterator[Path]:
    """Lock and yield the first of the directories `parent`/0, `parent`/1, ... that is not locked.

    Raises:
        UsageError: all `places` are locked; `what` names the lock holders, `hint` says what to do.

    """
    for number in range(places):
        directory = parent / str(number)
        directory.mkdir(parents=True, exist_ok=True)
        lock = locks.ProcessLock(directory / "lock")
        if not lock.acquire():
            continue
        try:
            yield directory
        finally:
            lock.release()
        return
    raise UsageError(f"{places} {what} already run in {parent}", hint)
