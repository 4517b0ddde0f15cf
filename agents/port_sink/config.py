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
    """Of this process alone: its local copy of the topics."""
    client: PortClientConfig
    mapper: Mapper = field(repr=False)
    initialize: bool = True
    """Create our blueprints where Port does not have them."""
    resync: float = 86_400.0
    """Between two comparisons of everything with what was sent."""
    retention: float | None = None
    """Entities whose own time is longer ago are deleted; None: nothing is ever deleted."""
    samples: Path | None = None
    """Where to keep a sample of each kind of records; None: nowhere."""
    senders: int = 8
    """Bulk requests under way at once."""
    linger: float = 0.25
    """How long an entity waits for others to share its request."""
    session_timeout: float = 10.0
    """A standby takes over this long after the active sink was last heard of; 6 s is Kafka's own minimum."""
    max_backlog: int = 100_000
    """Documents waiting; beyond it the topics are not read any further until half of them are gone."""
