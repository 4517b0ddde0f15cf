"""`/status` of every ops port: a component's state in typed form for programs (`wait`, `status`, `doctor` and yours).

Programs should read this instead of metrics: metrics may be renamed with notice, whereas fields here are only added.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field


class Verdict(BaseModel):
    """The answer of `/healthz` or `/readyz`."""

    ok: bool
    why: str
    """The reason, for the person on call; may be empty when all is well."""


class GatewayStatus(BaseModel):
    """Data in a gateway that Kafka has not acknowledged yet."""

    component: Literal["gateway"] = "gateway"
    requests_in_progress: int
    """Requests being answered now."""
    quarantine_requests: int
    """Requests whose ingest id is not known yet, kept until Kafka answers."""
    quarantine_bytes: int
    spool_messages: int
    spool_bytes: int
    spool_max_bytes: int
    """When the spool reaches this size, requests are answered with 503."""
    spool_oldest_age_seconds: float
    """Age of the oldest message in the spool, 0 when it is empty."""
    spool_writable: bool = True
    """Whether a spool file can be written; if not, requests that Kafka does not accept at once are answered with
    503."""
    spool_files_unopened: int = 0
    """Spool files of this deployment that cannot be opened now."""
    spool_files_damaged: int = 0
    """Spool files that SQLite calls corrupt and that were set aside."""
    spool_foreign_messages: int = 0
    """Messages of another prefix or cluster in the spool's directory."""
    topics_unfit: bool = False
    """Whether the settings of the cluster's topics are unsuitable, so that everything is spooled."""
    partitions_away: int = 0
    """Partitions that do not acknowledge; their messages are spooled."""
    kafka_live: bool
    """Whether Kafka acknowledges in time; if not, messages are spooled."""
    connections: int
    """Connections known to it."""


class PartitionStatus(BaseModel):
    """One partition of the usage topic at a worker; offsets are those of the next message."""

    partition: int
    expected: int
    """Processed up to this offset."""
    applied: int
    """Acknowledged in the changelog up to this offset."""
    end: int | None
    """End of the topic as last seen; None before the first fetch."""


class WorkerStatus(BaseModel):
    """A worker's progress."""

    component: Literal["worker"] = "worker"
    book: str
    """Hash of the price book."""
    rebalances: int
    """Assignments since it started."""
    recovering: int
    """Assigned partitions whose state is still being read."""
    partitions: list[PartitionStatus]
    """Assigned partitions whose state has been recovered."""


class ResourceStatus(BaseModel):
    """A poller's state of one resource since it started."""

    name: str
    key: str
    """The kind of API key it needs."""
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    reason: str | None = None
    """Why its last poll failed; None: it has not."""
    message: str = ""
    """The error message."""
    next_step: str = ""


class ReadPosition(BaseModel):
    """How far a topic has been read."""

    topic: str
    partition: int
    offset: int
    """Offset of the next record."""


class PollerStatus(BaseModel):
    """A poller's state."""

    component: Literal["poller"] = "poller"
    active: bool
    """Whether it polls; a standby waits."""
    days_offset: int
    """Offset in openai.records up to which openai.days is complete; 0 while both are read from the beginning."""
    interval_seconds: float = 0.0
    keys: list[str] = Field(default_factory=list)
    """The kinds of API keys that are set."""
    resources: list[ResourceStatus] = Field(default_factory=list)
    held_days: dict[str, int] = Field(default_factory=dict)
    """Days that keep their previous figures, by reason: `invalid` or `incomplete`."""
    not_polled: list[str] = Field(default_factory=list)
    """Why kinds of the mapping cannot be polled."""
    reconciled: list[ReadPosition] | None = None
    """Positions up to which the statements of reconciliation.days are complete; empty while their sources are read from
    the beginning. None: a release before these were reported."""


class SinkStatus(BaseModel):
    """The pending work of a Port sink. Port has everything when an active sink shows 0 or False in all of it."""

    component: Literal["sink"] = "sink"
    active: bool
    """Whether it writes to Port; a standby waits."""
    sweep_running: bool
    """Whether a comparison of everything with what was sent is running."""
    repetitions_due: int
    """Requests with unknown outcome whose entities will be sent again soon."""
    backlog_documents: int
    """Changed documents that have not been mapped yet."""
    backlog_entities: int
    """Entities on their way to Port."""
    behind_seconds: float
    """Age of the oldest change that is not in Port yet."""
    read: list[ReadPosition]
    """How far each source is in the sink's local copy."""
    problem: str | None = None
    """A general problem with Port; None: it works."""
    next_step: str = ""
    """What to do about it."""
    kinds: list[str] = Field(default_factory=list)
    """The mapped kinds of records."""
    missing_blueprints: dict[str, list[str]] = Field(default_factory=dict)
    """By kind that is not written, the blueprints that Port lacks."""
    unmatched_kinds: list[str] = Field(default_factory=list)
    """Kinds with records of which the mapping makes nothing."""
    deferred_entities: int = 0
    """Entities that wait for another attempt, mostly for entities they relate to."""
    written_entities: int = 0
    """Since it started, as the following numbers."""
    refused_entities: int = 0
    unmapped_records: int = 0
    requests_per_second: float = 0.0
    """The pace it keeps to; 0 on standby."""
    remaining_calls: int | None = None
    """Calls left in the rate-limit period according to Port; None: unknown."""
    not_registered: str | None = None
    """Why the sink is not registered as an integration in Port; delivery does not depend on it."""


class ExporterStatus(BaseModel):
    """An exporter's progress."""

    component: Literal["exporter"] = "exporter"
    caught_up: bool
    """Whether the rows topic has been read to its end once; counters are shown only after that."""
    kafka_failures: int
    """Times Kafka did not answer since it started."""


class CoverageStatus(BaseModel):
    """A connection of which a witness saw more tokens in the last day than were counted."""

    connection_id: str
    client: str
    counted: int
    witnessed: int
    missing: int
    witness: str
    """The signal that tells most: spans or metrics."""
    versions: list[str]
    """Versions of the client."""


class LedgerStatus(BaseModel):
    """A ledger's progress."""

    component: Literal["ledger"] = "ledger"
    active: bool
    """Whether it writes; otherwise it is on standby or waits for its database."""
    caught_up: bool
    """Whether it holds everything that the topics contained when it opened them; a standby reports true as well."""
    behind: int
    """Number of offsets still to be read."""
    unreadable: int
    """Records read since it started that are invalid for their topic."""
    read: list[ReadPosition]
    """How far each topic is in the database."""
    coverage: list[CoverageStatus] = []
    """Connections with missing tokens, those with most first."""


class ConsoleStatus(BaseModel):
    """A console's address."""

    component: Literal["console"] = "console"
    url: str
    """Its base URL."""
    auth: Literal["token", "proxy"]


class KafkaStatus(BaseModel):
    """The embedded broker."""

    component: Literal["kafka"] = "kafka"
    bootstrap: str
    """`host:port`"""
    jvm_pid: int


Detail = Annotated[
    GatewayStatus
    | WorkerStatus
    | PollerStatus
    | SinkStatus
    | ExporterStatus
    | LedgerStatus
    | ConsoleStatus
    | KafkaStatus,
    Field(discriminator="component"),
]
"""The details of each kind of component: a new component adds its model here."""


class ComponentReport(BaseModel):
    """The whole answer."""

    component: str
    """The subcommand that runs it: gateway, worker, poller, ..."""
    version: str
    """Of tallystream."""
    pid: int
    started_at: datetime
    """UTC."""
    healthy: Verdict
    ready: Verdict
    detail: Detail | None
    """None when it has only just started and does not know yet."""
