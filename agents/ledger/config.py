"""The ledger's configuration, read once at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


@dataclass(frozen=True)
class LedgerPlace:
    """Where a deployment's ledger is: in PostgreSQL at `url`, else in a file of `directory`."""

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
    """What a ledger is made of; durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    place: LedgerPlace
    gather: float = 0.1
    """Records are committed this long after the first of them at most."""
    most: int = 20_000
    """Records of one transaction: bounds how long readers of PostgreSQL and the next commit wait."""
    standby: float = 1.0
    """Between two attempts to become the writer."""
    look: float = 30.0
    """Between two looks at whether the topics are still the same ones."""
    expire: float = 600.0
    """Between two looks at what retention has removed."""
    hung: float = 120.0
    """Without a step forward for this long the ledger is unhealthy."""
