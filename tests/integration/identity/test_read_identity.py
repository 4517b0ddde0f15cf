"""The cluster's id is read from Kafka, and a recreated topic has another id."""

from __future__ import annotations

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.support.topics import create_topics, delete_topic

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.identity import read_identity
from tallystream.streams.kafka.lifecycle import opened
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka


async def test_topic_ids_change_when_a_topic_is_deleted_and_created_again(kafka: KafkaSettings, prefix: str) -> None:
    names = [f"{prefix}.a", f"{prefix}.b"]
    async with opened(AIOKafkaAdminClient(**kafka.client())) as admin:
        await create_topics(admin, *(NewTopic(name, 1, 1) for name in names))
        before = await read_identity(kafka, prefix, [*names, f"{prefix}.missing"])
        again = await read_identity(kafka, prefix, names)
        await delete_topic(admin, names[0])
        gone = await read_identity(kafka, prefix, names)
        await create_topics(admin, NewTopic(names[0], 1, 1))
        after = await read_identity(kafka, prefix, names)

    assert set(before.topic_ids) == set(names)
    assert all(len(one) == 22 for one in before.topic_ids.values())
    assert len(before.cluster_id) == 22
    assert before == again
    assert "no longer exists" in gone.difference(before)
    assert f"{prefix}.a has been deleted and created again" in after.difference(before)
    assert after.topic_ids[f"{prefix}.b"] == before.topic_ids[f"{prefix}.b"]


async def test_cluster_without_an_answer_is_unreachable() -> None:
    with pytest.raises(UnreachableError, match="cluster id"):
        await read_identity(KafkaSettings("127.0.0.1:1"), "t", [], seconds=2.0)
