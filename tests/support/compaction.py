"""Forces compaction of topics within a test, and reads what it leaves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tallystream.streams.kafka.reader import TopicReader
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import TopicSpec

TINY = {
    "segment.bytes": "1048576", "segment.ms": "100", "max.compaction.lag.ms": "1", "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "0",
}  # fmt: skip
"""Added to a topic's settings, which components check. Topics with a minimal lag need old timestamps."""


async def tiny(kafka: KafkaSettings, *specs: TopicSpec) -> None:
    """Make the segments of topics as small as Kafka allows, and compact them as soon as it can."""
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        for spec in specs:
            config = spec.config | TINY
            if "min.compaction.lag.ms" in config:
                config["max.compaction.lag.ms"] = config["min.compaction.lag.ms"]  # the least that is allowed
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name, configs=config)])
    finally:
        await admin.close()


def long_ago() -> Iterator[int]:
    """Yield timestamps (ms) of three days ago, each far enough from the one before for a new segment."""
    began = int(time.time() * 1000) - 3 * 86_400_000
    return (began + 120 * number for number in itertools.count())


async def holes(kafka: KafkaSettings, topic: str) -> float:
    """Return which share of a topic's offsets compaction has emptied."""
    kept = 0
    async with TopicReader(kafka, topic) as reader:
        async for batch in reader.batches():
            kept += len(batch.records)
        ends = sum(reader.extent.end.values())
    return 1 - kept / ends if ends else 0.0
