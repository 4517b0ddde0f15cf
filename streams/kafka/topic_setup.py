"""Creating the topics, and the check that the cluster's topics match them.

An existing topic with unsuitable settings stops the start: a wrong cleanup policy deletes cost data, and a changed
partition count sends a session's events to another partition, whose state does not know the ids already counted. It is
refused before anything is created with the same wrong setting. A count that an administrator has raised is accepted
(`_check_counts`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)

from tallystream.schemas.errors import UnfitError, UnreachableError
from tallystream.streams.kafka.admin import administering, persistently
from tallystream.streams.kafka.consumer import new_consumer
from tallystream.streams.kafka.errors import unreachable
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_settings import FUTURE, REPLICAS, SELF_MENDED, Misfit, TopicSpec, misfits

log = structlog.get_logger()
LEADER_PATIENCE = 3.0
"""Seconds to wait for the leader of a partition of an existing topic."""
TOPIC_SETTING = 1
"""Where a setting comes from: the topic's own (DescribeConfigs, config_source)."""


async def ensure(
    kafka: KafkaSettings,
    specs: tuple[TopicSpec, ...],
    seconds: float = 60.0,
    *,
    strict: bool = True,
) -> None:
    """Create missing topics and check existing ones. Safe to call from many processes at once.

    Without `strict`, a wrong setting is only logged, and only a wrong partition count is an error. This is for
    processes that have already begun to write and must not stop because of a setting changed later.

    If the cluster is configured for three brokers and fewer are running, topics are created only with an explicit
    `replication`, because raising it later requires moving data.

    Raises:
        UnfitError: an existing topic has a different partition count or configuration.
        UnreachableError: Kafka did not answer, or not all topics existed, within `seconds`.

    """
    created: set[str] = set()
    try:
        async with asyncio.timeout(seconds):
            async with administering(kafka) as admin:
                await persistently(lambda: _ensure(admin, kafka, specs, strict, created), seconds)
            if created:
                await _await_answers(kafka, [spec for spec in specs if spec.name in created])
    except (KafkaError, OSError, TimeoutError) as exc:
        raise unreachable(kafka, exc, "let us create its topics") from exc


class TopicCheck:
    """`ensure` for a process that begins its work again after an outage: call it at each beginning.

    It is strict until it has succeeded once. After that the process has written, and a setting that was changed while
    it ran must not stop it.
    """

    def __init__(self, kafka: KafkaSettings, specs: tuple[TopicSpec, ...]) -> None:
        self._kafka = kafka
        self._specs = specs
        self._passed = False

    async def __call__(self) -> None:
        """Do what `ensure` does.

        Raises:
            UnfitError: an existing topic has a different partition count or, the first time, configuration.
            UnreachableError: Kafka did not answer.

        """
        await ensure(self._kafka, self._specs, strict=not self._passed)
        self._passed = True


async def _ensure(
    admin: AIOKafkaAdminClient, kafka: KafkaSettings, specs: tuple[TopicSpec, ...], strict: bool, created: set[str]
) -> None:
    """Create and check once. The names of topics that may have been created are added to `created`, even on failure."""
    existing = set(await admin.list_topics())
    missing = [spec for spec in specs if spec.name not in existing]
    if missing:
        # Validate the settings before anything is created.
        await _described(admin, tuple(spec for spec in specs if spec.name in existing), created & existing)
        auto = 0 if all(spec.replication for spec in missing) else await _replicas(admin)
        replicas = {spec.name: spec.replication or auto for spec in missing}
        future = await _knows_future(admin)
        created.update(replicas)
        response = await admin.create_topics(
            [
                NewTopic(
                    spec.name,
                    spec.partitions,
                    replicas[spec.name],
                    topic_configs=spec.creation(replicas[spec.name], future=future),
                )
                for spec in missing
            ]
        )
        for name, code, *message in response.topic_errors:
            if code not in (0, TopicAlreadyExistsError.errno):
                raise for_code(code)(f"{name}: {message[0] if message else ''}")
    described = await _described(admin, specs, created)
    await _check(admin, kafka, specs, described, strict)


async def _replicas(admin: AIOKafkaAdminClient) -> int:
    """Return how many replicas a new topic gets.

    Raises:
        UnreachableError: the cluster is configured for three or more brokers, but fewer are running.

    """
    brokers = await _brokers(admin)
    if len(brokers) >= REPLICAS:
        return REPLICAS
    meant = await _meant_for(admin, brokers)
    if meant >= REPLICAS:
        raise UnreachableError(
            f"the cluster is set up for {meant} brokers, but {len(brokers)} run: topics created now"
            " would have too few replicas",
            "start the other brokers; TALLYSTREAM_REPLICATION says how many replicas are enough",
        )
    return 1


async def _brokers(admin: AIOKafkaAdminClient) -> list[int]:
    """Return the ids of the brokers, at least one.

    Raises:
        NodeNotReadyError: none is registered, for the one that answers has just started; it knows no topics, either.

    """
    found = [broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]]
    if not found:
        raise NodeNotReadyError("the broker has just started, and is not registered yet")
    return found


async def _knows_future(admin: AIOKafkaAdminClient) -> bool:
    """Tell whether the brokers have the setting `topic_settings.FUTURE`; without the permission to ask, no."""
    broker, *_ = await _brokers(admin)
    return f"log.{FUTURE}" in await settings_of(admin, ConfigResource(ConfigResourceType.BROKER, str(broker)))


