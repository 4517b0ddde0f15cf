"""The agent's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from tallystream.agents.pricing.book import Book
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


@dataclass(frozen=True)
class ReconciliationConfig:
    """Durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    book: Book
    days: int = 100
    """Days that are kept in memory and reconciled; published statements of older days are unchanged. Providers restate
    30 days, and telemetry is accepted for `lateness` (7 days)."""
    pause: float = 10.0
    """Minimum time between two reconciliations after new telemetry; new bills and links are reconciled at once."""
