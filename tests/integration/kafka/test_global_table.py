"""The local copy of compacted topics, on real Kafka: newest rows, holes, restarts, recreated topics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from tests.support.topics import create_topics, delete_topic
from tests.support.waiting import PATIENCE, until

from tallystream.streams.kafka import global_table
from tallystream.streams.kafka.global_table import GlobalTable, TableRow
from tallystream.streams.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka


@dataclass(frozen=True)
class Versioned:
    """Records `version value`; a key is its own row."""

    topic: str

    def rows(self, record: ConsumerRecord) -> Iterator[TableRow]:
        if record.value is None:
            yield TableRow(b"r|" + record.key, (0, 0), None)
            return
        version, value = record.value.split(b" ", 1)
        yield TableRow(b"r|" + record.key, (0, int(version)), value)


@asynccontextmanager
async def admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(**kafka.client())
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def create(kafka: KafkaSettings, topic: str) -> None:
    async with admin(kafka) as client:
        await create_topics(client, NewTopic(topic, 2, 1, topic_configs={"cleanup.policy": "compact,delete"}))


async def write(kafka: KafkaSettings, topic: str, *records: tuple[str, str | None]) -> None:
    producer = AIOKafkaProducer(**kafka.client())
    await producer.start()
    try:
        for key, value in records:
            raw = None if value is None else value.encode()
            await producer.send_and_wait(topic, raw, key=key.encode(), partition=sum(key.encode()) % 2)
    finally:
        await producer.stop()


@asynccontextmanager
async def table(kafka: KafkaSettings, topic: str, directory: Path) -> AsyncIterator[tuple[GlobalTable, list[bytes]]]:
    """Provide a table that has caught up, and the keys that it reported as changed."""
    changed: list[bytes] = []
    made = GlobalTable(kafka, directory, [Versioned(topic)])
    await made.start()
    following = made.run(lambda _, keys: changed.extend(key for key, _ in keys))
    running = asyncio.create_task(following)
    waiting = asyncio.create_task(made.caught_up.wait())
    try:
        await asyncio.wait([waiting, running], timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert made.caught_up.is_set(), running
        yield made, changed
    finally:
        waiting.cancel()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await made.stop()


def rows(one: GlobalTable) -> dict[str, str]:
    return {key[2:].decode(): kept.value.decode() for key, kept in one.scan(b"r|")}


async def test_highest_version_is_kept_and_a_restart_continues_reading(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    await create(kafka, prefix)
    await write(
        kafka, prefix, ("a", "5 new"), ("a", "4 late"), ("b", "1 x"), ("b", "1 y"), ("c", "1 gone"), ("c", None)
    )
    async with table(kafka, prefix, tmp_path) as (one, changed):
        assert rows(one) == {"a": "new", "b": "y"}
        changed.clear()
        await write(kafka, prefix, ("a", "3 late"), ("d", "1 d"), ("a", "6 newest"))
        await until(lambda: rows(one) == {"a": "newest", "b": "y", "d": "d"}, "news come in")
        assert sorted(changed) == [b"r|a", b"r|d"], "each once, and nothing of what came late"
        assert one.unreadable == 0
        await write(kafka, prefix, ("e", "no version"), ("f", "1 f"))
        await until(lambda: "f" in rows(one) and one.unreadable, "it goes on")  # the two are in different partitions
        assert one.unreadable == 1
    await write(kafka, prefix, ("b", "2 z"))
    async with table(kafka, prefix, tmp_path) as (one, changed):
        assert rows(one) == {"a": "newest", "b": "z", "d": "d", "f": "f"}
        assert changed == [b"r|b"], "what was read before is not read again"
        assert [key for key, _ in one.scan(b"r|", after=b"r|b")] == [b"r|d", b"r|f"]


async def test_table_starts_again_although_a_scan_of_it_was_not_finished(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    """Its reader may have failed, and be kept by the traceback."""
    await create(kafka, prefix)
    await write(kafka, prefix, ("a", "1 x"), ("b", "1 y"))
    async with table(kafka, prefix, tmp_path) as (one, _):
        scan = one.scan(b"r|")
        assert next(scan)[0] == b"r|a"
    await one.start()
    assert rows(one) == {"a": "x", "b": "y"}
    assert list(scan) == []
    await one.stop()


async def remove(kafka: KafkaSettings, topic: str) -> None:
    """Remove all records, as retention does."""
    async with admin(kafka) as client:
        everything = {TopicPartition(topic, number): RecordsToDelete(before_offset=-1) for number in range(2)}
        await client.delete_records(everything)


async def test_records_removed_by_retention_are_skipped_and_forgotten(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(global_table, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(global_table, "ROWS_A_TURN", 3)
    await create(kafka, prefix)
    await write(kafka, prefix, *((f"k{number}", "1 x") for number in range(10)))
    async with table(kafka, prefix, tmp_path) as (one, changed):
        assert len(rows(one)) == 10
        one.put(TableRow(b"r|ours", (0, 1), b"not read yet"), 0)
        changed.clear()
        await remove(kafka, prefix)
        await until(lambda: rows(one) == {"ours": "not read yet"}, "the copy forgets what the topic has forgotten")
        await write(kafka, prefix, *((f"k{number}", "2 y") for number in range(10)))
        await until(lambda: len(changed) == 10, "it goes on")
    await write(kafka, prefix, *((f"k{number}", "3 removed") for number in range(10)))
    await remove(kafka, prefix)
    await write(kafka, prefix, ("k1", "4 z"))
    async with table(kafka, prefix, tmp_path) as (one, _):
        await until(lambda: rows(one) == {"k1": "z", "ours": "not read yet"}, "also what was removed while it was away")


@pytest.mark.parametrize(("away", "kept"), [(10 * 3_600_000, True), (24 * 3_600_000, False)])
async def test_copy_that_may_have_missed_tombstones_is_filled_again(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, away: int, kept: bool
) -> None:
    await create(kafka, prefix)
    await write(kafka, prefix, ("a", "1 x"))
    async with table(kafka, prefix, tmp_path) as (one, _):
        one.put(TableRow(b"r|removed", (0, 1), b"its tombstone is gone"), 0)
    now = global_table._now_ms() + away
    monkeypatch.setattr(global_table, "_now_ms", lambda: now)
    async with table(kafka, prefix, tmp_path) as (one, _):
        assert set(rows(one)) == ({"a", "removed"} if kept else {"a"})


@pytest.mark.parametrize("more", [1, 30])
async def test_recreated_topic_is_copied_again(kafka: KafkaSettings, prefix: str, tmp_path: Path, more: int) -> None:
    """Whether it is shorter than it was, or longer already."""
    await create(kafka, prefix)
    await write(kafka, prefix, *((f"old{number}", "1 x") for number in range(10)))
    async with table(kafka, prefix, tmp_path) as (one, _):
        assert len(rows(one)) == 10
    async with admin(kafka) as client:
        await delete_topic(client, prefix)
    await create(kafka, prefix)
    await write(kafka, prefix, *((f"new{number}", "1 y") for number in range(more)))
    async with table(kafka, prefix, tmp_path) as (one, changed):
        wanted: Any = {f"new{number}": "y" for number in range(more)}
        await until(lambda: rows(one) == wanted and one.caught_up.is_set(), "only the new topic's rows are there")
        assert changed


async def test_damaged_copy_is_rebuilt(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    await create(kafka, prefix)
    await write(kafka, prefix, ("a", "1 x"))
    async with table(kafka, prefix, tmp_path) as (one, _):
        assert rows(one) == {"a": "x"}
    (tmp_path / "rows" / "CURRENT").write_text("nonsense\n")
    async with table(kafka, prefix, tmp_path) as (one, _):
        assert rows(one) == {"a": "x"}
    for manifest in (tmp_path / "rows").glob("MANIFEST-*"):
        manifest.unlink()
    async with table(kafka, prefix, tmp_path) as (one, _):
        assert rows(one) == {"a": "x"}
