"""The parts of a fleet: sessions, their billed responses, and the requests that report these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

Signal = Literal["logs", "metrics", "traces"]
ClientName = Literal["codex", "claude", "gemini"]
"""Clients that are counted by their logs."""
FleetClient = ClientName | Literal["genai"]
"""`genai`: programs that are counted by their spans."""

CANARY = "canary-content-that-must-never-be-stored"
"""Part of every prompt, argument and output that the fleet sends. If it is found behind the gateway, content leaked."""


@dataclass(frozen=True)
class SimulatedSession:
    """One run of a client. A resumed session has the same id, but may have another attribution."""

    client: str
    """As the cost tables name it: of `genai`, the framework."""
    provider: str
    session_id: str
    user: str | None
    attribution: tuple[tuple[str, str], ...]
    """Sorted (dimension, value) pairs of what its resource says, the user left out: rows carry only the user's hash."""


class OtlpTransport(NamedTuple):
    """How a client's exporter posts."""

    user_agent: str
    chunked: bool
    """Whether it sends bodies in chunks, without telling their length."""


class Response(NamedTuple):
    """One billed model response; the counts are disjoint, but for `reasoning`, a part of `output`."""

    n: int
    """Unique in the fleet."""
    session: SimulatedSession
    model: str
    service_tier: str | None
    at_ns: int
    """Event time, ns since the epoch."""
    input_uncached: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int
    reasoning: int
    tool: int
    speed: str | None = None
    """As the client reports it."""
    reported_pico: int | None = None
    """The client's own estimate in pico-dollars, rounded half to even; never 0."""

    @property
    def total_tokens(self) -> int:
        """Sum of the disjoint counts."""
        return (
            self.input_uncached + self.cache_read + self.cache_write_5m + self.cache_write_1h + self.output + self.tool
        )


class Request(NamedTuple):
    """One OTLP/HTTP request body, as it leaves an agent."""

    agent: int
    at_ns: int
    """When the agent exports it, in the fleet's own time: what orders the agents' requests."""
    signal: Signal
    body: bytes
    content_type: str
    transport: OtlpTransport
    gzip: bool
    records: int
    """Log records, spans or metric points in the body."""
    responses: tuple[Response, ...]
    """Those whose token record is in the body, copies too."""
    copies: int = 0
    """How many of `responses` had been sent before."""
    late: bool = False
    resent: bool = False
