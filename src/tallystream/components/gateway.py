"""Builds the gateway from the settings and runs it until it is told to stop."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from tallystream.components import harness, logs
from tallystream.schemas.connections import Quota
from tallystream.schemas.errors import UsageError
from tallystream.settings.settings import Settings
from tallystream.streams.gateway import Gateway, GatewayConfig
from tallystream.streams.gateway.pseudonyms import own_key, pseudonyms
from tallystream.streams.kafka.settings import KafkaSettings

SWITCH_INTERVAL = 0.0005
"""Seconds for which a thread that decodes a large body lets the event loop wait, each of several times in a request.
Python's own 5 ms add up to 50 ms for a small request beside a large one."""


def run(
    settings: Settings,
    kafka: KafkaSettings,
    *,
    host: str,
    port: int,
    ops_port: int,
    grpc_port: int | None = None,
    reuse_port: bool = False,
    run_file: Path | None = None,
) -> None:
    """Run the gateway on `host:port` until SIGTERM or SIGINT.

    gRPC listens on `grpc_port` (0: not at all), else on the port in the settings, else on the port before `port`.

    `run_file` is written once the other components are ready. Until then `/readyz` on `port` fails.

    Raises:
        UsageError: a port is taken, or a Kafka cluster is set without a setting for user names.
        UnfitError: the spool's directory or the cluster's topics cannot be used.

    """
    logs.configure()
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise UsageError("a certificate needs its key", "set both TALLYSTREAM_TLS_CERT and TALLYSTREAM_TLS_KEY")
    config = GatewayConfig(
        kafka=kafka,
        topics=settings.topics(),
        directory=settings.data_dir / "gateway",
        user=user_names(settings),
        host=host,
        port=port,
        grpc_port=(wanted_grpc_port(settings, port) if grpc_port is None else grpc_port) or None,
        grpc_required=grpc_port is not None or settings.grpc_port is not None,
        tls_cert=settings.tls_cert,
        tls_key=settings.tls_key,
        reuse_port=reuse_port,
        max_body_bytes=settings.max_body_bytes,
        max_held_bytes=max(settings.max_body_bytes * 4, 256 << 20),
        spool_max_bytes=settings.spool_max_bytes,
        witnessed=settings.coverage,
        quota=Quota(
            requests=settings.quota_requests,
            bytes=settings.quota_bytes,
            held_bytes=settings.quota_held_bytes,
            dead_letters=settings.quota_dead_letters,
        ),
        ready_file=run_file,
        embedded=settings.kafka is None,
    )
    raise_file_limit()
    sys.setswitchinterval(SWITCH_INTERVAL)
    harness.run("gateway", Gateway, config, ops=(settings.ops_host, ops_port))


def wanted_grpc_port(settings: Settings, port: int) -> int:
    """Return the gRPC port for an HTTP port, or 0 for none. If the HTTP port is picked, gRPC is off."""
    return max(0, port - 1) if settings.grpc_port is None else settings.grpc_port


def user_names(settings: Settings) -> Callable[[str], str]:
    """Return the pseudonyms that replace user names.

    Raises:
        UsageError: a cluster is set, so other gateways may run, and neither a shared key nor an opt-out is set.

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
    """Raise the limit of open files to the hard limit, because a fleet can exceed the usual soft limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
