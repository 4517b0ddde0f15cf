"""The Port sink as a component: built from the settings, run until told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
import uvloop
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from tallystream.agents.port_sink import Sink, SinkConfig
from tallystream.agents.port_sink.mapping import Mapper, default_text
from tallystream.agents.port_sink.mapping.mapper import SESSION_HOUR
from tallystream.agents.port_sink.port.client import ClientConfig
from tallystream.components import logs
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service.locks import ProcessLock
from tallystream.streams.service.ops import OpsServer

log = structlog.get_logger()
PLACES = 16
"""Sinks that may run on one data dir, each with a local copy of its own."""


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int) -> None:
    """Run a sink until SIGTERM or SIGINT: it writes, or stands by while another one does.

    Raises:
        UsageError: there are no credentials, the mapping or the CA file cannot be used, or the ops port is taken.
        UnfitError: a topic exists that is not as it must be.

    """
    logs.configure()
    client, mapper = client_config(settings), read_mapper(settings)
    with _place(settings.data_dir / "sink") as directory:
        uvloop.run(_serve(settings, sink_config(settings, directory, client, mapper), kafka, ops_port))


def client_config(settings: Settings) -> ClientConfig:
    """Return how to reach Port.

    Raises:
        UsageError: there are no credentials, or the CA file cannot be used.

    """
    secret = settings.port_secret()
    if settings.port_client_id is None or secret is None:
        raise UsageError(
            "there are no credentials for Port",
            "set TALLYSTREAM_PORT_CLIENT_ID and TALLYSTREAM_PORT_CLIENT_SECRET (Port: ... > Credentials)",
        )
    proxy = settings.port_proxy
    config = ClientConfig(
        client_id=settings.port_client_id,
        client_secret=secret,
        base_url=settings.port_base_url,
        identifier=settings.port_identifier,
        proxy=proxy.get_secret_value() if proxy else None,
        ca=settings.port_ca,
        timeout=settings.port_timeout.total_seconds(),
    )
    config.ssl_context()
    return config


def read_mapper(settings: Settings) -> Mapper:
    """Return the mapping, compiled.

    Raises:
        UsageError: the file cannot be read, or is no mapping.

    """
    # A mapping of the user's own says by itself what is wanted.
    whole = settings.port_session_hours or settings.port_mapping is not None
    return Mapper(mapping_text(settings.port_mapping), without=() if whole else (SESSION_HOUR,))


def mapping_text(path: Path | None) -> str:
    """Return the text of a mapping file, of the default mapping when there is none.

    Raises:
        UsageError: the file cannot be read.

    """
    if path is None:
        return default_text()
    try:
        return path.read_text()
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise UsageError(f"the mapping file {path} cannot be read: {why}", "TALLYSTREAM_PORT_MAPPING names it") from exc


def sink_config(settings: Settings, directory: Path, client: ClientConfig, mapper: Mapper) -> SinkConfig:
    """Return the sink's configuration."""
    retention = settings.port_retention
    return SinkConfig(
        directory=directory,
        client=client,
        mapper=mapper,
        initialize=settings.port_initialize,
        resync=settings.port_resync.total_seconds(),
        samples=settings.data_dir / "samples" if settings.port_samples else None,
        retention=None if retention is None else retention.total_seconds(),
        session_timeout=settings.port_failover.total_seconds(),
    )


@contextmanager
def _place(parent: Path) -> Iterator[Path]:
    """Hold the first free directory below `parent`; the kernel lets go of it however the process ends."""
    for number in range(PLACES):
        directory = parent / str(number)
        directory.mkdir(parents=True, exist_ok=True)
        lock = ProcessLock(directory / "lock")
        if not lock.acquire():
            continue
        try:
            yield directory
        finally:
            lock.release()
        return
    raise UsageError(f"{PLACES} sinks run in {parent} already", "one writes and the others stand by: two are enough")


async def _serve(settings: Settings, config: SinkConfig, kafka: KafkaSettings, ops_port: int) -> None:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    for repair in config.mapper.repairs:
        log.warning("mapping_repaired", where=repair.where, was=repair.was, now=repair.now, why=repair.why)
    sink = Sink(kafka, settings.topics(), config, registry=registry)
    ops = OpsServer(sink.health, sink.ready, host=settings.ops_host, port=ops_port, registry=registry)
    await ops.listen()
    try:
        task = asyncio.ensure_future(sink.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
    finally:
        await ops.stop()
