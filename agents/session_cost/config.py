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
    """What a worker is made of; durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    directory: Path
    """Of this worker alone: its local stores."""
    book: Book
    window: Window
    instance: str
    """Its name, stable over restarts and unlike any other worker's."""
    static: bool
    """Whether the group knows it by `instance`, so that a restart gives it its own partitions back."""
    calls: CallConfig = field(default_factory=CallConfig)
    session_timeout: float = 6.0
    """Without a heartbeat for this long, the group gives the worker's partitions to others."""
    accept_loss: bool = False
    """Go on where usage messages are gone that were not counted, or when it cannot be told whether they were."""
