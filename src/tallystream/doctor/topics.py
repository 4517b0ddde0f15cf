"""Are the topics as they must be?"""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from tallystream.doctor.model import Check, Context, Finding
from tallystream.streams.topics import TopicSpec


async def look(context: Context) -> list[Finding]:
    """Compare each topic with its specification."""
    admin = AIOKafkaAdminClient(**context.kafka.client())
    found = []
    try:
        await admin.start()
        existing = set(await admin.list_topics())
        for spec in context.topics.all():
            if spec.name in existing:
                found += await _look_at(admin, spec)
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


async def _look_at(admin: AIOKafkaAdminClient, spec: TopicSpec) -> list[Finding]:
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
    if leaderless := [one["partition"] for one in partitions if one["leader"] < 0]:
        found.append(
            Finding(
                "partitions",
                f"{spec.name} has partitions without a leader: {leaderless}",
                "bring the brokers back that hold them",
            )
        )
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


CHECK = Check("topics", look, needs_kafka=True)
