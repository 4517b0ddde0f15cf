"""Exact rows despite kill -9, zombies, lost batches and lost disks: real workers, real Kafka."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from tests.support.rig import Rig, Worker
from tests.support.topics import delete_topic
from tests.support.waiting import until

from tallystream.streams.kafka.lifecycle import opened

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]


async def test_rows_are_exact_after_kill_9_under_load_and_a_lost_disk(rig: Rig) -> None:
    """Three kills, each with unacknowledged work in flight; the last worker starts on an empty disk."""
    async with rig.load():
        worker = rig.start("0", instance="w", linger=0.05)
        for data in ("0", "0", "1"):
            folded = worker.status().get("folded", 0)
            await rig.folds(worker, folded + 200)
            # something to recover from before the next kill
            await until(lambda: rig.read(rig.names.changelog), "something is in the changelog")
            worker.kill()
            worker = rig.start(data, instance="w", linger=0.05)
        await rig.folds(worker, 200)
    await rig.caught_up()
    await rig.until(lambda: worker.status()["recovered"] > 0, "it has recovered")
    await rig.verify()


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
async def test_zombie_worker_counts_nothing_twice(rig: Rig, static: bool) -> None:
    """One of two workers is stopped for longer than its session and resumes; a worker that exits is restarted."""
    async with rig.seats("a", "b", static=static, session_timeout=2.0) as (seat, other):
        async with rig.load():
            await rig.owned(seat, other)
            zombie = seat.worker
            zombie.signal(signal.SIGSTOP)
            await rig.until(lambda: other.owned == rig.partitions, "the other takes over")
            await rig.folds(other.worker, other.worker.status()["folded"] + 100)
            zombie.resume()
            # it rejoins, or exits because it cannot know whether it is still a member
            await rig.until(lambda: zombie.process.poll() == 70 or zombie.owned == 1, "it sees")
            await rig.owned(seat, other)
        await rig.caught_up()
    await rig.verify()


async def test_missing_batches_are_read_again(rig: Rig) -> None:
    """Every third fetched batch is dropped before it reaches the table, as Faust does around rebalances."""
    worker = rig.start(drop_every=3)
    await rig.owned(worker)
    async with rig.producer() as producer:

        async def repaired() -> bool:
            await rig.send(producer, 100)
            return bool(worker.status()["repairs"] > 2)

        await rig.until(repaired, "repairs are counted")
    await rig.caught_up()
    await rig.verify()


async def test_records_lost_in_the_middle_of_a_fetch_are_read_again(rig: Rig) -> None:
    """As faust-streaming 751 loses them when a topic's buffer is replaced; meanwhile a worker joins and leaves."""
    async with rig.seats("a", tear_every=3) as (seat,):
        await rig.owned(seat)
        async with rig.load(800):
            other = rig.start("b", tear_every=2)
            await rig.owned(seat, other)
            await rig.until(
                lambda: all(worker.status()["repairs"] > 1 for worker in (seat.worker, other)), "repairs are counted"
            )
            assert await rig.terminate(other) == 0
            await rig.owned(seat)
        await rig.caught_up()
    await rig.verify()


async def test_gap_at_the_end_is_detected_without_later_records(rig: Rig) -> None:
    worker = rig.start(drop_first=1)
    async with rig.producer() as producer:
        await rig.send(producer, 10)
    await rig.caught_up()
    await rig.until(lambda: worker.status()["tail_stalls"] > 0, "it is counted")
    await rig.verify()


async def test_partitions_added_to_the_source_change_nothing(rig: Rig) -> None:
    """An administrator raises the count while two workers run, which are started again afterwards."""
    async with rig.seats("a", "b") as (seat, other):
        async with rig.load():
            await rig.owned(seat, other)
            async with opened(AIOKafkaAdminClient(**rig.kafka.client())) as admin:
                await admin.create_partitions({rig.names.source: NewPartitions(total_count=rig.partitions + 3)})
            for one in (seat, other):
                one.worker.kill()
                await rig.until(lambda one=one: one.exits, "it is started again")  # type: ignore[misc]
            await rig.owned(seat, other)
            await rig.until(lambda: all(one.worker.status()["ready"] for one in (seat, other)), "both are ready")
        await rig.caught_up()
    await rig.verify()


