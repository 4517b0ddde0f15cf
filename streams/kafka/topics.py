"""The topics: what they are called, how they are kept, and that they really are so.

A topic that exists but does not fit stops the start: a wrong cleanup policy deletes money, a changed partition count
sends a session's events to a second partition, where nothing remembers the ids of the first.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, TopicAlreadyExistsError, for_code

from tallystream.schemas import topic_names
from tallystream.schemas.errors import UnfitError
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.settings import KafkaSettings

DAY_MS = 86_400_000
COMPACT = {"cleanup.policy": "compact"}
DEAD_LETTER_BYTES = {"retention.bytes": str(1 << 30), "segment.bytes": str(64 << 20)}
"""Dead letters are what strangers and broken clients can make most of: the oldest go when there are too many bytes."""
ROWS = {
    "cleanup.policy": "compact,delete",
    "min.compaction.lag.ms": str(DAY_MS),
    "retention.ms": str(400 * DAY_MS),
}


@dataclass(frozen=True)
class TopicSpec:
    """A topic as we create it. `config` is also what an existing topic must have, `at_creation` need not be."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)
    at_creation: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Topics:
    """All topics of one deployment; `prefix` keeps deployments on one cluster apart."""

    prefix: str = "tallystream"
    partitions: int = 12

    def _spec(self, name: str, partitions: int, config: dict[str, str]) -> TopicSpec:
        return TopicSpec(f"{self.prefix}.{name}", partitions, config)

    @property
    def usage(self) -> TopicSpec:
        """UsageBatch by `connection|session`; append time is the broker's, for lateness must not trust clients."""
        config = {
            "cleanup.policy": "delete",
            "retention.ms": str(14 * DAY_MS),
            "message.timestamp.type": "LogAppendTime",
        }
        return self._spec(topic_names.USAGE, self.partitions, config)

    @property
    def session_hours_changelog(self) -> TopicSpec:
        """The changelog of the table `session_hours`, co-partitioned with `usage`; the name is Faust's."""
        return TopicSpec(
            f"{self.worker_app}-session_hours-changelog",
            self.partitions,
            {"cleanup.policy": "compact", "min.compaction.lag.ms": str(DAY_MS)},
        )

    @property
    def session_hour_rows(self) -> TopicSpec:
        """SessionHourCost by `connection|session|hour`, co-partitioned with `usage`."""
        return self._spec(topic_names.SESSION_HOURS, self.partitions, ROWS)

    @property
    def hour_rows(self) -> TopicSpec:
        """HourCost partials, co-partitioned with `usage`."""
        return self._spec(topic_names.HOURS, self.partitions, ROWS)

    @property
    def connections(self) -> TopicSpec:
        """Connection by `connection`."""
        return self._spec(topic_names.CONNECTIONS, 1, COMPACT)

    @property
    def activity(self) -> TopicSpec:
        """Activity by `connection|signal|gateway`."""
        return self._spec(topic_names.ACTIVITY, 1, COMPACT)

    @property
    def deadletters(self) -> TopicSpec:
        """DeadLetter by `source`."""
        spec = self._spec(topic_names.DEADLETTERS, 1, {"cleanup.policy": "delete", "retention.ms": str(30 * DAY_MS)})
        return replace(spec, at_creation=DEAD_LETTER_BYTES)

    @property
    def openai_records(self) -> TopicSpec:
        """OpenAIRecord by `resource|query|bucket`; the lag lets the poller put right what a late writer overtook."""
        return self._spec(topic_names.OPENAI_RECORDS, 1, COMPACT | {"min.compaction.lag.ms": str(DAY_MS)})

    @property
    def openai_days(self) -> TopicSpec:
        """BilledDay by `day|model|project`."""
        return self._spec(topic_names.OPENAI_DAYS, 1, COMPACT)

    @property
    def poller_control(self) -> TopicSpec:
        """PollCursor by `resource|query`; who has its one partition is the active poller."""
        return self._spec(topic_names.POLLER_CONTROL, 1, COMPACT)

    @property
    def port_sent(self) -> TopicSpec:
        """SentEntity, PlannedRequest and SinkTerm: what the Port sink wrote. One partition, for one order of all notes,
        and the broker's time, for writers' clocks may differ.
        """
        return self._spec(topic_names.PORT_SENT, 1, COMPACT | {"message.timestamp.type": "LogAppendTime"})

    @property
    def port_control(self) -> TopicSpec:
        """Empty; who has its one partition is the active sink."""
        return self._spec(topic_names.PORT_CONTROL, 1, COMPACT)

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
            self.session_hour_rows,
            self.hour_rows,
            self.connections,
            self.activity,
            self.deadletters,
            self.openai_records,
            self.openai_days,
            self.poller_control,
            self.port_sent,
            self.port_control,
        )


