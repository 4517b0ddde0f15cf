"""The console's configuration, read once at the edge."""

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
    """Who may use the console, and as what."""

    kind: Literal["token", "proxy"] = "token"
    session: timedelta = timedelta(hours=12)
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that a user's name is taken from (`proxy`)."""
    user_header: str = "X-Forwarded-User"
    groups_header: str = "X-Forwarded-Groups"
    admins: frozenset[str] = frozenset()
    """Groups whose members may change things (`proxy`)."""
    hosts: frozenset[str] = frozenset()
    """Names that the console may be reached by besides loopback's, in lower case."""


@dataclass(frozen=True)
class ConsoleConfig:
    """What a console is made of."""

    kafka: KafkaSettings
    topics: Topics
    place: LedgerPlace
    data_dir: Path
    """Links and the key of the logins are in its folder `console`."""
    lateness: timedelta
    endpoint_url: str
    """Where clients reach the gateway."""
    host: str = "127.0.0.1"
    port: int = 0
    auth: AuthConfig = field(default_factory=AuthConfig)
    openai: bool = False
    """Whether a key to poll OpenAI with is set."""
    book: Book | None = field(default=None, repr=False)
    """What explains prices; None: the installed one, compiled when the console starts."""
    examine: Callable[[], Awaitable[DeploymentHealth]] | None = field(default=None, repr=False)
    """Looks at processes and checks."""
    look: float = 0.3
    """Seconds between two looks at whether the ledger has changed, while somebody watches."""
    timeout: float = 20.0
    """Seconds for Kafka's answer to a change."""

    @property
    def directory(self) -> Path:
        """The console's own folder."""
        return self.data_dir / "console"
