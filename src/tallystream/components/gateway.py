"""The gateway as a component: built from the settings, run until told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import uvloop
from prometheus_client import (
    CollectorRegistry,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from tallystream.components import logs
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.gateway import Gateway, GatewayConfig
from tallystream.streams.gateway.pseudonyms import own_key, pseudonyms
from tallystream.streams.kafka.lifecycle import cancel
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.service.ops import Health, OpsServer


def run(
    settings: Settings,
    kafka: KafkaSettings,
    *,
    host: str,
    port: int,
    ops_port: int,
    reuse_port: bool = False,
    run_file: Path | None = None,
) -> None:
    """Run the gateway on `host:port` until SIGTERM or SIGINT.

    `run_file` is written once the components beside this one are ready: until then `/readyz` on `port` is red.

    Raises:
        UsageError: a port is taken, or a Kafka cluster is set without a word on user names.
        UnfitError: the spool's directory, or the cluster's topics, do not fit.

    """
    logs.configure()
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise UsageError("a certificate needs its key", "set both TALLYSTREAM_TLS_CERT and TALLYSTREAM_TLS_KEY")
    config = GatewayConfig(
        kafka=kafka,
        topics=settings.topics(),
        directory=settings.data_dir / "gateway",
        host=host,
        port=port,
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        reuse_port=reuse_port,
        max_body_bytes=settings.max_body_bytes,
        max_held_bytes=max(settings.max_body_bytes * 4, 256 << 20),
        spool_max_bytes=settings.spool_max_bytes,
    )
    user = user_names(settings)
    raise_file_limit()
    uvloop.run(_serve(config, user, (settings.ops_host, ops_port), run_file))


def user_names(settings: Settings) -> Callable[[str], str]:
    """Return what replaces user names.

    Raises:
        UsageError: a cluster is set, so others may run gateways too, and there is neither a shared key nor an opt-out.

    """
    if settings.user_names:
        return lambda name: name
    if settings.user_key is not None and settings.user_key.get_secret_value():
        return pseudonyms(settings.user_key.get_secret_value().encode())
    if settings.kafka is not None:
        raise UsageError(
            "with a Kafka cluster of your own, user names need a key that all gateways share",
            "set TALLYSTREAM_USER_KEY to a long random secret, or TALLYSTREAM_USER_NAMES=true to keep the names",
        )
    return pseudonyms(own_key(settings.data_dir / "user.key"))


def raise_file_limit() -> None:
    """Allow as many open connections as the hard limit does: the usual soft limit of 1024 is a fleet's worth."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _serve(
    config: GatewayConfig, user: Callable[[str], str], ops_at: tuple[str, int], run_file: Path | None
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotation there
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)

    def others() -> Health:
        if run_file is None or run_file.exists():
            return Health(ok=True)
        return Health(ok=False, why="other components are not ready yet")

    gateway = Gateway(config, user=user, registry=registry, others=others)
    ops = OpsServer(gateway.healthy, gateway.ready, host=ops_at[0], port=ops_at[1], registry=registry)
    await ops.listen()
    try:
        starting = asyncio.create_task(gateway.start())
        told = asyncio.create_task(stop.wait())
        await asyncio.wait((starting, told), return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            await cancel(starting)
            return
        await starting
        await told
        await gateway.stop()
    finally:
        await ops.stop()
