"""The poller's configuration, read once at the edge."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.poller.client import OpenAIClientConfig
from tallystream.streams.poller.credentials import ApiKeys
from tallystream.streams.poller.resources import Resource


@dataclass(frozen=True)
class PollerConfig:
    """Durations in seconds."""

    kafka: KafkaSettings
    topics: Topics
    resources: tuple[Resource, ...]
    tokens: ApiKeys = field(repr=False)
    client: OpenAIClientConfig = field(default_factory=OpenAIClientConfig)
    anthropic: OpenAIClientConfig | None = None
    """How to reach Anthropic; None: its resources are not polled."""
    providers: Mapping[str, OpenAIClientConfig] = field(default_factory=dict)
    """How to reach the user's own providers, by name."""
    pseudonym: Callable[[str], str] | None = None
    """Replaces people's names and addresses in rows; None: they are removed."""
    interval: float = 7200.0
    retry: float = 60.0
    """Delay until a failed resource is polled again; doubled each time, with jitter, up to the interval."""
    jitter: float = 0.05
    """Share of the interval that is added at random, so that many pollers do not poll at the same minute."""
    backfill: float = 0.0
    """How far back history is fetched, unless a resource's own `lookback` is longer."""
    session_timeout: float = 10.0
    """A standby takes over this long after the active poller's last heartbeat; Kafka's own minimum is 6 s."""
    not_polled: tuple[str, ...] = ()
    """Why kinds of the mapping cannot be polled, for the status."""
    concurrency: int = 4
    """Resources polled at the same time."""

    @property
    def account(self) -> tuple[str | None, str | None]:
        """The account that is polled, if configured; it is part of every query's identity."""
        return (self.client.organization, self.client.project)
