"""`/status` of every ops port: how a component is, typed, for programs (`wait`, `status`, `doctor` and yours).

Metrics are for Prometheus: they may be renamed with notice. Fields here are only added.
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
    """What a gateway holds that is not acknowledged by Kafka yet."""

    component: Literal["gateway"] = "gateway"
    requests_in_progress: int
    """Requests being answered now."""
    quarantine_requests: int
    """Requests whose ingest id is not known yet, kept until Kafka answers."""
    quarantine_bytes: int
    spool_messages: int
    spool_bytes: int
    spool_max_bytes: int
    """When the spool is this large, requests are answered 503."""
    spool_oldest_age_seconds: float
    """Age of the oldest message in the spool, 0 when it is empty."""
    spool_writable: bool = True
    """Whether there is a spool file to write; if not, what Kafka does not take at once is answered 503."""
    spool_files_unopened: int = 0
    """Spool files of this deployment that cannot be opened now."""
    spool_files_damaged: int = 0
    """Spool files that SQLite calls corrupt and that were set aside."""
    spool_foreign_messages: int = 0
    """Messages of another prefix or cluster in the spool's directory."""
    topics_unfit: bool = False
    """Whether the cluster's topics do not fit, so that everything is spooled."""
    partitions_away: int = 0
    """Partitions that do not acknowledge; what belongs to them is spooled."""
    kafka_live: bool
    """Whether Kafka acknowledges in time; if not, the spool takes what comes."""
    connections: int
    """Connections known to it."""


class PartitionStatus(BaseModel):
    """One partition of the usage topic at a worker; offsets are those of the next message."""

    partition: int
    expected: int
    """Folded up to here."""
    applied: int
    """Acknowledged in the changelog up to here."""
    end: int | None
    """End of the topic as last seen; None before the first fetch."""


class WorkerStatus(BaseModel):
    """What a worker folds."""

    component: Literal["worker"] = "worker"
    book: str
    """Hash of the price book."""
    rebalances: int
    """Assignments since it started."""
    recovering: int
    """Partitions assigned to it whose state it is still reading."""
    partitions: list[PartitionStatus]
    """Those it owns and has recovered."""


class PollerStatus(BaseModel):
    """What a poller does."""

    component: Literal["poller"] = "poller"
    active: bool
    """Whether it polls; a standby waits."""
    days_offset: int
    """Offset up to which openai.days says what openai.records does; 0 while both are read from the beginning."""


class ReadPosition(BaseModel):
    """How far a topic has been read."""

    topic: str
    partition: int
    offset: int
    """Of the next record."""


class SinkStatus(BaseModel):
    """What a Port sink has before it. All of it is 0 or False, at a sink that is active: Port has everything."""

    component: Literal["sink"] = "sink"
    active: bool
    """Whether it writes to Port; a standby waits."""
    sweep_running: bool
    """Whether everything is being compared with what was sent."""
    repetitions_due: int
    """Requests of unknown fate whose entities are sent again soon."""
    backlog_documents: int
    """Changed documents that are not mapped yet."""
    backlog_entities: int
    """Entities on their way to Port."""
    behind_seconds: float
    """Age of the oldest change that is not in Port yet."""
    read: list[ReadPosition]
    """Sources, up to where they are in the sink's local copy."""


class ExporterStatus(BaseModel):
    """What an exporter has read."""

    component: Literal["exporter"] = "exporter"
    caught_up: bool
    """Whether the rows topic has been read to its end once; before that no counter is shown."""
    kafka_failures: int
    """Times Kafka did not answer since it started."""


class LedgerStatus(BaseModel):
    """How far a ledger is."""

    component: Literal["ledger"] = "ledger"
    active: bool
    """Whether it writes; another one stands by, or waits for its database."""
    caught_up: bool
    """Whether it holds all that the topics held when it opened them; a standby says so, too."""
    behind: int
    """Offsets that are still to be read."""
    unreadable: int
    """Records since it started that are not what their topic should hold."""
    read: list[ReadPosition]
    """Topics, up to where they are in the database."""


class ConsoleStatus(BaseModel):
    """What a console serves."""

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
"""What one kind of component tells of itself: a new component adds its model here."""


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
    """None: it has only just started, and cannot tell yet."""