async def test_late_row_of_a_replaced_worker_is_overwritten(rig: Rig) -> None:
    """The row of a worker that was stopped between the heartbeat guard and the write to its socket."""
    worker = rig.start()
    async with rig.producer() as producer:
        await rig.send(producer, 50)
        await rig.caught_up()
        late = {row.key: row for row in await rig.read(rig.names.rows)}
        await rig.send(producer, 500)
        await rig.caught_up()
        for row in late.values():
            await producer.send_and_wait(rig.names.rows, row.value, key=row.key, partition=row.partition)
        await rig.send(producer, 50)
    await rig.caught_up()
    await rig.verify()
    await rig.until(lambda: worker.status()["late_writes"] > 0, "it has found rows that hid newer ones")


async def test_rows_of_a_topic_that_was_deleted_are_written_again(rig: Rig) -> None:
    """A worker runs meanwhile; one that starts later cannot tell that there were rows."""
    rig.start()
    async with rig.producer() as producer:
        await rig.send(producer, 300)
    await rig.caught_up()
    async with opened(AIOKafkaAdminClient(**rig.kafka.client())) as admin:
        await delete_topic(admin, rig.names.rows)
    await rig.create()

    async def complete() -> bool:
        return await rig.public_rows(last=True) == dict(rig.truth)

    async with rig.producer() as producer:
        await rig.send(producer, 1)  # notices it at once; without it, the next look at the topics' ends does
    await rig.until(complete, "the rows are back")
    await rig.verify()


async def test_groups_of_many_record_batches_are_exact(rig: Rig) -> None:
    """Workers are killed during writes, so that rows of a group land without its end."""

    def start() -> Worker:
        return rig.start(instance="w", linger=0.2, max_batch_size=2000)

    async with rig.load(800):
        worker = start()
        for _ in range(2):
            folded = worker.status().get("folded", 0)
            await rig.folds(worker, folded + 400)
            worker.kill()
            worker = start()
        await rig.until(lambda: worker.status().get("groups", 0) > 2, "the last one commits")
    await rig.caught_up()
    await rig.verify()


async def test_damaged_store_is_rebuilt(rig: Rig) -> None:
    worker = rig.start()
    async with rig.producer() as producer:
        for damage in (lambda path: path.write_bytes(b""), Path.unlink):
            await rig.send(producer, 500)
            await rig.caught_up()
            assert await rig.terminate(worker) == 0
            for needed in (*rig.dir.glob("data-0/**/CURRENT"), *rig.dir.glob("data-0/**/MANIFEST-*")):
                damage(needed)
            worker = rig.start()
            await rig.send(producer, 500)
            await rig.caught_up()
            assert "damaged_store_rebuilt_from_changelog" in worker.said()
    await rig.verify()


async def test_standby_takes_over_without_reading_the_changelog_again(rig: Rig) -> None:
    """A worker is killed and its disk is lost; its successor reads only what its copy did not have yet."""
    owner = rig.start("owner", standby=True)
    await rig.owned(owner)
    other = rig.start("other", standby=True)
    await rig.owned(owner, other)
    async with rig.producer() as producer:
        await rig.send(producer, 3000, keys=2000)
        await rig.caught_up()
        (lost,) = map(int, owner.status()["partitions"])
        copied = (await rig.ends(rig.names.changelog))[lost]
        await rig.until(lambda: other.status()["standby"]["copied"] == copied, "all is copied")
        before = other.status()["recovered"]
        folded = owner.status()["folded"]
        await rig.send(producer, 500)
        await rig.folds(owner, folded)
        owner.kill()
        shutil.rmtree(owner.config.datadir)
        written = (await rig.ends(rig.names.changelog))[lost]
        await rig.owned(other)
        await rig.send(producer, 500)
    await rig.caught_up()
    assert other.status()["recovered"] - before <= written - copied < copied
    await rig.verify()


async def test_memory_store_recovers_all_rows(rig: Rig) -> None:
    worker = rig.start(store="memory", instance="w")
    async with rig.producer() as producer:
        await rig.send(producer, 500)
        await rig.caught_up()
        worker.kill()
        worker = rig.start(store="memory", instance="w")
        await rig.send(producer, 500)
    await rig.caught_up()
    await rig.verify()
