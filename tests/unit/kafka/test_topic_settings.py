"""The required settings of topics, depending on their replicas, and the commands that correct them."""

from __future__ import annotations

import pytest

from tallystream.streams.kafka.topic_settings import TopicSpec, misfits
from tallystream.streams.kafka.topics import Topics

TOPICS = Topics("t")
USAGE = TOPICS.usage
DEFAULTS = {
    "cleanup.policy": "delete",
    "retention.ms": "1209600000",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "1",
    "unclean.leader.election.enable": "false",
    "flush.messages": "9223372036854775807",
    "min.compaction.lag.ms": "0",
}


def wrong(spec: TopicSpec, replicas: int, **changes: str) -> list[str]:
    have = DEFAULTS | {name.replace("_", "."): value for name, value in changes.items()}
    return [one.name for one in misfits(spec, replicas, have)]


@pytest.mark.parametrize(
    ("replicas", "changes", "names"),
    [
        (1, {}, ["flush.messages"]),
        (1, {"flush_messages": "1"}, []),
        (2, {}, ["flush.messages"]),
        (3, {}, ["min.insync.replicas"]),
        (3, {"min_insync_replicas": "2"}, []),
        (3, {"min_insync_replicas": "3"}, []),
        (3, {"min_insync_replicas": "2", "unclean_leader_election_enable": "true"}, ["unclean.leader.election.enable"]),
        (3, {"min_insync_replicas": "2", "max_message_bytes": "100000"}, ["max.message.bytes"]),
        (3, {"min_insync_replicas": "2", "retention_bytes": "1000000"}, ["retention.bytes"]),
        (3, {"min_insync_replicas": "2", "retention_ms": "3600000"}, ["retention.ms"]),
        (3, {"min_insync_replicas": "2", "retention_ms": "9999999999"}, []),
        (3, {"min_insync_replicas": "2", "retention_ms": "-1"}, []),
        (3, {"min_insync_replicas": "2", "cleanup_policy": "compact"}, ["cleanup.policy"]),
        (3, {"min_insync_replicas": "2", "message_timestamp_type": "CreateTime"}, ["message.timestamp.type"]),
    ],
)
def test_required_topic_settings_are_checked(replicas: int, changes: dict[str, str], names: list[str]) -> None:
    assert wrong(USAGE, replicas, **changes) == names


def test_topics_with_producers_times_accept_any_time_where_brokers_limit_it() -> None:
    limited = {"message_timestamp_after_max_ms": "3600000"}
    rows = TOPICS.connections
    assert wrong(rows, 1, cleanup_policy="compact", flush_messages="1", **limited) == ["message.timestamp.after.max.ms"]
    assert wrong(USAGE, 1, flush_messages="1", **limited) == [], "the broker's own times are never refused"
    assert "message.timestamp.after.max.ms" not in rows.creation(1), "older brokers would refuse the topic"
    assert "message.timestamp.after.max.ms" in rows.creation(1, future=True)


def test_durable_topics_are_flushed_immediately() -> None:
    flushed = [spec.name for spec in TOPICS.all() if spec.wanted(1).get("flush.messages") == "1"]
    assert flushed == [
        "t.usage", "t.calls", "t.cost.session-hours", "t.cost.hours", "t.session.links", "t.connections",
        "t.deadletters", "t.openai.records", "t.accounts",
    ]  # fmt: skip


def test_topics_as_created_pass_the_check() -> None:
    for replicas in (1, 2, 3):
        for spec in TOPICS.all():
            assert misfits(spec, replicas, DEFAULTS | spec.creation(replicas)) == []


def test_list_settings_are_compared_as_sets() -> None:
    spec = TOPICS.hour_rows
    have = DEFAULTS | spec.creation(1)
    assert misfits(spec, 1, have | {"cleanup.policy": "delete,compact"}) == []
    (found,) = misfits(spec, 1, have | {"cleanup.policy": "delete"})
    assert found.command("k:9092") == (
        "kafka-configs.sh --bootstrap-server k:9092 --alter --entity-type topics --entity-name t.cost.hours"
        " --add-config cleanup.policy=[compact,delete]"
    )


def test_unreported_setting_is_not_a_mismatch() -> None:
    assert misfits(USAGE, 3, {}) == []
