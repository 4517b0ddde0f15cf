"""The exporter's configuration, read once at the start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


@dataclass(frozen=True)
class ExporterConfig:
    """Everything that can be configured for an exporter; durations are in seconds."""

    kafka: KafkaSettings
    topics: Topics
    directory: Path
    lateness: float
    """How long after its hour ended an event is still counted. The age of a spool is compared with it."""
    every: float = 1.0
    """Between two reads of the offsets."""
    gather: float = 0.5
    """Rows are counted and committed to disk at most this long after the first of them."""
    stale: float = 30.0
    """Lags older than this are not shown, because they are no longer known."""
    hung: float = 60.0
    """The exporter is unhealthy if Kafka has not answered for this long."""
    retry: float = 1.0
