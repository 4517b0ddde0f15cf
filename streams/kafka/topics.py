"""The topics: their names and settings; `topic_setup.py` creates them and checks those that exist."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tallystream.schemas import topic_names
from tallystream.streams.kafka.topic_settings import TopicSpec

__all__ = ["COMPACT", "DAY_MS", "ROWS", "TopicSpec", "Topics"]

DAY_MS = 86_400_000
COMPACT = {"cleanup.policy": "compact"}
DEAD_LETTER_BYTES = {"retention.bytes": str(1 << 30), "segment.bytes": str(64 << 20)}
"""Broken or malicious clients can produce many dead letters, so the oldest are deleted beyond a total size."""
ROWS = {
    "cleanup.policy": "compact,delete",
    "min.compaction.lag.ms": str(DAY_MS),
    "retention.ms": str(400 * DAY_MS),
}


@dataclass(frozen=True)
class Topics:
    """All topics of one deployment; `prefix` keeps deployments on one cluster apart."""

    prefix: str = "tallystream"
    partitions: int = 12
    replication: int | None = None
    """Replicas of new topics; None: three where the cluster is made for three brokers, one otherwise."""

    def _spec(self, name: str, partitions: int, config: dict[str, str], *, promised: bool = False) -> TopicSpec:
        return TopicSpec(f"{self.prefix}.{name}", partitions, config, promised, replication=self.replication)

    def _spread(self, name: str, config: dict[str, str], *, promised: bool = False) -> TopicSpec:
        return replace(self._spec(name, self.partitions, config, promised=promised), spread=True)

    @property
    def usage(self) -> TopicSpec:
        """UsageBatch by `connection|session`; timestamps are the broker's append time, because lateness must not depend
        on clients' clocks.
        """
        config = {
            "cleanup.policy": "delete",
            "retention.ms": str(14 * DAY_MS),
            "message.timestamp.type": "LogAppendTime",
        }
        return self._spread(topic_names.USAGE, config, promised=True)

    @property
    def calls(self) -> TopicSpec:
        """CallBatch, all under one key: sightings of model calls in spans, until they are joined.

        Co-partitioned with `usage`; its timestamps are the broker's append time, which is the only clock of the joining
        stage.
        """
        config = {
            "cleanup.policy": "delete",
            "retention.ms": str(14 * DAY_MS),
            "message.timestamp.type": "LogAppendTime",
        }
        return self._spread(topic_names.CALLS, config, promised=True)

    @property
    def calls_changelog(self) -> TopicSpec:
        """The changelog of the table `calls`, co-partitioned with the topic; the name is Faust's."""
        return TopicSpec(
            f"{self.worker_app}-calls-changelog",
            self.partitions,
            {"cleanup.policy": "compact", "min.compaction.lag.ms": str(DAY_MS)},
            spread=True,
            replication=self.replication,
        )

    @property
    def session_hours_changelog(self) -> TopicSpec:
        """The changelog of the table `session_hours`, co-partitioned with `usage`; the name is Faust's."""
        return TopicSpec(
            f"{self.worker_app}-session_hours-changelog",
            self.partitions,
            {"cleanup.policy": "compact", "min.compaction.lag.ms": str(DAY_MS)},
            spread=True,
            replication=self.replication,
        )

    @property
    def session_hour_rows(self) -> TopicSpec:
        """SessionHourCost by `connection|session|hour`, co-partitioned with `usage`."""
        return self._spread(topic_names.SESSION_HOURS, ROWS, promised=True)

    @property
    def hour_rows(self) -> TopicSpec:
        """HourCost partials, co-partitioned with `usage`."""
        return self._spread(topic_names.HOURS, ROWS, promised=True)

    @property
    def witness(self) -> TopicSpec:
        """WitnessBatch by `connection|session`: what metrics and spans say of usage that logs are counted for. It is
        no cost, so a 200 does not promise it to survive the loss of a broker.
        """
        config = {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)}
        return self._spread(topic_names.WITNESS, config)

    @property
    def session_links(self) -> TopicSpec:
        """SessionLink by `connection|session`: which session started which; kept as long as rows are."""
        return self._spec(topic_names.SESSION_LINKS, 1, ROWS, promised=True)

    @property
    def connections(self) -> TopicSpec:
        """Connection by `connection`."""
        return self._spec(topic_names.CONNECTIONS, 1, COMPACT, promised=True)

    @property
    def activity(self) -> TopicSpec:
        """Activity by `connection|signal|gateway`."""
        return self._spec(topic_names.ACTIVITY, 1, COMPACT)

    @property
    def deadletters(self) -> TopicSpec:
        """DeadLetter by `source`."""
        config = {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)}
        spec = self._spec(topic_names.DEADLETTERS, 1, config, promised=True)
        return replace(spec, at_creation=DEAD_LETTER_BYTES)

    @property
    def openai_records(self) -> TopicSpec:
        """OpenAIRecord by `resource|query|bucket`; the compaction lag lets the poller repair keys that a late writer
        has overwritten.
        """
        config = COMPACT | {"min.compaction.lag.ms": str(DAY_MS)}
        return self._spec(topic_names.OPENAI_RECORDS, 1, config, promised=True)

    @property
    def openai_days(self) -> TopicSpec:
        """BilledDay by `day|model|project`."""
        return self._spec(topic_names.OPENAI_DAYS, 1, COMPACT)

    @property
    def poller_control(self) -> TopicSpec:
        """PollCursor by `resource|query`; the member that owns its one partition is the active poller."""
        return self._spec(topic_names.POLLER_CONTROL, 1, COMPACT)

    @property
    def accounts(self) -> TopicSpec:
        """AccountLink by `connection|provider|project|key`."""
        return self._spec(topic_names.ACCOUNTS, 1, COMPACT, promised=True)

    @property
    def reconciliation_days(self) -> TopicSpec:
        """ReconciledDay by `provider|scope|day`."""
        return self._spec(topic_names.RECONCILIATION_DAYS, 1, COMPACT)

    @property
    def port_sent(self) -> TopicSpec:
        """SentEntity, PlannedRequest and SinkTerm: what the Port sink wrote. It has one partition, so that all notes
        are ordered, and the broker's append time, because writers' clocks may differ.
        """
        return self._spec(topic_names.PORT_SENT, 1, COMPACT | {"message.timestamp.type": "LogAppendTime"})

    @property
    def port_control(self) -> TopicSpec:
        """Always empty; the member that owns its one partition is the active sink."""
        return self._spec(topic_names.PORT_CONTROL, 1, COMPACT)

    @property
    def console_audit(self) -> TopicSpec:
        """AuditEntry by `subject`: changes made in the console, kept for 400 days."""
        return self._spec(topic_names.CONSOLE_AUDIT, 1, {"cleanup.policy": "delete", "retention.ms": str(400 * DAY_MS)})

    @property
    def sink_group(self) -> str:
        """The consumer group that elects the active sink."""
        return f"{self.prefix}-sink"

    @property
    def poller_group(self) -> str:
        """The consumer group that elects the active poller."""
        return f"{self.prefix}-poller"

    @property
    def worker_app(self) -> str:
        """Faust's app id, which is the worker's consumer group."""
        return f"{self.prefix}-worker"

    def all(self) -> tuple[TopicSpec, ...]:
        """Return every topic."""
        return (
            self.usage,
            self.session_hours_changelog,
            self.calls,
            self.calls_changelog,
            self.session_hour_rows,
            self.hour_rows,
            self.session_links,
            self.witness,
            self.connections,
            self.activity,
            self.deadletters,
            self.openai_records,
            self.openai_days,
            self.poller_control,
            self.accounts,
            self.reconciliation_days,
            self.port_sent,
            self.port_control,
            self.console_audit,
        )
