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
    """Days that are kept in memory and judged; statements of older days stay as they were published. Providers restate
    30 days, and telemetry is accepted for `lateness` (7 days)."""
    pause: float = 10.0
    """Telemetry is judged this often at most; what a provider reports and what is mapped is judged at once."""
