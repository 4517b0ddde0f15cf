"""The sink's configuration, read once at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tallystream.agents.port_sink.mapping import Mapper
from tallystream.agents.port_sink.port.client import PortClientConfig
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


@dataclass(frozen=True)
class SinkConfig:
    """Durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    directory: Path
    """Directory of the local copy of the topics; used only by this process."""
    client: PortClientConfig
    mapper: Mapper = field(repr=False)
    initialize: bool = True
    """Create our blueprints if Port does not have them."""
    ownership: bool = True
    """Relate sessions to the teams, users and services that Port has."""
    owners_every: float = 300.0
    """Time between two looks at these, and at the blueprints."""
    resync: float = 86_400.0
    """Time between two comparisons of everything with what was sent."""
    retention: float | None = None
    """Entities whose own time is longer ago are deleted; None: entities are never deleted."""
    samples: Path | None = None
    """Directory for a sample of each kind of records; None: samples are not stored."""
    register: bool = True
    """Register the sink as an integration in Port, with its last sync."""
    send_samples: bool = False
    """Send a sample of each kind of records to Port, masked, if the sink is registered."""
    senders: int = 8
    """Number of concurrent bulk requests."""
    linger: float = 0.25
    """How long an entity waits for others to fill its request."""
    session_timeout: float = 10.0
    """A standby takes over this long after the active sink's last heartbeat; Kafka's own minimum is 6 s."""
    max_backlog: int = 100_000
    """Maximum number of waiting documents; beyond it reading the topics is paused until half of them are processed."""
