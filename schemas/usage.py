"""Topic `usage`: usage events of one session from one OTLP request.

Counts are disjoint, except `reasoning`, which is a part of `output`. `total_tokens` is the sum of the disjoint ones.
For speed, the gateway and the fold use plain dicts (`exclude_none`); a property test keeps them equal to these models.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tallystream.schemas.money import reported_pico

Count = Annotated[int, Field(ge=0, lt=2**53)]
Client = str
"""Who reported a response. Open: new clients need no new schema. Known: codex, claude, gemini, qwen and cline from
their logs; copilot, vscode, opencode, goose, litellm and the names of frameworks (docs/agents.md) from their spans;
`genai` is a span of an unknown program."""

DISJOINT_COUNTS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "tool")
"""Token counts of an event that can be added up: each token is in exactly one of them."""
TOKEN_COUNTS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool")
"""All token counts of an event; `reasoning` is a part of `output`."""

MAX_EVENT_TOKENS = 2**40
"""A response must have fewer tokens, so that sums do not overflow."""
MAX_EVENTS = 512
"""Maximum number of events in a message."""
MAX_BYTES = 512 * 1024
"""Maximum size of a message's value in bytes."""
MAX_SEEN_BY = 8
"""Maximum number of instrumentations that an event names."""
MAX_SESSION_BYTES = 256
"""Maximum size of a session id in UTF-8 bytes."""


class Attribution(BaseModel):
    """Who and what a session's cost belongs to: allow-listed resource attributes only."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    user: str | None = None
    """A keyed hash (`u_` and 16 hex digits) unless the operator opted out."""
    team: str | None = None
    repo: str | None = None
    branch: str | None = None
    env: str | None = None
    host: str | None = None
    cost_center: str | None = None
    agent: str | None = None
    """The agent of the session: a subagent, the name that an agent framework gives it, or else the program."""
    billing: Literal["plan", "api"] | None = None
    """How the usage is paid. `plan`: by a subscription, so that its cost is what the API would have charged and is part
    of no bill. None: the client does not tell."""
    account: str | None = None
    """The provider's account or organisation that the client was logged in to, as a hash."""


ATTRIBUTION_KEYS = tuple(Attribution.model_fields)


class UsageEvent(BaseModel):
    """One billed model response."""

    model_config = ConfigDict(extra="forbid")

    event_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    """64-bit identity: equal for every copy of the same event, in whichever request or retry it arrives."""
    occurred_at: int = Field(ge=0, lt=2**63)
    """Event time, ns since the epoch, as the client wrote it."""
    model: str
    """As the client wrote it."""
    input_uncached: Count = 0
    cache_read: Count = 0
    cache_write_5m: Count = 0
    cache_write_1h: Count = 0
    output: Count = 0
    reasoning: Count = 0
    tool: Count = 0
    turn_id: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    reported_cost_usd: str | None = None
    """The client's own estimate; reported beside ours, never added to it."""
    basis: Literal["aggregate"] | None = None
    """`aggregate`: the sum of calls that were not reported individually. Such an event counts as one request."""
    seen_by: list[Annotated[str, Field(max_length=256)]] | None = Field(default=None, max_length=MAX_SEEN_BY)
    """Instrumentations that saw the response, if there were several; it still counts once."""
    inconsistent: bool | None = None
    """The record's breakdown of a count contradicts the total: the total is used and the parts were adjusted to fit."""

    @model_validator(mode="after")
    def _parts_fit(self) -> UsageEvent:
        if self.reasoning > self.output:
            raise ValueError("reasoning is a part of output and cannot exceed it")
        if self.reported_cost_usd is not None:
            reported_pico(self.reported_cost_usd)
        return self

    @property
    def total_tokens(self) -> int:
        """Sum of the disjoint counts."""
        return sum(getattr(self, name) for name in DISJOINT_COUNTS)


class UsageBatch(BaseModel):
    """Value of a `usage` message; its key is `connection_id|session_id`."""

    model_config = ConfigDict(extra="forbid")

    connection_id: str
    client: Client
    provider: str
    """The provider whose prices apply: openai, anthropic, google."""
    session_id: str = Field(min_length=1)
    attribution: Attribution = Attribution()
    events: list[UsageEvent] = Field(min_length=1, max_length=MAX_EVENTS)
