"""The gateway's configuration, built once by the composition root."""

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
    """Directory of the spools and the registry's snapshot. It must survive a restart; several gateways on one volume
    may share it."""
    user: Callable[[str], str] = field(repr=False)
    """Maps a user's name to its replacement; the function may hold a key."""
    host: str = "127.0.0.1"
    port: int = 4318
    grpc_port: int | None = None
    """Port of OTLP/gRPC; None: not served; 0: any free port."""
    grpc_required: bool = True
    """Whether to fail when the gRPC port is taken; otherwise a warning is logged and only HTTP is served."""
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
    """Of clients at one time, including those in the TLS handshake; fewer if the process may open fewer files."""
    body_timeout: float = 30.0
    """A request is aborted when the client sends nothing of its body for this long."""
    upload_timeout: float = 600.0
    """Time within which a client must have sent its whole body, however slow its network is."""
    ack_timeout: float = 0.25
    """Minimum time that a request waits for Kafka before it goes to the spool."""
    ack_timeout_max: float = 1.0
    """Maximum of that time; between the two it follows the measured ack times."""
    stuck_after: float = 20.0
    """A producer whose records wait this long without an ack is replaced."""
    refresh_timeout: float = 1.0
    """Maximum time that a request with an unknown ingest id waits for the registry to catch up."""
    witnessed: bool = True
    """Whether to read what metrics and spans say of usage that is counted from logs, for `tallystream coverage`."""
    quota: Quota = field(default_factory=Quota)
    """Quota of each connection without its own."""
    stop_timeout: float = 10.0
    """For requests in progress at SIGTERM, and again for the spool's last drain."""
    first_contact: float = 10.0
    """How long a starting gateway waits for Kafka. If Kafka answers, unsuitable topics stop the start."""
    embedded: bool = False
    """Whether Kafka is the embedded one of this data dir, whose port may change from start to start."""
    retry_after: int = 5
    """Value of Retry-After in every 503."""
    ready_file: Path | None = None
    """`/readyz` on the telemetry port fails until this file exists, which `up` writes once all components are ready.
    The `/readyz` of the ops port covers only this gateway."""

    @property
    def addresses(self) -> frozenset[str]:
        """Return where Kafka is to be reached. Two gateways with an address in common have the same Kafka."""
        return frozenset(["embedded"] if self.embedded else self.kafka.bootstrap.replace(",", " ").split())

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("set both tls_cert and tls_key, or neither")
        if self.max_held_bytes < self.max_body_bytes:
            raise ValueError("max_held_bytes must hold at least one body of max_body_bytes")
