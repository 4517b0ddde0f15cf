"""The console's configuration, read once at the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Literal

from tallystream.agents.ledger.config import LedgerPlace
from tallystream.agents.pricing.book import Book
from tallystream.console.models import DeploymentHealth
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics

LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class AuthConfig:
    """Who may use the console, and with which rights."""

    kind: Literal["token", "proxy"] = "token"
    session: timedelta = timedelta(hours=12)
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks of the trusted proxies (`proxy`)."""
    user_header: str = "X-Forwarded-User"
    groups_header: str = "X-Forwarded-Groups"
    admins: frozenset[str] = frozenset()
    """Groups whose members may make changes (`proxy`)."""
    hosts: frozenset[str] = frozenset()
    """Host names of the console in addition to loopback's, in lower case."""


@dataclass(frozen=True)
class ConsoleConfig:
    """Everything that can be configured for a console."""

    kafka: KafkaSettings
    topics: Topics
    place: LedgerPlace
    data_dir: Path
    """Its folder `console` contains the links and the key of the logins."""
    lateness: timedelta
    endpoint_url: str
    """Where clients reach the gateway."""
    host: str = "127.0.0.1"
    port: int = 0
    auth: AuthConfig = field(default_factory=AuthConfig)
    openai: bool = False
    """Whether a key to poll OpenAI is set."""
    anthropic: bool = False
    """Whether a key to poll Anthropic is set."""
    book: Book | None = field(default=None, repr=False)
    """The price book that explains costs; None: the installed one, compiled when the console starts."""
    examine: Callable[[], Awaitable[DeploymentHealth]] | None = field(default=None, repr=False)
    """Inspects processes and runs doctor's checks."""
    look: float = 0.3
    """Seconds between two checks for changes of the ledger while pages are open."""
    timeout: float = 20.0
    """Seconds to wait for Kafka to acknowledge a change."""

    @property
    def directory(self) -> Path:
        """The console's own folder."""
        return self.data_dir / "console"
