"""Models of the console's answers. Pages, the API's JSON and its OpenAPI document are made from the same models.

Money is an exact decimal string in US dollars; null means that no request in it has a price. Hours begin at the time
that names them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystream.console.coverage import SessionCoverage
from tallystream.schemas.connections import Provider


class Totals(BaseModel):
    """Sums of requests."""

    requests: int
    total_tokens: int
    unpriced_requests: int
    """Requests without a price, which `cost_usd` does not include."""
    cost_usd: str | None


class SessionRow(BaseModel):
    """The sums of one session."""

    connection_id: str
    session_id: str
    client: str | None
    first_hour: str
    last_hour: str
    models: list[str]
    attribution: dict[str, list[str]]
    requests: int
    input_uncached: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int
    reasoning: int
    tool: int
    total_tokens: int
    cost_usd: str | None
    reported_cost_usd: str | None
    unpriced_requests: int
    late_events: int
    inconsistent: int
    duplicates: int
    seen_share: str | None
    """Counted tokens of those that are known, from 0 to 1; null when only the logs tell of it."""


class SessionPage(BaseModel):
    """Sessions, the largest first."""

    as_of: str
    rows: list[SessionRow]
    matching: int
    """How many sessions match, counted up to `matching_most`."""
    matching_most: int
    next: str | None
    """`after` of the next page; null on the last page."""


class Charge(BaseModel):
    """Tokens of one kind at one price."""

    kind: str
    tokens: int
    usd_per_million: str
    usd: str


class PriceStep(BaseModel):
    """Prices for a range of request sizes, in dollars per million tokens."""

    above_input_tokens: int
    usd_per_million: dict[str, str]
    usd_per_request: str | None


class Explanation(BaseModel):
    """The explanation of a bucket's cost."""

    exact: bool
    """Whether the charges add up to the bucket's cost."""
    note: str
    charges: list[Charge]
    steps: list[PriceStep]
    """Price tiers, if the price depends on the size of each request. The cost then cannot be computed from sums."""


class BucketModel(BaseModel):
    """Sums of one model, tier, speed, price book and attribution in an hour of a session."""

    hour: str
    final: bool
    """Whether the hour ended more than an hour ago, so that only late events still change it."""
    provider: str
    model: str
    service_tier: str | None
    speed: str | None
    book: str
    attribution: dict[str, str]
    requests: int
    input_uncached: int
    cache_read: int
    cache_write_5m: int
    cache_write_1h: int
    output: int
    reasoning: int
    tool: int
    total_tokens: int
    cost_usd: str | None
    reported_cost_usd: str | None
    unpriced_requests: int
    late_events: int
    inconsistent: int
    explanation: Explanation


class DeadLetterModel(BaseModel):
    """A record that was not counted. Contains allow-listed fields and never content."""

    source: str
    reason: str
    meaning: str
    next_step: str
    detail: str
    at: str
    connection_id: str | None = None
    client: str | None = None
    session_id: str | None = None
    record: dict[str, object] = Field(default_factory=dict)
    size: int | None = None
    sha256: str | None = None


class ChildSession(BaseModel):
    """A session that another one started."""

    session_id: str
    parent_session_id: str
    depth: int
    """1: started by the session that is shown."""
    requests: int
    total_tokens: int
    unpriced_requests: int
    cost_usd: str | None


class SessionDetail(BaseModel):
    """One session with the explanation of its cost."""

    as_of: str
    session: SessionRow
    buckets: list[BucketModel]
    more_buckets: bool
    """Whether the session has more buckets than are shown."""
    dead_letters: list[DeadLetterModel]
    parents: list[str] = Field(default_factory=list)
    """The sessions that started it, the nearest first."""
    children: list[ChildSession] = Field(default_factory=list)
    """The sessions that it started, parents before their children."""
    with_children: Totals | None = None
    """Its sums together with those of its children; null when it has none."""
    coverage: SessionCoverage | None = None
    """Null when no other signal of the client tells of it."""


class SignalModel(BaseModel):
    """What was received on one signal."""

    last_synced_at: str
    requests: int
    records: int


class ConnectionModel(BaseModel):
    """A connection, without its secrets, which are not stored."""

    connection_id: str
    provider: str
    name: str
    created_at: str
    state: Literal["active", "rotating", "revoked"]
    old_secret_until: str | None
    revoked_at: str | None
    bearer: bool
    last_synced_at: str | None
    signals: dict[str, SignalModel]
    silent: bool
    """Nothing has been received although it was created more than a few minutes ago."""
    last_30_days: Totals
    """Today and the 29 days before."""
    since: str
    """The first of these days."""


