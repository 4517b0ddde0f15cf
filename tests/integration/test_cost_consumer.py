"""examples/cost_consumer.py on real Kafka: old versions, repetitions, tombstones, partial sums."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from tests.support.waiting import ANSWER, eventually

from tallystream.schemas import keys
from tallystream.schemas.rows import CostBucket, HourCost, SessionHourCost
from tallystream.schemas.usage import Attribution
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "cost_consumer.py"
HOUR = "2026-11-21T14:00:00Z"


def sums(requests: int, cost: str | None) -> dict[str, Any]:
    counts = dict.fromkeys(
        ("cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool", "late_events"), 0
    )
    return {
        **counts,
        "requests": requests,
        "input_uncached": requests * 10,
        "total_tokens": requests * 10,
        "cost_usd": cost,
        "reported_cost_usd": None,
        "unpriced_requests": 0 if cost is not None else requests,
    }


def session_hour(session: str, version: int, requests: int, cost: str | None) -> tuple[bytes, bytes]:
    bucket = CostBucket(
        model="m", service_tier=None, speed=None, book="b", attribution=Attribution(), **sums(requests, cost)
    )
    row = SessionHourCost(
        connection_id="codex-7f3a", client="codex", provider="openai", session_id=session, hour=HOUR,
        version=[0, version], duplicates=0, buckets=[bucket],
    )  # fmt: skip
    return keys.join("codex-7f3a", session, HOUR), row.model_dump_json().encode()


def partial(partition: int, version: int, requests: int, cost: str) -> tuple[bytes, bytes]:
    row = HourCost(
        partition=partition, connection_id="codex-7f3a", hour=HOUR, model="m", team=None, version=[0, version],
        **sums(requests, cost),
    )  # fmt: skip
    return keys.join(str(partition), "codex-7f3a", HOUR, "m", ""), row.model_dump_json().encode()


async def send(kafka: KafkaSettings, topic: str, *records: tuple[bytes, bytes | None]) -> None:
    """Write records, all into the partition of their key."""
    async with AIOKafkaProducer(**kafka.client(), acks="all") as producer:
        for key, value in records:
            await producer.send_and_wait(topic, value, key, partition=sum(key) % 4)


def read(kafka: KafkaSettings, prefix: str, topic: str) -> list[dict[str, Any]]:
    argv = [sys.executable, str(EXAMPLE), "--kafka", kafka.bootstrap, "--prefix", prefix, "--topic", topic]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=ANSWER, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def total(requests: int, cost: str | None, unpriced: int = 0) -> dict[str, Any]:
    return {
        "connection_id": "codex-7f3a",
        "hour": HOUR,
        "requests": requests,
        "total_tokens": requests * 10,
        "cost_usd": cost,
        "unpriced_requests": unpriced,
    }


async def test_newest_version_counts_once_and_a_tombstone_removes_the_row(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, partitions=4)
    await ensure(kafka, (topics.session_hour_rows,))
    gone, _ = session_hour("gone", 3, 7, "7")
    await send(
        kafka,
        topics.session_hour_rows.name,
        session_hour("a", 5, 2, "0.1"),
        session_hour("a", 9, 3, "0.2000000000001"),
        session_hour("a", 9, 3, "0.2000000000001"),
        session_hour("a", 7, 50, "50"),
        session_hour("b", 1, 1, "0.1"),
        session_hour("unpriced", 2, 4, None),
        session_hour("gone", 3, 7, "7"),
        (gone, None),
    )
    assert read(kafka, prefix, "session-hours") == [total(8, "0.3000000000001", unpriced=4)]


async def test_key_may_restart_with_a_lower_version_after_a_tombstone(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, partitions=4)
    await ensure(kafka, (topics.session_hour_rows,))
    key, row = session_hour("a", 9, 3, "3")
    await send(kafka, topics.session_hour_rows.name, (key, row), (key, None), session_hour("a", 2, 1, "1"))
    assert read(kafka, prefix, "session-hours") == [total(1, "1")]


async def test_newest_partial_sums_of_all_partitions_are_added(kafka: KafkaSettings, prefix: str) -> None:
    topics = Topics(prefix, partitions=4)
    await ensure(kafka, (topics.hour_rows,))
    await send(
        kafka, topics.hour_rows.name,
        partial(0, 4, 1, "0.1"), partial(0, 8, 2, "0.2"), partial(0, 6, 90, "90"), partial(3, 2, 5, "0.5"),
    )  # fmt: skip
    assert read(kafka, prefix, "hours") == [total(7, "0.7")]


async def test_follow_prints_changed_totals(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    topics = Topics(prefix, partitions=4)
    await ensure(kafka, (topics.session_hour_rows,))
    await send(kafka, topics.session_hour_rows.name, session_hour("a", 5, 2, "2"))
    out = tmp_path / "out"
    argv = [sys.executable, str(EXAMPLE), "--kafka", kafka.bootstrap, "--prefix", prefix, "--follow"]
    with out.open("w") as file:
        process = subprocess.Popen(argv, stdout=file)  # noqa: ASYNC220 - nothing else runs in this loop
    try:
        eventually(lambda: out.read_text().count("\n") == 1, "the first totals")
        await send(kafka, topics.session_hour_rows.name, session_hour("a", 3, 40, "40"), session_hour("a", 6, 3, "3.5"))
        eventually(lambda: "3.5" in out.read_text(), "the change")
        assert [json.loads(line) for line in out.read_text().splitlines()] == [[total(2, "2")], [total(3, "3.5")]]
    finally:
        process.kill()
        process.wait()


def test_wrong_prefix_is_reported(kafka: KafkaSettings, prefix: str) -> None:
    argv = [sys.executable, str(EXAMPLE), "--kafka", kafka.bootstrap, "--prefix", prefix]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=ANSWER, check=False)
    assert done.returncode == 1
    assert "does not exist: is --prefix right?" in done.stderr
