"""Are the topics as they must be?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from tallystream.doctor.model import Check, Context, Finding
from tallystream.streams.topics import TopicSpec

WANTED_REPLICAS = 3


async def look(context: Context) -> list[Finding]:
    """Compare each topic with its specification."""
    admin = AIOKafkaAdminClient(**context.kafka.client())
    found = []
    try:
        await admin.start()
        brokers = len((await admin.describe_cluster())["brokers"])
        existing = set(await admin.list_topics())
        for spec in context.topics.all():
            if spec.name in existing:
                found += await _look_at(admin, spec, brokers)
            else:
                found.append(
                    Finding(
                        "topics",
                        f"there is no topic {spec.name}",
                        "is TALLYSTREAM_PREFIX right? A starting gateway or worker creates what is missing",
                    )
                )
    except (KafkaError, OSError) as exc:
        found.append(Finding("topics", f"Kafka does not describe its topics: {exc!r}", "try again"))
    finally:
        await admin.close()
    return found


async def _look_at(admin: AIOKafkaAdminClient, spec: TopicSpec, brokers: int) -> list[Finding]:
    found = []
    (described,) = await admin.describe_topics([spec.name])
    partitions = described["partitions"]
    if len(partitions) != spec.partitions:
        found.append(
            Finding(
                "partitions",
                f"{spec.name} has {len(partitions)} partitions instead of {spec.partitions}: sessions move to others,"
                " where nobody knows which events were counted",
                "stop the gateways now; a count cannot be lowered: start over with another TALLYSTREAM_PREFIX"
                " (docs/operations/rebalance.md)",
            )
        )
    found += replicas(spec.name, partitions, brokers)
    if not spec.config:
        return found
    responses = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name)])
    have = {entry[0]: entry[1] for response in responses for resource in response.resources for entry in resource[4]}
    for name, want in spec.config.items():
        if set(have.get(name, "").split(",")) != set(want.split(",")):
            found.append(
                Finding(
                    "topics",
                    f"{spec.name} has {name}={have.get(name)!r} instead of {want!r}",
                    f"kafka-configs --alter --topic {spec.name} --add-config {name}=[{want}]",
                )
            )
    return found


def replicas(name: str, partitions: Sequence[Mapping[str, Any]], brokers: int) -> list[Finding]:
    """Return what a topic's replicas say, as Kafka describes them, in a cluster of so many brokers. Pure."""
    found = []
    if leaderless := [one["partition"] for one in partitions if one["leader"] < 0]:
        found.append(
            Finding(
                "partitions",
                f"{name} has partitions without a leader: {leaderless}",
                "bring the brokers back that hold them",
            )
        )
    if behind := [one["partition"] for one in partitions if len(one["isr"]) < len(one["replicas"])]:
        found.append(
            Finding(
                "replicas",
                f"{name} has partitions with a replica that is not in sync: {behind}",
                "is a broker down? One that comes back catches up by itself; with one in-sync replica less, nothing is"
                " acknowledged",
            )
        )
    kept = min((len(one["replicas"]) for one in partitions), default=0)
    if 0 < kept < WANTED_REPLICAS <= brokers:
        found.append(
            Finding(
                "replicas",
                f"{name} has {kept} replica(s) on a cluster of {brokers} brokers: it was created when fewer ran, and a"
                " lost disk is a lost topic",
                f"kafka-reassign-partitions to {WANTED_REPLICAS} replicas, then min.insync.replicas=2",
            )
        )
    return found


CHECK = Check("topics", look, needs_kafka=True)
