"""The worker's configuration, read once at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tallystream.agents.genai_calls.agent import CallConfig
from tallystream.agents.pricing import Book
from tallystream.agents.session_cost.hour_state import Window
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics


@dataclass(frozen=True)
class WorkerConfig:
    """Settings of a worker; durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    directory: Path
    """Directory of its local stores; used only by this worker."""
    book: Book
    window: Window
    instance: str
    """Its name, which must be stable over restarts and unique among workers."""
    static: bool
    """Whether it is a static member named `instance`, so that it keeps its partitions over a restart."""
    calls: CallConfig = field(default_factory=CallConfig)
    session_timeout: float = 6.0
    """Time without a heartbeat after which the group reassigns the worker's partitions."""
    accept_loss: bool = False
    """Continue even if usage messages were lost that had not, or may not have, been counted."""
    standby: bool = False
    """Keep copies of other workers' partitions, so that taking one over does not read its whole changelog."""
