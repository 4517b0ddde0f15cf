"""Checks that the topics exist with the right settings and enough replicas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.streams.kafka.admin import administering
from tallystream.streams.kafka.topic_settings import misfits
from tallystream.streams.kafka.topic_setup import settings_of
from tallystream.streams.kafka.topics import TopicSpec

WANTED_REPLICAS = 3


async def look(context: DoctorContext) -> list[Finding]:
    """Compare each topic with its specification."""
    found: list[Finding] = []
    try:
        async with administering(context.kafka) as admin:
            found += await _compare(context, admin)
    except (KafkaError, OSError) as exc:
        found.append(Finding("topics", f"Kafka does not describe its topics: {exc!r}", "try again"))
    return found


async def _compare(context: DoctorContext, admin: AIOKafkaAdminClient) -> list[Finding]:
    found: list[Finding] = []
    brokers = len((await admin.describe_cluster())["brokers"])
    existing = set(await admin.list_topics())
    described = {}
    for spec in context.topics.all():
        if spec.name in existing:
            (topic,) = await admin.describe_topics([spec.name])
            described[spec.name] = topic["partitions"]
            found += await _look_at(context, admin, spec, topic["partitions"])
        else:
            found.append(
                Finding(
                    "topics",
                    f"the topic {spec.name} does not exist",
                    "is TALLYSTREAM_PREFIX right? A gateway or worker creates missing topics when it starts",
                )
            )
    return found + replicas(described, brokers)


async def _look_at(
    context: DoctorContext, admin: AIOKafkaAdminClient, spec: TopicSpec, partitions: Sequence[Mapping[str, Any]]
) -> list[Finding]:
    found = []
    if spec.spread and len(partitions) > spec.partitions:
        found.append(
            Finding(
                "partitions",
                f"{spec.name} has {len(partitions)} partitions instead of {spec.partitions}: those added later stay"
                " empty, and everything goes on as before",
                "nothing, if TALLYSTREAM_PARTITIONS is what it was when the topics were created; never raise it to the"
                " new count (docs/operations/rebalance.md)",
            )
        )
    elif len(partitions) != spec.partitions:
        found.append(
            Finding(
                "partitions",
                f"{spec.name} has {len(partitions)} partitions instead of {spec.partitions}: sessions move to other"
                " partitions, whose state does not know which of their events were counted",
                "stop the gateways now; a count cannot be lowered: start over with another TALLYSTREAM_PREFIX"
                " (docs/operations/rebalance.md)",
            )
        )
    few = min((len(one["replicas"]) for one in partitions), default=0)
    have = await settings_of(admin, ConfigResource(ConfigResourceType.TOPIC, spec.name))
    return found + [
        Finding("topics", one.what, one.command(context.kafka.bootstrap)) for one in misfits(spec, few, have)
    ]


def replicas(topics: Mapping[str, Sequence[Mapping[str, Any]]], brokers: int) -> list[Finding]:
    """Return the problems of the topics' replicas, given Kafka's description and the number of brokers. Pure."""
    found = []
    if leaderless := [name for name, parts in topics.items() if any(one["leader"] < 0 for one in parts)]:
        found.append(
            Finding(
                "replicas",
                f"partitions without a leader, which cannot be read or written: {', '.join(leaderless)}",
                "bring back the brokers that hold them",
            )
        )
    if behind := [n for n, parts in topics.items() if any(len(one["isr"]) < len(one["replicas"]) for one in parts)]:
        found.append(
            Finding(
                "replicas",
                f"replicas are not in sync: {', '.join(behind)}",
                "is a broker down or slow? A broker that returns catches up by itself; if another one fails before"
                " that, Kafka acknowledges no writes and gateways spool",
            )
        )
    few = [n for n, parts in topics.items() if any(len(one["replicas"]) < WANTED_REPLICAS for one in parts)]
    if few and brokers >= WANTED_REPLICAS:
        found.append(
            Finding(
                "replicas",
                f"fewer than {WANTED_REPLICAS} replicas on a cluster of {brokers} brokers: {', '.join(few)}; created"
                " when fewer brokers ran, and the loss of one disk can lose a topic",
                f"use kafka-reassign-partitions to get {WANTED_REPLICAS} replicas, then set min.insync.replicas=2",
            )
        )
    return found


CHECK = Check("topics", look, needs_kafka=True)
