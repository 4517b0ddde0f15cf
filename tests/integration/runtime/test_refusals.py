"""If continuing would lose or double records, the worker exits with code 70 and a one-line reason and stops writing."""

from __future__ import annotations

import socket

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from tests.support.rig import Rig, Worker
from tests.support.topics import create_topics, delete_topic

from tallystream.streams.kafka.topic_setup import ensure

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]


async def admin(rig: Rig) -> AIOKafkaAdminClient:
    client = AIOKafkaAdminClient(**rig.kafka.client())
    await client.start()
    return client


async def counted(rig: Rig, count: int = 200) -> None:
    """Count some records and stop."""
    worker = rig.start()
    async with rig.producer() as producer:
        await rig.send(producer, count)
    await rig.caught_up()
    assert await rig.terminate(worker) == 0


async def recreate_source(rig: Rig, records: int) -> None:
    client = await admin(rig)
    try:
        await delete_topic(client, rig.names.source)
    finally:
        await client.close()
    await ensure(rig.kafka, rig.names.specs(rig.partitions))
    rig.truth.clear()
    if records:
        async with rig.producer() as producer:
            await rig.send(producer, records)


async def delete_before(rig: Rig, offset: int) -> None:
    client = await admin(rig)
    try:
        await client.delete_records(
            {TopicPartition(rig.names.source, p): RecordsToDelete(offset) for p in range(rig.partitions)}
        )
    finally:
        await client.close()


async def refused(rig: Rig, worker: Worker) -> str:
    """Wait for exit 70 and return the one line it said."""
    assert await rig.exit_code(worker) == 70
    lines = [line for line in worker.said().splitlines() if line.startswith("FATAL")]
    assert len(lines) == 1
    assert "Traceback" not in worker.said()
    return lines[0]


@pytest.mark.parametrize("records", [0, 1000], ids=["shorter", "longer"])
async def test_recreated_source_is_refused_at_the_start(rig: Rig, records: int) -> None:
    await counted(rig)
    await recreate_source(rig, records)
    before = await rig.ends(rig.names.changelog)
    said = await refused(rig, rig.start())
    assert f"{rig.names.source}-" in said
    assert "deleted and created again" in said
    assert await rig.ends(rig.names.changelog) == before


async def test_source_recreated_under_a_running_worker_ends_it(rig: Rig) -> None:
    worker = rig.start()
    async with rig.producer() as producer:
        await rig.send(producer, 200)
    await rig.caught_up()
    await recreate_source(rig, 1000)
    # It may notice while the topic is gone; then its successor tells what happened.
    said = await refused(rig, worker)
    if "does not exist any more" in said:
        said = await refused(rig, rig.start())
    assert "deleted and created again" in said


async def test_changelog_deleted_under_a_running_worker_ends_it(rig: Rig) -> None:
    """With the next rebalance its source is assigned without it, and nothing would be counted."""
    worker = rig.start()
    async with rig.producer() as producer:
        await rig.send(producer, 50)
    await rig.caught_up()
    client = await admin(rig)
    try:
        await delete_topic(client, rig.names.changelog)
    finally:
        await client.close()
    rig.start("1")
    assert f"{rig.names.changelog} does not exist any more" in await refused(rig, worker)


async def test_records_deleted_before_counting_are_refused(rig: Rig) -> None:
    await counted(rig)
    async with rig.producer() as producer:
        await rig.send(producer, 400)
    await delete_before(rig, 200)
    said = await refused(rig, rig.start())
    assert "retention deleted" in said
    assert "to 199 before they were counted" in said


async def test_records_deleted_after_counting_are_accepted(rig: Rig) -> None:
    """Even the record whose time is part of the position."""
    await counted(rig)
    client = await admin(rig)
    try:
        ends = await rig.ends(rig.names.source)
        await client.delete_records(
            {TopicPartition(rig.names.source, p): RecordsToDelete(end) for p, end in ends.items()}
        )
    finally:
        await client.close()
    rig.start()
    async with rig.producer() as producer:
        await rig.send(producer, 200)
    await rig.caught_up()
    await rig.verify()


async def test_new_table_starts_at_the_beginning_of_the_log(rig: Rig) -> None:
    async with rig.producer() as producer:
        await rig.send(producer, 400)
        await delete_before(rig, 50)
        rig.start()
        await rig.send(producer, 100)
    await rig.caught_up()
    counted_records = sum(records for records, _ in (await rig.public_rows()).values())
    assert counted_records == 500 - 50 * rig.partitions


async def test_row_too_large_for_the_changelog_ends_the_worker(rig: Rig) -> None:
    """Nothing is published, written or committed beyond the changelog; a worker without the limit continues."""
    await counted(rig)
    ends = {topic: await rig.ends(topic) for topic in (rig.names.rows, rig.names.changelog)}
    committed = await rig.committed()
    async with rig.producer() as producer:
        await rig.send(producer, 100)
    said = await refused(rig, rig.start(padding=2_000_000, instance="w"))
    assert "does not fit" in said
    assert {topic: await rig.ends(topic) for topic in ends} == ends
    assert await rig.committed() == committed
    rig.start(instance="w")
    await rig.caught_up()
    await rig.verify()


async def test_group_refused_by_the_changelog_ends_the_worker(rig: Rig) -> None:
    """The broker refuses the changelog's rows after the public rows; the next worker publishes them again."""
    client = await admin(rig)
    try:
        await delete_topic(client, rig.names.changelog)
        tight = {"cleanup.policy": "compact", "max.message.bytes": "400"}
        await create_topics(client, NewTopic(rig.names.changelog, rig.partitions, 1, topic_configs=tight))
    finally:
        await client.close()
    worker = rig.start()
    async with rig.producer() as producer:
        await rig.send(producer, 400)
    assert f"{rig.names.changelog}-" in await refused(rig, worker)
    assert sum((await rig.ends(rig.names.changelog)).values()) == 0
    assert not any((await rig.committed()).values())


async def test_foreign_write_to_the_changelog_ends_the_worker(rig: Rig) -> None:
    """The worker notices it with its next group; its successor ignores records that do not belong to the table."""
    worker = rig.start(instance="w")
    async with rig.producer() as producer:
        await rig.send(producer, 200)
        await rig.caught_up()
        for p in range(rig.partitions):
            await producer.send_and_wait(rig.names.changelog, b"garbage", key=b"k1|0", partition=p)
        await rig.send(producer, 200)
        assert "another process writes" in await refused(rig, worker)
        worker = rig.start("1", instance="w")
        await rig.caught_up()
    await rig.until(lambda: worker.status().get("unknown_records") == rig.partitions, "it says so")
    assert await rig.public_rows() == dict(rig.truth)


async def test_store_ahead_of_its_changelog_is_refused(rig: Rig) -> None:
    await counted(rig)
    client = await admin(rig)
    try:
        await delete_topic(client, rig.names.changelog)
    finally:
        await client.close()
    await rig.create()
    said = await refused(rig, rig.start())
    assert "the changelog ends at 0" in said


async def test_unreachable_kafka_at_the_start_is_an_error(rig: Rig) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        worker = rig.start(bootstrap=f"127.0.0.1:{unused.getsockname()[1]}")
        assert "Kafka" in await refused(rig, worker)
