"""Builds the Port sink from the settings and runs it until it is told to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from contextlib import AbstractContextManager
from pathlib import Path

import structlog
import uvloop
from prometheus_client import CollectorRegistry

from tallystream.agents.port_sink import Sink, SinkConfig, SinkResult
from tallystream.agents.port_sink.mapping import Mapper, MappingSource, default_text
from tallystream.agents.port_sink.mapping.mapper import SESSION_HOUR
from tallystream.agents.port_sink.port.client import PortClientConfig
from tallystream.components import harness, logs
from tallystream.schemas.errors import UsageError
from tallystream.settings.ocean_ignored import ignored_settings
from tallystream.settings.places import named_files
from tallystream.settings.settings import Settings
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service.http import environment_proxy

log = structlog.get_logger()
PLACES = 16
"""At most this many sinks may run on one data dir; each has its own local copy."""


def run(settings: Settings, kafka: KafkaSettings, *, ops_port: int) -> None:
    """Run a sink until SIGTERM or SIGINT: it writes, or stands by while another one does.

    Raises:
        UsageError: credentials are missing, the mapping or the CA file cannot be used, or the ops port is taken.
        UnfitError: an existing topic has the wrong settings.

    """
    logs.configure()
    client, mapper = client_config(settings), read_mapper(settings)
    _warn(mapper)
    with _own_directory(settings) as directory:
        config = sink_config(settings, kafka, directory, client, mapper)
        harness.run("sink", Sink, config, ops=(settings.ops_host, ops_port))


def run_once(settings: Settings, kafka: KafkaSettings) -> SinkResult | None:
    """Write everything to Port and return the result, or None when told to stop.

    Raises:
        UnreachableError: another sink is the active one, or Kafka does not answer.
        PortError: Port does not answer, or refuses our credentials or blueprints.
        UsageError, UnfitError: as for `run`.

    """
    logs.configure()
    client, mapper = client_config(settings), read_mapper(settings)
    _warn(mapper)
    with _own_directory(settings) as directory:
        sink = Sink(sink_config(settings, kafka, directory, client, mapper), CollectorRegistry())
        return uvloop.run(_until_told(sink.once()))


def _warn(mapper: Mapper) -> None:
    """Log what of the mapping was corrected, what of it works differently here, and settings without effect."""
    for repair in mapper.repairs:
        log.warning("mapping_repaired", where=repair.where, was=repair.was, now=repair.now, why=repair.why)
    for note in mapper.notes:
        log.warning("mapping_differs", why=note)
    for ignored in ignored_settings():
        log.warning("setting_ignored", name=ignored.name, hint=ignored.hint)


def _own_directory(settings: Settings) -> AbstractContextManager[Path]:
    hint = "stop one of them: one writes and the others stand by, so two are enough"
    return harness.first_free(settings.data_dir / "sink", PLACES, "sinks", hint)


async def _until_told(work: Coroutine[None, None, SinkResult]) -> SinkResult | None:
    task = asyncio.ensure_future(work)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.wait([task])
    return None if task.cancelled() else task.result()


def client_config(settings: Settings) -> PortClientConfig:
    """Return the configuration of the client for Port.

    Raises:
        UsageError: credentials are missing, or the CA file cannot be used.

    """
    secret = settings.port_secret()
    if settings.port_client_id is None or secret is None:
        raise UsageError(
            "the credentials for Port are not set",
            "set TALLYSTREAM_PORT_CLIENT_ID and TALLYSTREAM_PORT_CLIENT_SECRET (Port: ... > Credentials)",
        )
    proxy = settings.port_proxy
    config = PortClientConfig(
        client_id=settings.port_client_id,
        client_secret=secret,
        base_url=settings.port_base_url,
        identifier=settings.port_identifier,
        proxy=proxy.get_secret_value() if proxy else environment_proxy(settings.port_base_url),
        ca=settings.port_ca,
        timeout=settings.port_timeout.total_seconds(),
    )
    config.ssl_context()
    return config


def read_mapper(settings: Settings) -> Mapper:
    """Return the mapping of all files that are named, compiled.

    Raises:
        UsageError: a file cannot be read, or is not a valid mapping.

    """
    places = named_files(settings.port_mapping, "TALLYSTREAM_PORT_MAPPING", (".yaml", ".yml"))
    return Mapper(*(_source(settings, path) for path in places or [None]))


def _source(settings: Settings, path: Path | None) -> MappingSource:
    """Return the text of a mapping file; None is the default mapping."""
    if path is None:
        without = () if settings.port_session_hours else (SESSION_HOUR,)
        return MappingSource(default_text(), "the default mapping", without, own=False)
    try:
        return MappingSource(path.read_text(), f"the mapping {path}")
    except (OSError, ValueError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8"
        raise UsageError(f"the mapping file {path} cannot be read: {why}", "TALLYSTREAM_PORT_MAPPING names it") from exc


def sink_config(
    settings: Settings, kafka: KafkaSettings, directory: Path, client: PortClientConfig, mapper: Mapper
) -> SinkConfig:
    """Return the sink's configuration."""
    retention = settings.port_retention
    return SinkConfig(
        kafka=kafka,
        topics=settings.topics(),
        directory=directory,
        client=client,
        mapper=mapper,
        initialize=settings.port_initialize,
        ownership=settings.port_ownership,
        resync=settings.port_resync.total_seconds(),
        owners_every=min(SinkConfig.owners_every, settings.port_resync.total_seconds()),
        samples=settings.data_dir / "samples" if settings.port_samples else None,
        register=settings.port_register,
        send_samples=settings.port_send_samples,
        retention=None if retention is None else retention.total_seconds(),
        session_timeout=settings.port_failover.total_seconds(),
    )
