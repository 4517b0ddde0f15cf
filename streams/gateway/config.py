"""What the gateway can be told, read once by the composition root."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tallystream.schemas.connections import Quota
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


@dataclass(frozen=True)
class GatewayConfig:
    """Times are seconds, sizes bytes."""

    kafka: KafkaSettings
    topics: Topics
    directory: Path
    """Spools, the registry's snapshot: must survive a restart. Several gateways on one volume may share it."""
    user: Callable[[str], str] = field(repr=False)
    """Returns what replaces a user's name; it may hold a key."""
    host: str = "127.0.0.1"
    port: int = 4318
    grpc_port: int | None = None
    """Of OTLP/gRPC; None: not served; 0: any free one."""
    grpc_required: bool = True
    """Whether a gRPC port that is taken stops the start; else it is said, and HTTP is served alone."""
    tls_cert: Path | None = None
    """PEM file of the certificate chain to serve; None: plain HTTP."""
    tls_key: Path | None = None
    """PEM file of its key."""
    reuse_port: bool = False
    """Let several gateway processes listen on one port (SO_REUSEPORT); the kernel spreads connections over them."""
    max_body_bytes: int = 64 << 20
    """Of one request, before and after decompression."""
    max_held_bytes: int = 256 << 20
    """Of all requests being answered at one time; beyond it requests get 503."""
    spool_max_bytes: int = 1 << 30
    quarantine_max_bytes: int = 64 << 20
    """Apart from the spool's, so that guessed ingest ids cannot crowd out known connections."""
    max_connections: int = 4096
    """Of clients at one time, those included whose TLS is not done; fewer where the process may open fewer files."""
    body_timeout: float = 30.0
    """A client that sends nothing of its body for this long is given up."""
    upload_timeout: float = 600.0
    """A client must have sent its whole body within this time, however slow its line is."""
    ack_timeout: float = 0.25
    """How long a request waits for Kafka at least before it goes to the spool."""
    ack_timeout_max: float = 1.0
    """And at most: in between it follows what acks take."""
    stuck_after: float = 20.0
    """A producer that has had records waiting this long without an ack is thrown away."""
    refresh_timeout: float = 1.0
    """How long an unknown ingest id may wait for the registry to catch up."""
    quota: Quota = field(default_factory=Quota)
    """Of each connection that has none of its own."""
    stop_timeout: float = 10.0
    """For requests in progress at SIGTERM, and again for the spool's last drain."""
    first_contact: float = 10.0
    """How long a starting gateway waits for Kafka's first word: with it, topics that do not fit stop the start."""
    retry_after: int = 5
    """Told to clients with every 503."""
    ready_file: Path | None = None
    """`/readyz` on the telemetry port is red until this file exists, which `up` writes once all components are ready.
    The ops port's `/readyz` is about this gateway alone."""

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        if self.max_held_bytes < self.max_body_bytes:
            raise ValueError("max_held_bytes must hold at least one body of max_body_bytes")
