"""What the console answers with: the same models make the pages, the JSON of the API and its OpenAPI document.

Money is an exact decimal string in US dollars; null: nothing within has a price. Hours begin at the time they name.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystream.schemas.connections import Provider


class Totals(BaseModel):
    """Sums of requests."""

    requests: int
    total_tokens: int
    unpriced_requests: int
    """Requests that `cost_usd` leaves out."""
    cost_usd: str | None


class Share(BaseModel):
    """One model, team, connection or client of a period."""

    name: str | None
    """Null: requests that do not say."""
    totals: Totals


class HourPoint(BaseModel):
    """One UTC hour beside the one a day before."""

    hour: str
    cost_usd: str | None
    day_before_usd: str | None
    requests: int


class Period(BaseModel):
    """A stretch of hours beside an earlier one of the same length."""

    name: str
    since: str
    until: str
    """Exclusive."""
    totals: Totals
    before: Totals
    """The same hours a day (or as many days as it has) earlier."""


class Overview(BaseModel):
    """The first page."""

    as_of: str
    range: Literal["today", "7d", "30d"]
    periods: list[Period]
    burn_usd_per_hour: str | None
    """Dollars of this hour so far, as if it went on like that; null in its first minutes."""
    hours: list[HourPoint]
    models: list[Share]
    teams: list[Share]
    connections: list[Share]
    clients: list[Share]


class SessionRow(BaseModel):
    """One session in sums."""

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


class SessionPage(BaseModel):
    """Sessions, the largest first."""

    as_of: str
    rows: list[SessionRow]
    matching: int
    """How many match, counted up to `matching_most`."""
    matching_most: int
    next: str | None
    """`after` of the next page; null: this is the last one."""


class Charge(BaseModel):
    """Tokens of one kind at one price."""

    kind: str
    tokens: int
    usd_per_million: str
    usd: str


class PriceStep(BaseModel):
    """Prices of requests of a size, in dollars per million tokens."""

    above_input_tokens: int
    usd_per_million: dict[str, str]
    usd_per_request: str | None


class Explanation(BaseModel):
    """How the dollars of a bucket came about."""

    exact: bool
    """Whether the charges add up to the bucket's cost."""
    note: str
    charges: list[Charge]
    steps: list[PriceStep]
    """Where a price goes by the size of each request: the sums here are of many, so no product gives them."""


class BucketModel(BaseModel):
    """Sums of one model, tier, speed, price book and attribution in an hour of a session."""

    hour: str
    final: bool
    """Whether the hour ended more than an hour ago: from then on only late events change it."""
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
    """A record that did not count. Holds allow-listed fields, never content."""

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


class SessionDetail(BaseModel):
    """One session with everything that made its dollars."""

    as_of: str
    session: SessionRow
    buckets: list[BucketModel]
    more_buckets: bool
    """Whether it has more buckets than are shown."""
    dead_letters: list[DeadLetterModel]


class SignalModel(BaseModel):
    """What came in on one signal."""

    last_synced_at: str
    requests: int
    records: int


class ConnectionModel(BaseModel):
    """A connection, without its secrets, which are kept nowhere."""

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
    """Nothing has come in since it was made, more than a few minutes ago."""
    last_30_days: Totals


class ConnectionList(BaseModel):
    """All connections, the newest first."""

    as_of: str
    connections: list[ConnectionModel]
    openai: bool
    """Whether a key to poll OpenAI's own numbers with is set."""


class NewConnection(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(extra="forbid")

    provider: Provider
    name: str | None = Field(default=None, min_length=1, max_length=100)
    bearer: bool = False


class RotateConnection(BaseModel):
    """What is asked for: how long the old secret works on."""

    model_config = ConfigDict(extra="forbid")

    grace_hours: int = Field(default=168, ge=0, le=8760)


class IssuedConnection(BaseModel):
    """A connection with its secrets: this answer is the only place they are ever shown."""

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
    """What a gateway said to an empty request under a connection's secret."""

    ok: bool
    status: int
    message: str


class ConnectionTest(BaseModel):
    """The secret to test; it is kept nowhere, so it must be given."""

    model_config = ConfigDict(extra="forbid")

    ingest_id: str = Field(min_length=16, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")
    bearer: str | None = Field(default=None, max_length=200, pattern=r"^[\x21-\x7e]+$")
    """Becomes a part of a header, so it has no spaces or control characters."""


class ReasonCount(BaseModel):
    """How many dead letters have a reason."""

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
    """Which dead letters to send again; everything left out means all."""

    model_config = ConfigDict(extra="forbid")

    sources: list[str] = Field(default_factory=list, max_length=1000)
    reason: str | None = None


class ReplayResult(BaseModel):
    """What came of a replay. An event that was counted before is not counted again."""

    replayed: int
    skipped: dict[str, int]
    """Letters that would only be refused again, by why."""


class BilledDayModel(BaseModel):
    """One day and model of OpenAI's own numbers. Resources are beside each other, never added up."""

    day: str
    model: str | None
    project_id: str | None
    billed: dict[str, str]
    """Dollars by resource."""
    used: dict[str, dict[str, int]]
    """Numbers by resource and name."""


class BilledDays(BaseModel):
    """OpenAI's own numbers beside ours."""

    as_of: str
    days: list[BilledDayModel]
    seen: dict[str, str | None]
    """Dollars of what we saw of OpenAI's models, by day."""


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
    """How the deployment is."""

    as_of: str
    components: list[ComponentHealth]
    findings: list[FindingModel]
    checks: list[str]
    """What was looked at."""
    ledger: dict[str, str]
    """Where the ledger is, and up to where it holds the topics."""


class ErrorModel(BaseModel):
    """Why something was not done."""

    code: str
    message: str
    hint: str
