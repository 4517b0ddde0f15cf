"""Compaction, expired hours, clocks that jump, changed settings and recreated topics.

In all cases readers and recovery must see the highest version, and totals must not start again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.protocol.admin import DeleteGroupsRequest
from tests.chaos.hand import DAY, Hand, World, late_rows, world
from tests.chaos.laws import hidden
from tests.support.counting import EndedError
from tests.support.rig import Rig
from tests.support.topics import delete_topic, set_topic_config
from tests.support.waiting import until

from tallystream.schemas.errors import Reason, UnfitError
from tallystream.schemas.hours import HOUR_MS, hour_from_iso
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import TopicSpec
from tallystream.streams.runtime.changelog import reserved

pytestmark = [pytest.mark.kafka, pytest.mark.chaos]

TINY = {
    "segment.bytes": "1048576", "segment.ms": "100", "min.compaction.lag.ms": "0", "max.compaction.lag.ms": "1",
    "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "0",
}  # fmt: skip


async def alter(here: World, spec: TopicSpec, changes: dict[str, str]) -> None:
    admin = AIOKafkaAdminClient(**here.kafka.client())
    await admin.start()
    try:
        await set_topic_config(admin, spec.name, {**spec.config, **changes})
    finally:
        await admin.close()


async def test_readers_and_recovery_see_the_highest_version_through_compaction(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    """A zombie's late group, then compaction of everything, then workers on empty disks."""
    async with world(kafka, prefix, tmp_path) as here:
        for spec in (here.topics.session_hours_changelog, here.topics.session_hour_rows, here.topics.hour_rows):
            await alter(here, spec, TINY)
        sessions = [f"s{n}" for n in range(5)]
        for _ in range(3):
            await here.send(*sessions)
            await (await here.hand()).work()
        zombie = await here.hand()
        await zombie.assign()
        await here.send(*sessions, *sessions)
        await zombie.fold(2)
        held, go_on = asyncio.Event(), asyncio.Event()

        async def hold(real: Callable[..., Awaitable[int]], rows: object, expect: int | None) -> int:
            held.set()
            await go_on.wait()  # before its public rows, which therefore arrive late
            return await real(rows, expect)

        zombie.intercept(hold)
        late = asyncio.create_task(zombie.commit())
        await held.wait()
        await (await here.hand()).work()
        go_on.set()
        with pytest.raises(EndedError):
            await late
        successor = await here.hand()
        await successor.work()  # late rows are overwritten
        assert successor.engine.counters.zombie_records > 0

        async def compacted() -> bool:
            await here.send(*sessions)
            await (await here.hand()).work()  # the last segment is never compacted
            book = await here.ledger()
            kept = [offset for rows in book.changelog_log.values() for _, _, offset in rows]
            return 3 * len(kept) < max(kept)

        await until(compacted, "the changelog is compacted")
        book = await here.ledger()
        for name, rows in (("rows", book.rows), ("changelog", book.changelog)):
            assert len(rows) == len(sessions), name
        problems = [one for one in await here.problems() if not one.startswith("positions")]
        assert problems == [], "positions are judged on logs that still have all their records"


