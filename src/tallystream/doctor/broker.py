"""Checks that Kafka answers."""

from __future__ import annotations

import asyncio

from aiokafka.errors import KafkaError

from tallystream.doctor.model import Check, DoctorContext, Finding
from tallystream.streams.kafka.admin import administering

PATIENCE = 8.0


async def look(context: DoctorContext) -> list[Finding]:
    """Request the metadata of the cluster."""
    try:
        async with asyncio.timeout(PATIENCE), administering(context.kafka, request_timeout=PATIENCE) as admin:
            brokers = (await admin.describe_cluster())["brokers"]
    except (KafkaError, OSError, TimeoutError) as exc:
        return [
            Finding(
                "broker",
                f"Kafka at {context.kafka.bootstrap} does not answer: {str(exc) or type(exc).__name__}",
                "gateways keep accepting requests into their spools; start Kafka, or find out why it hangs:"
                " `tallystream status`, DATA_DIR/logs/kafka.log",
            )
        ]
    if not brokers:
        return [Finding("broker", "the cluster has no broker", "start one")]
    return []


CHECK = Check("broker", look)
