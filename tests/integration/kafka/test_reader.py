"""Reading topics up to their current end, on real Kafka: empty, truncated at the front, with holes, and growing."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.support.topics import produce
from tests.support.waiting import until

from tallystream.schemas.errors import UnreachableError
from tallystream.streams.kafka.lag import GroupLag
from tallystream.streams.kafka.producer import producing
from tallystream.streams.kafka.reader import TopicReader, latest
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import TopicSpec

pytestmark = pytest.mark.kafka


async def make(kafka: KafkaSettings, name: str, partitions: int = 1, **config: str) -> str:
    await ensure(kafka, (TopicSpec(name, partitions, {key.replace("_", "."): value for key, value in config.items()}),))
    return name


async def read(kafka: KafkaSettings, topic: str) -> list[tuple[int, int, bytes]]:
    async with TopicReader(kafka, topic) as reader:
        return [(p, one.offset, one.value) async for p, records in reader.batches() for one in records]


async def delete_before(kafka: KafkaSettings, topic: str, offset: int) -> None:
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_missing_topic_reads_as_empty_and_is_not_created(kafka: KafkaSettings, prefix: str) -> None:
    async with TopicReader(kafka, f"{prefix}.none") as reader:
        assert not reader.extent.exists
        assert [batch async for batch in reader.batches()] == []
    assert await latest(kafka, f"{prefix}.none") == {}
    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    try:
        assert f"{prefix}.none" not in await admin.list_topics()
    finally:
        await admin.close()


async def test_older_records_are_not_read(kafka: KafkaSettings, prefix: str) -> None:
    topic = await make(kafka, f"{prefix}.dated", 3)
    async with producing(kafka) as producer:
        for partition, dates in ((0, (1_000, 2_000, 3_000)), (1, (1_000, 1_500))):
            for date in dates:
                await producer.send_and_wait(topic, b"%d" % date, partition=partition, timestamp_ms=date)
    async with TopicReader(kafka, topic, since_ms=2_000) as reader:
        assert reader.extent.offsets == 2
        assert [one.value for _, records in [b async for b in reader.batches()] for one in records] == [
            b"2000",
            b"3000",
        ]
    async with TopicReader(kafka, topic, since_ms=-5) as reader:
        assert reader.extent.offsets == 5


async def test_empty_topic_is_read_without_waiting(kafka: KafkaSettings, prefix: str) -> None:
    topic = await make(kafka, f"{prefix}.empty", 12)
    async with TopicReader(kafka, topic) as reader:
        assert reader.extent.exists
        assert reader.extent.offsets == 0
        assert [batch async for batch in reader.batches()] == []


async def test_partitions_are_read_completely_one_by_one(kafka: KafkaSettings, prefix: str) -> None:
    topic = await make(kafka, f"{prefix}.many", 4)
    # Partition 2 stays empty; the values are large enough for several fetches per partition.
    await produce(kafka, topic, ((b"k", b"%d" % i + b"x" * 100_000, (0, 1, 3)[i % 3]) for i in range(600)))
    passed: list[tuple[int, int]] = []
    async with TopicReader(kafka, topic) as reader:
        assert reader.extent.offsets == 600
        batches = [batch async for batch in reader.batches(lambda done, total: passed.append((done, total)))]
    assert [p for p, _ in batches] == sorted(p for p, _ in batches)
    for partition, first in ((0, 0), (1, 1), (3, 2)):
        records = [one for p, found in batches if p == partition for one in found]
        assert [one.offset for one in records] == list(range(200))
        assert [int(one.value.rstrip(b"x")) for one in records] == list(range(first, 600, 3))
    assert passed == sorted(passed)
    assert passed[-1] == (600, 600)
    assert len(passed) > 3


async def test_records_written_after_the_start_are_not_read(kafka: KafkaSettings, prefix: str) -> None:
    topic = await make(kafka, f"{prefix}.growing", 2)
    await produce(kafka, topic, [(b"k", b"old", p) for p in (0, 1)])
    async with TopicReader(kafka, topic) as reader:
        await produce(kafka, topic, [(b"k", b"new", p) for p in (0, 1)])
        found = [one.value async for _, records in reader.batches() for one in records]
    assert found == [b"old", b"old"]
    assert [value for *_, value in await read(kafka, topic)] == [b"old", b"new"] * 2


async def test_deleted_beginning_of_a_topic_is_skipped(kafka: KafkaSettings, prefix: str) -> None:
    topic = await make(kafka, f"{prefix}.cut")
    await produce(kafka, topic, [(b"k", b"%d" % i, 0) for i in range(10)])
    await delete_before(kafka, topic, 7)
    assert [offset for _, offset, _ in await read(kafka, topic)] == [7, 8, 9]
    await delete_before(kafka, topic, 10)
    assert await read(kafka, topic) == []


async def test_transaction_markers_are_skipped_as_holes(kafka: KafkaSettings, prefix: str) -> None:
    topic = await make(kafka, f"{prefix}.transactions")
    producer = AIOKafkaProducer(**kafka.client(), transactional_id=f"{prefix}-t")
    await producer.start()
    try:
        for text in (b"a", b"b"):
            async with producer.transaction():
                await producer.send_and_wait(topic, text, partition=0)
    finally:
        await producer.stop()
    assert await read(kafka, topic) == [(0, 0, b"a"), (0, 2, b"b")]


async def test_holes_left_by_compaction_are_skipped(kafka: KafkaSettings, prefix: str) -> None:
    topic = await make(
        kafka,
        f"{prefix}.compacted",
        cleanup_policy="compact",
        segment_ms="50",
        min_cleanable_dirty_ratio="0.001",
        delete_retention_ms="0",
        max_compaction_lag_ms="100",
    )
    for number in range(30):
        await produce(kafka, topic, [(b"same", b"%d" % number, 0)])
    await produce(kafka, topic, [(b"gone", b"x", 0), (b"gone", None, 0), (b"other", b"y", 0)])

    async def holes() -> bool:
        await produce(kafka, topic, [(b"tick", b"t", 0)])
        offsets = [offset for _, offset, _ in await read(kafka, topic)]
        assert offsets == sorted(offsets)
        return len(offsets) < 30 and offsets != list(range(offsets[0], offsets[0] + len(offsets)))

    await until(holes, "the broker compacts")
    values = await latest(kafka, topic)
    assert {key: values[key] for key in values if key != b"tick"} == {b"same": b"29", b"other": b"y"}


async def test_missing_broker_is_reported_as_unreachable() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        away = KafkaSettings(f"127.0.0.1:{nobody_listens.getsockname()[1]}")
        with pytest.raises(UnreachableError, match="did not answer"):
            await latest(away, "any", stall=5.0)
        with pytest.raises(UnreachableError):
            async with GroupLag(away, "any", "any"):
                pass


async def test_silent_broker_times_out() -> None:
    gone = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()
        await writer.wait_closed()
        gone.set()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(UnreachableError):
            await latest(KafkaSettings(f"127.0.0.1:{port}"), "any", stall=0.5)
        async with asyncio.timeout(60):
            await gone.wait()
    finally:
        server.close()


async def test_unknown_group_lags_by_the_whole_topic(kafka: KafkaSettings, prefix: str) -> None:
    topic = await make(kafka, f"{prefix}.lag", 2)
    await produce(kafka, topic, [(b"k", b"v", 0)] * 5)
    await delete_before(kafka, topic, 2)
    async with GroupLag(kafka, f"{prefix}-nobody", topic) as lag:
        found = await lag.read()
        assert [(one.partition, one.committed, one.behind) for one in found] == [(0, None, 3), (1, None, 0)]
    async with GroupLag(kafka, f"{prefix}-nobody", f"{prefix}.none") as lag:
        assert await lag.read() == []