async def _meant_for(admin: AIOKafkaAdminClient, brokers: Sequence[int]) -> int:
    """Return the number of brokers that the cluster's configuration implies, 0 when unknown."""
    said = 0
    for broker in brokers[:1]:
        resource = ConfigResource(ConfigResourceType.BROKER, str(broker))
        have = await settings_of(admin, resource)
        voters = [one for one in have.get("controller.quorum.voters", "").split(",") if one]
        replicas = have.get("default.replication.factor", "")
        said = max(len(voters), int(replicas) if replicas.isdigit() else 0)
    return said


async def settings_of(admin: AIOKafkaAdminClient, resource: ConfigResource) -> dict[str, str]:
    """Return the effective settings of a topic or broker; empty without the permission to read them.

    Raises:
        KafkaError: Kafka did not answer.

    """
    responses = await admin.describe_configs([resource])
    return {
        entry[0]: entry[1] or "" for response in responses for found in response.resources for entry in found[4] or ()
    }


async def _described(
    admin: AIOKafkaAdminClient, specs: tuple[TopicSpec, ...], created: set[str]
) -> dict[str, list[Any]]:
    """Return each topic's partitions, once every one has a leader: a topic just created is not yet known everywhere.

    A partition of an existing topic may be offline. That must not stop everything else, so it is waited for only
    briefly.
    """
    names = [spec.name for spec in specs]
    deadline = asyncio.get_running_loop().time() + LEADER_PATIENCE
    while True:
        found = {topic["topic"]: topic for topic in await admin.describe_topics(names)}
        there = {name for name in names if name in found and found[name]["partitions"]}
        led = {name for name in there if all(one["leader"] >= 0 for one in found[name]["partitions"])}
        late = asyncio.get_running_loop().time() > deadline
        if led == set(names) or (late and there == set(names) and created <= led):
            break
        await asyncio.sleep(0.05)
    _check_counts(specs, {name: len(found[name]["partitions"]) for name in names})
    return {name: found[name]["partitions"] for name in names}


def _check_counts(specs: tuple[TopicSpec, ...], counts: Mapping[str, int]) -> None:
    """Check the partition counts.

    A topic whose count was raised later is used as before: all writers name the partitions they write to, so those
    beyond ours stay empty. That it was raised shows in the others, which were not; if all of them have another count,
    our setting is the wrong one, and sessions would move to partitions that do not know their events.

    Raises:
        UnfitError: a topic has another count.

    """
    kept = any(spec.spread and counts[spec.name] == spec.partitions for spec in specs)
    for spec in specs:
        count = counts[spec.name]
        if spec.spread and kept and count > spec.partitions:
            log.warning("partitions_unused", topic=spec.name, partitions=count, used=spec.partitions)
        elif count != spec.partitions:
            raise UnfitError(
                f"topic {spec.name} has {count} partitions, we need {spec.partitions}",
                "a partition count is fixed when the topic is created: set TALLYSTREAM_PARTITIONS to it,"
                " or use another TALLYSTREAM_PREFIX",
            )


async def _check(
    admin: AIOKafkaAdminClient,
    kafka: KafkaSettings,
    specs: tuple[TopicSpec, ...],
    described: Mapping[str, Sequence[Mapping[str, Any]]],
    strict: bool,
) -> None:
    """Compare each topic's effective settings with ours; correct those that can be corrected safely."""
    for spec in specs:
        replicas = min(len(one["replicas"]) for one in described[spec.name])
        resource = ConfigResource(ConfigResourceType.TOPIC, spec.name)
        for one in misfits(spec, replicas, await settings_of(admin, resource)):
            if one.name in SELF_MENDED:
                await _mend(admin, kafka, one)
                continue
            if not strict:
                log.error("topic_setting", why=one.what, next=one.command(kafka.bootstrap))
                continue
            raise UnfitError(one.what, f"{one.command(kafka.bootstrap)} or use another TALLYSTREAM_PREFIX")


async def _mend(admin: AIOKafkaAdminClient, kafka: KafkaSettings, misfit: Misfit) -> None:
    """Add a setting to a topic's own; log it, or log the command when we lack the permission."""
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, misfit.topic)])
    # Since version 1 an entry says where its value comes from (1: the topic itself); before, whether it is a default.
    own = {
        entry[0]: entry[1]
        for response in responses
        for found in response.resources
        for entry in found[4] or ()
        if (entry[3] == TOPIC_SETTING if response.API_VERSION >= 1 else not entry[3]) and not entry[2]
    }
    wanted = ConfigResource(ConfigResourceType.TOPIC, misfit.topic, configs=own | {misfit.name: misfit.want})
    codes = [found[0] for response in await admin.alter_configs([wanted]) for found in response.resources]
    if any(codes):
        log.warning("topic_not_mended", why=misfit.what, next=misfit.command(kafka.bootstrap))
    else:
        log.info("topic_mended", topic=misfit.topic, setting=f"{misfit.name}={misfit.want}")


async def _await_answers(kafka: KafkaSettings, created: Sequence[TopicSpec]) -> None:
    """Wait until the leader of every new partition answers.

    On brokers without the fix of KAFKA-15591, an idempotent producer with several requests in flight may lose records
    of a topic whose leader has not fully loaded it yet.
    """
    partitions = [TopicPartition(spec.name, number) for spec in created for number in range(spec.partitions)]
    async with opened(new_consumer(kafka)) as consumer:
        while True:
            try:
                await consumer.end_offsets(partitions)
            except (UnknownTopicOrPartitionError, NotLeaderForPartitionError, LeaderNotAvailableError):
                await asyncio.sleep(0.05)
            else:
                return