async def ensure(kafka: KafkaSettings, specs: tuple[TopicSpec, ...], seconds: float = 60.0) -> None:
    """Create what is missing and check what exists. Safe to call from many processes at once.

    Raises:
        UnfitError: a topic exists with other partitions or another configuration than ours.
        UnreachableError: Kafka did not answer, or not all topics were there, within `seconds`.

    """
    try:
        async with asyncio.timeout(seconds):
            await _ensure(kafka, specs)
    except (KafkaError, OSError, TimeoutError) as exc:
        raise unreachable(kafka, exc, "let us create its topics") from exc


async def _ensure(kafka: KafkaSettings, specs: tuple[TopicSpec, ...]) -> None:
    async with administering(kafka) as admin:
        brokers = len((await admin.describe_cluster())["brokers"])
        replication = 3 if brokers >= 3 else 1
        extra = {"min.insync.replicas": "2"} if replication == 3 else {}
        existing = set(await admin.list_topics())
        missing = [spec for spec in specs if spec.name not in existing]
        if missing:
            response = await admin.create_topics(
                [
                    NewTopic(
                        spec.name,
                        spec.partitions,
                        replication,
                        topic_configs=spec.config | spec.at_creation | extra,
                    )
                    for spec in missing
                ]
            )
            for name, code, *message in response.topic_errors:
                if code not in (0, TopicAlreadyExistsError.errno):
                    raise for_code(code)(f"{name}: {message[0] if message else ''}")
        await _await_leaders(admin, specs)
        await _check(admin, specs)


async def _await_leaders(admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...]) -> None:
    """Wait until each partition has a leader: a topic just created is not yet known everywhere."""
    names = [spec.name for spec in specs]
    while True:
        found = {topic["topic"]: topic for topic in await admin.describe_topics(names)}
        ready = [
            name in found
            and found[name]["error_code"] == 0
            and bool(found[name]["partitions"])
            and all(partition["leader"] >= 0 for partition in found[name]["partitions"])
            for name in names
        ]
        if all(ready):
            for spec in specs:
                count = len(found[spec.name]["partitions"])
                if count != spec.partitions:
                    raise UnfitError(
                        f"topic {spec.name} has {count} partitions, we need {spec.partitions}",
                        "a partition count is fixed when the topic is created: set TALLYSTREAM_PARTITIONS to it,"
                        " or use another TALLYSTREAM_PREFIX",
                    )
            return
        await asyncio.sleep(0.05)


async def _check(admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...]) -> None:
    """Compare each topic's effective settings with ours."""
    for spec in specs:
        if not spec.config:
            continue
        responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name)])
        have = {
            entry[0]: entry[1] for response in responses for resource in response.resources for entry in resource[4]
        }
        for name, want in spec.config.items():
            if set(have.get(name, "").split(",")) != set(want.split(",")):
                raise UnfitError(
                    f"topic {spec.name} has {name}={have.get(name)!r}, we need {want!r}",
                    f"alter the topic (kafka-configs --alter --topic {spec.name} --add-config {name}=[{want}])"
                    " or use another TALLYSTREAM_PREFIX",
                )
