"""Positions of a reader that follows topics: they never exceed the records that it has returned."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.topics import produce

from tallystream.streams.kafka.follower import TopicFollower
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import TopicSpec

pytestmark = pytest.mark.kafka
EACH = 4000
"""More records than one `poll` returns, so that fetched records of other partitions have to wait."""


async def filled(kafka: KafkaSettings, topic: str, partitions: Sequence[int]) -> None:
    await ensure(kafka, (TopicSpec(topic, len(partitions)),))
    value = b"x" * 200
    await produce(kafka, topic, [(b"k", value, at) for at in partitions for _ in range(EACH)])


async def test_positions_never_exceed_the_records_given_out(kafka: KafkaSettings, prefix: str) -> None:
    topic = f"{prefix}.many"
    await filled(kafka, topic, range(6))
    given: dict[int, int] = dict.fromkeys(range(6), 0)
    async with TopicFollower(kafka, (topic,), {}) as tail:
        while sum(given.values()) < 6 * EACH:
            for batch in await tail.poll():
                assert batch.records[0].offset == given[batch.partition]
                given[batch.partition] = batch.after.offset
            for (_, partition), position in tail.positions().items():
                assert position <= given[partition]
            assert tail.behind >= 6 * EACH - sum(given.values())
        assert tail.behind == 0
