"""The exporter's configuration, read once at the edge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


@dataclass(frozen=True)
class ExporterConfig:
    """What an exporter is made of; durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    directory: Path
    lateness: float
    """How long after its hour ended an event is still counted: what the age of a spool is compared with."""
    every: float = 1.0
    """Between two reads of the offsets."""
    gather: float = 0.5
    """Rows are counted, and committed to disk, this long after the first of them at most."""
    stale: float = 30.0
    """Lags older than this are not shown: nobody knows how they are now."""
    hung: float = 60.0
    """Without any answer from Kafka for this long the exporter is unhealthy."""
    retry: float = 1.0
