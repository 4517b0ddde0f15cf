"""The agent's configuration."""

from __future__ import annotations

from dataclasses import dataclass

from tallystream.agents.pricing.book import Book
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics, TopicSpec


@dataclass(frozen=True)
class ReconciliationConfig:
    """Durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    book: Book
    days: int = 100
    """Days that are kept in memory and reconciled; published statements of older days are unchanged. Providers restate
    30 days, and telemetry is accepted for `lateness` (7 days)."""
    pause: float = 1.0
    """Minimum time between two reconciliations after new telemetry; new bills and links are reconciled at once."""
    share: float = 0.1
    """Of the time that may be spent on reconciling new telemetry: after a long one the pause is longer."""


def sources(topics: Topics) -> tuple[TopicSpec, ...]:
    """Return the topics that statements are made of."""
    return topics.openai_records, topics.poller_control, topics.accounts, topics.session_hour_rows