async def test_public_rows_that_come_late_are_overwritten_with_the_next_group(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    """The changelog does not show them; only the offsets at which the next rows land do."""
    async with world(kafka, prefix, tmp_path) as here:
        owner = await late_rows(here, ["s1", "s2", "s3"], here.worked)
        assert len(hidden(await here.ledger())) > 3, "sessions and their hours"
        await here.send("s4")
        await owner.fold()
        await owner.commit()
        await owner.engine.late_writes.look()
        await owner.commit()
        assert owner.engine.counters.late_writes > 3
        assert await here.problems() == []


async def test_public_rows_that_come_late_are_overwritten_although_nothing_follows(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with world(kafka, prefix, tmp_path) as here:

        async def works() -> Hand:
            worker = await here.worked()
            await worker.engine.late_writes.look(idle=True)
            return worker

        owner = await late_rows(here, ["s1", "s2"], works)
        await owner.engine.late_writes.look(idle=True)
        assert owner.partition.waiting
        await owner.commit()
        assert await here.problems() == []
        before = owner.engine.counters.late_writes
        await owner.engine.late_writes.look(idle=True)
        assert (owner.partition.waiting, owner.engine.counters.late_writes) == (False, before), (
            "its own rows are not late ones"
        )


async def test_public_rows_that_came_late_before_a_takeover_are_overwritten_by_the_next_owner(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with world(kafka, prefix, tmp_path) as here:
        await late_rows(here, ["s1", "s2"], here.worked)
        heir = await here.hand()
        await heir.assign()
        await heir.engine.late_writes.look()
        await heir.commit()
        assert heir.engine.counters.late_writes >= 2
        assert await here.problems() == []


async def test_broker_clock_jumping_ahead_closes_no_hour(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    """The topic uses the producer's append times, so that the test can set them: ten days ahead, and back."""
    async with world(kafka, prefix, tmp_path) as here:
        clock = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(30 * 86_400_000)}
        await alter(here, here.topics.usage, clock)
        await here.send("s1", "s2")
        worker = await here.hand()
        await worker.work()
        await here.append(timedelta(days=10), "s3")  # at that time its event is 10 days old
        await worker.fold()
        await worker.commit()
        await here.append(timedelta(0), "s1", "s4")  # the clock is correct again
        await worker.fold()
        await worker.commit()
        book = await here.ledger()
        assert {letter.session_id: letter.reason for letter in book.letters.values()} == {"s3": Reason.TOO_LATE}
        requests = {row["session_id"]: sum(b["requests"] for b in row["buckets"]) for row in book.rows.values()}
        assert requests == {"s1": 2, "s2": 1, "s4": 1}
        closed_until = hour_from_iso(book.closed.decode()) * HOUR_MS
        assert closed_until < time.time() * 1000
        assert await here.problems() == []


async def test_lateness_can_be_raised_from_a_week_to_ten_years(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    async with world(kafka, prefix, tmp_path) as here:
        old = here.event(6)
        await here.send(("s1", [old, here.event()]), ("s2", [here.event(300)]))
        await (await here.hand()).work()
        await here.send(("s3", [here.event()]))
        await (await here.hand(lateness=2 * DAY)).work()  # closes everything older than two days
        assert b"s1" not in b"".join(k for k in (await here.ledger()).changelog if k.endswith(hour(old)))
        await here.send(("s1", [here.event(6)]), ("s2", [here.event(300)]), ("s4", [here.event()]))
        await (await here.hand(lateness=3650 * DAY)).work()
        book = await here.ledger()
        counted = {k.decode().split("|")[1]: len(h.events) for k, h in book.hours.items() if not k.endswith(hour(old))}
        assert counted == {"s1": 1, "s3": 1, "s4": 1}
        assert sorted(letter.reason for letter in book.letters.values()) == [
            Reason.CLOSED, Reason.CLOSED, Reason.TOO_LATE
        ]  # fmt: skip
        assert await here.problems() == []


def hour(event: dict[str, Any]) -> bytes:
    at = time.gmtime(event["occurred_at"] // 10**9)
    return time.strftime("%Y-%m-%dT%H:00:00Z", at).encode()


async def test_group_offsets_that_expired_change_nothing(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> None:
    """The position is part of the state, so lost group offsets neither lose nor repeat anything."""
    rig = Rig(kafka, prefix, tmp_path)
    await rig.create()
    try:
        async with rig.producer() as producer:
            worker = rig.start()
            await rig.send(producer, 300)
            await rig.caught_up()
            assert await rig.terminate(worker) == 0
            admin = AIOKafkaAdminClient(**kafka.client())
            await admin.start()
            try:
                node = await admin.find_coordinator(rig.names.group)
                answer: Any = await admin._send_request_to_node(node, DeleteGroupsRequest([rig.names.group]))
                assert [code for _, code in answer.results] == [0]
            finally:
                await admin.close()
            await rig.send(producer, 300)
            rig.start()
            await rig.caught_up()
            await rig.verify()
    finally:
        rig.end()


@pytest.mark.parametrize("messages", [1, 9], ids=["shorter", "longer"])
async def test_recreated_usage_topic_is_refused(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, messages: int
) -> None:
    async with world(kafka, prefix, tmp_path) as here:
        await here.send("s1", "s2", "s3")
        await (await here.hand()).work()
        before = (await here.ledger()).rows
        admin = AIOKafkaAdminClient(**kafka.client())
        await admin.start()
        await delete_topic(admin, here.topics.usage.name)
        spec = here.topics.usage
        await until(lambda: created(admin, spec), "the topic is there again")
        await admin.close()
        await ensure(kafka, (spec,))
        await here.send(*(f"n{n}" for n in range(messages)))
        with pytest.raises(EndedError) as ended:
            await (await here.hand()).assign()
        refusal = ended.value.__context__
        assert isinstance(refusal, UnfitError)
        assert "deleted and created again" in refusal.message
        assert "TALLYSTREAM_PREFIX" in refusal.hint
        rows = (await here.ledger()).rows
        assert rows == before
        assert not [key for key in rows if reserved(key)]


async def created(admin: AIOKafkaAdminClient, spec: TopicSpec) -> bool:
    answer = await admin.create_topics([NewTopic(spec.name, spec.partitions, 1, topic_configs=spec.config)])
    return all(error[1] == 0 for error in answer.topic_errors)
