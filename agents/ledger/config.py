"""The ledger's configuration, read once at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics, TopicSpec


@dataclass(frozen=True)
class LedgerPlace:
    """The location of a deployment's ledger: PostgreSQL at `url`, else a file in `directory`."""

    prefix: str
    directory: Path
    url: str | None = field(default=None, repr=False)
    """A libpq connection string; may hold a password."""

    @property
    def file(self) -> Path:
        """The SQLite file."""
        return self.directory / f"{self.prefix}.db"


@dataclass(frozen=True)
class LedgerConfig:
    """Settings of a ledger; durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    place: LedgerPlace
    gather: float = 0.1
    """Maximum time between a record's arrival and its commit."""
    most: int = 20_000
    """Maximum records per transaction, which bounds how long readers of PostgreSQL and the next commit wait."""
    standby: float = 1.0
    """Time between two attempts to become the writer."""
    look: float = 30.0
    """Time between two checks that the topics are still the same ones."""
    expire: float = 600.0
    """Time between two removals of rows whose records retention has removed."""
    coverage: float = 120.0
    """Time between two comparisons of what was counted with what was witnessed."""
    hung: float = 120.0
    """Time without progress after which the ledger is unhealthy."""


def sources_of(topics: Topics) -> tuple[TopicSpec, ...]:
    """Return the topics that a ledger is built from."""
    return (
        topics.session_hour_rows, topics.connections, topics.session_links, topics.activity, topics.deadletters,
        topics.openai_days, topics.reconciliation_days, topics.witness,
    )  # fmt: skip
