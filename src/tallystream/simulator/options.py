"""Options of agents and fleets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from tallystream.schemas.errors import UsageError
from tallystream.simulator.model import FleetClient
from tallystream.simulator.wire import Wire

HOUR_NS = 3_600_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Encoding = Literal["protobuf", "json", "mixed"]


@dataclass(frozen=True)
class AgentOptions:
    """One agent's share of the fleet."""

    number: int
    agents: int
    """Agents in the fleet: response k of agent `number` has the id `number + k * agents`."""
    quota: int
    """Billed responses to send."""
    start_ns: int
    span_ns: int
    wire: Wire
    gzip: bool
    duplicates: float
    late: float
    late_max_ns: int
    metrics: float
    traces: float


@dataclass(frozen=True)
class FleetConfig:
    """Everything that decides, byte by byte, what a fleet sends.

    `requests` are billed model responses, as the column `requests` of the cost tables counts them. Times are ns since
    the epoch; shares are between 0 and 1.

    Raises:
        UsageError: a value is not valid.

    """

    agents: int
    requests: int
    seed: int
    start_ns: int
    span_ns: int = HOUR_NS
    client: FleetClient | Literal["mixed"] = "codex"
    """`mixed`: all that are counted by their logs, in the proportions of `fleet.MIXED`."""
    encoding: Encoding = "mixed"
    """Of clients that have a choice: Gemini CLI sends JSON."""
    gzip: bool = False
    duplicates: float = 0.0
    """Share of the responses whose token record is sent a second time, mostly in a later body."""
    late: float = 0.0
    """Share of the bodies whose events happened 1 h to `late_max_ns` before the agent's present."""
    late_max_ns: int = 26 * HOUR_NS
    resend: float = 0.0
    """Share of the bodies of the signal that costs that are posted again as they are."""
    metrics: float = 0.2
    """Metrics bodies a run of a client."""
    traces: float = 0.2
    """Trace bodies a run of a client."""

    def __post_init__(self) -> None:
        if self.agents < 1 or self.requests < 1:
            raise UsageError("a fleet needs at least one agent and one request", "raise --agents or --requests")
        if self.start_ns < HOUR_NS * 1000 or self.span_ns < 1_000_000_000 or self.late_max_ns < HOUR_NS:
            raise UsageError(
                "the fleet's time is not valid",
                "it must start after 1970, span at least a second, and have a lateness of at least an hour",
            )
        for name in ("duplicates", "late", "resend", "metrics", "traces"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise UsageError(f"{name} {share} is not valid", "use a share: a number from 0 to 1")
        if self.client == "gemini" and self.encoding == "protobuf":
            raise UsageError("over HTTP, Gemini CLI sends only JSON", "use --encoding json, or mixed")

    @property
    def start_iso(self) -> str:
        """Return the start as text."""
        return (_EPOCH + timedelta(microseconds=self.start_ns // 1000)).isoformat().replace("+00:00", "Z")

    def document(self) -> dict[str, Any]:
        """Return the config as JSON; `from_document` reads it."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> FleetConfig:
        """Return the config that `document` wrote."""
        return cls(**document)