Billed = Literal["openai", "anthropic"]
"""Providers whose own bill and usage can be polled."""


class BillingProvider(BaseModel):
    """A provider whose own bill and usage can be polled."""

    provider: Billed
    polled: bool
    """Whether a key to poll it is set here, or a poller elsewhere has fetched its numbers within a day."""
    last_synced_at: str | None
    """When the newest of its numbers was fetched."""


class ConnectionList(BaseModel):
    """All connections, the newest first."""

    as_of: str
    connections: list[ConnectionModel]
    openai: bool
    """Whether a key to poll OpenAI's own numbers is set."""
    billing: list[BillingProvider]


class NewConnection(BaseModel):
    """The request to create a connection."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider
    name: str | None = Field(default=None, min_length=1, max_length=100)
    bearer: bool = False


class RotateConnection(BaseModel):
    """The request to rotate a connection: how long the old secret remains valid."""

    model_config = ConfigDict(extra="forbid")

    grace_hours: int = Field(default=168, ge=0, le=8760)


class IssuedConnection(BaseModel):
    """A connection with its secrets, which are shown only in this answer."""

    connection_id: str
    provider: str
    name: str
    ingest_id: str
    bearer: str | None
    base_url: str
    logs_url: str
    metrics_url: str
    traces_url: str
    headers: dict[str, str]
    config: str
    paste_into: str


class ConnectionTestResult(BaseModel):
    """The gateway's answer to an empty request with a connection's secret."""

    ok: bool
    status: int
    message: str


class ConnectionTest(BaseModel):
    """The secret to test. It is not stored, so it must be given."""

    model_config = ConfigDict(extra="forbid")

    ingest_id: str = Field(min_length=16, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    bearer: str | None = Field(default=None, max_length=200, pattern=r"^[\x21-\x7e]+$")
    """Becomes part of a header, so it must not contain spaces or control characters."""


class ReasonCount(BaseModel):
    """The number of dead letters with a reason."""

    reason: str
    letters: int
    newest: str
    meaning: str
    next_step: str


class DeadLetterPage(BaseModel):
    """Dead letters, the newest first."""

    as_of: str
    reasons: list[ReasonCount]
    rows: list[DeadLetterModel]
    next: str | None


class ReplayRequest(BaseModel):
    """Which dead letters to send again; without any filter, all."""

    model_config = ConfigDict(extra="forbid")

    sources: list[str] = Field(default_factory=list, max_length=1000)
    reason: str | None = None


class ReplayResult(BaseModel):
    """The result of a replay. An event that was already counted is not counted again."""

    replayed: int
    skipped: dict[str, int]
    """Number of letters that would be refused again, by reason."""


class BilledDayModel(BaseModel):
    """OpenAI's own numbers for one day and model. Different resources are listed separately and never added up."""

    day: str
    model: str | None
    project_id: str | None
    billed: dict[str, str]
    """Dollars by resource."""
    used: dict[str, dict[str, int]]
    """Numbers by resource and name."""


class BilledDaySum(BaseModel):
    """What OpenAI billed for one day, next to our cost of its models."""

    day: str
    billed: dict[str, str]
    """Dollars by resource, summed over models and projects."""
    seen_usd: str | None


class BilledDays(BaseModel):
    """OpenAI's own numbers next to ours."""

    as_of: str
    sums: list[BilledDaySum]
    """The newest day first."""
    days: list[BilledDayModel]
    seen: dict[str, str | None]
    """Our cost of OpenAI's models, by day."""


class ComponentHealth(BaseModel):
    """One process on this machine."""

    name: str
    state: str
    ready: bool
    uptime_seconds: float | None
    facts: dict[str, str] = Field(default_factory=dict)


class FindingModel(BaseModel):
    """Something that is wrong, and what to do."""

    check: str
    finding: str
    next_step: str


class DeploymentHealth(BaseModel):
    """The health of the deployment."""

    as_of: str
    components: list[ComponentHealth]
    findings: list[FindingModel]
    checks: list[str]
    """The checks that were made."""
    ledger: dict[str, str]
    """The ledger's database and its positions in the topics."""


class ErrorModel(BaseModel):
    """An error: why a request was not carried out."""

    code: str
    message: str
    hint: str
