"""Losses in Kafka are reported, and the worker continues; later records are neither missed nor counted twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry
from tests.support.usage import Session
from tests.unit.session_cost.test_late_rows import LOG, ROWS, TOPICS

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.schemas.errors import UnfitError
from tallystream.streams.runtime.changelog import WATERMARK, Watermark
from tallystream.streams.runtime.memory import MemoryBroker, MemoryHost, MemoryWorker, WorkerCrashedError
from tallystream.streams.runtime.store import MemoryStore

USAGE = TOPICS.usage.name
SESSION = Session("codex-7f3a", "one", "platform", "acme/app")
IDS = {USAGE: "usage-id", LOG: "log-id"}
Start = Callable[..., MemoryWorker]


@pytest.fixture
def broker() -> MemoryBroker:
    made = MemoryBroker()
    for topic in (USAGE, LOG, ROWS, TOPICS.hour_rows.name, TOPICS.deadletters.name):
        made.create(topic, 1)
    return made


@pytest.fixture
async def start(broker: MemoryBroker) -> AsyncIterator[Start]:
    """Provide a function that starts a worker, with an empty disk unless a store is given."""
    workers: list[MemoryWorker] = []

    def made(store: MemoryStore | None = None, ids: dict[str, str] = IDS, accept_loss: bool = False) -> MemoryWorker:
        fold = SessionCost(TOPICS, Book(), Window(7 * 86_400_000), FoldMetrics(CollectorRegistry()), broker.clock)
        worker = MemoryWorker(
            MemoryHost(broker, f"w{len(workers)}"), fold, source=USAGE, changelog=LOG, store=store,
            topic_ids=ids, accept_loss=accept_loss,
        )  # fmt: skip
        workers.append(worker)
        return worker

    yield made
    for worker in workers:
        worker.crash()


def send(broker: MemoryBroker, *idents: int) -> None:
    """Append a message of one event each; a second passes between two."""
    for ident in idents:
        broker.clock.seconds += 1
        at = broker.clock.now_ns()
        event = {"event_id": f"{ident:016x}", "occurred_at": at, "model": "o3", "output": 1}
        broker.append(USAGE, 0, [(SESSION.key, SESSION.message([event]))])


async def work(worker: MemoryWorker) -> MemoryWorker:
    await worker.assign([0])
    while await worker.deliver(0, 2):
        await worker.settle()
    await worker.settle()
    return worker


def counted(broker: MemoryBroker, topic: str = ROWS) -> int:
    """Return the requests that a reader sees: the highest version of each key, the later of two equal ones."""
    rows: dict[bytes | None, dict[str, Any]] = {}
    for record in broker.records(topic):
        row = orjson.loads(record.value or b"")
        if record.key not in rows or row["version"] >= rows[record.key]["version"]:
            rows[record.key] = row
    if topic == ROWS:
        return sum(bucket["requests"] for row in rows.values() for bucket in row["buckets"])
    return sum(row["requests"] for row in rows.values())


def letters(broker: MemoryBroker) -> list[dict[str, Any]]:
    return [orjson.loads(record.value or b"") for record in broker.records(TOPICS.deadletters.name)]


@pytest.mark.parametrize("regrown", [0, 1, 5], ids=["shorter", "partly", "longer"])
@pytest.mark.parametrize("disk", ["kept", "lost"])
async def test_counted_messages_lost_in_a_power_cut_are_reported(
    broker: MemoryBroker, start: Start, regrown: int, disk: str
) -> None:
    """The changelog was flushed, the last three messages of usage were not; new ones may have come meanwhile."""
    send(broker, *range(8))
    before = await work(start())
    before.crash()
    broker.cut(USAGE, 0, 5)
    send(broker, *range(100, 100 + regrown))
    store = before.store if disk == "kept" else None
    assert isinstance(store, MemoryStore | None)
    after = await work(start(store))
    assert after.engine.counters.lost_records == 3
    assert [(one["reason"], one["source"]) for one in letters(broker)] == [("records_lost", "usage|0|5-7|0")]
    assert "5 to 7" in letters(broker)[0]["detail"]
    send(broker, 200, 201, 3)
    await after.deliver(0)
    await after.settle()
    for topic in (ROWS, TOPICS.hour_rows.name):
        assert counted(broker, topic) == 8 + regrown + 2, "what was counted stays; what comes is counted once"
    after.crash()
    heir = await work(start())
    assert heir.engine.counters.lost_records == 0, "it is said once"
    assert counted(broker) == 8 + regrown + 2
    assert after.alive is False


async def test_zombie_from_before_the_power_cut_changes_nothing(broker: MemoryBroker, start: Start) -> None:
    """Its group, whose offsets have been assigned again, lands after the new generation's."""
    send(broker, *range(4))
    (await work(start())).crash()
    zombie = start()
    await zombie.assign([0])
    zombie.host.hold = True
    send(broker, 4, 5)
    await zombie.deliver(0)
    await zombie.settle()
    broker.cut(USAGE, 0, 2)
    send(broker, *range(100, 106))
    owner = await work(start())
    zombie.host.land_all()
    await zombie.settle()
    zombie.host.land_all()
    zombie.crash()
    owner.crash()
    send(broker, 200)
    await work(start())
    assert counted(broker) == 4 + 6 + 1


async def test_recreated_and_unidentifiable_topics_are_refused(broker: MemoryBroker, start: Start) -> None:
    send(broker, *range(8))
    (await work(start())).crash()
    broker.cut(USAGE, 0, 5)
    for ids in (IDS | {USAGE: "another"}, {}):
        with pytest.raises(WorkerCrashedError) as refused:
            await start(ids=ids).assign([0])
        assert isinstance(refused.value.__context__, UnfitError)
        assert "created again, or cut" in str(refused.value)
    with pytest.raises(WorkerCrashedError):
        await start(ids=IDS | {USAGE: "another"}, accept_loss=True).assign([0])
    after = await work(start(ids={}, accept_loss=True))
    assert after.engine.counters.lost_records == 3
    assert counted(broker) == 8


async def test_uncounted_messages_removed_by_retention_need_accept_loss(broker: MemoryBroker, start: Start) -> None:
    send(broker, *range(4))
    (await work(start())).crash()
    send(broker, *range(4, 12))
    broker.delete_before(USAGE, 0, 9)
    with pytest.raises(WorkerCrashedError, match="retention deleted 4 to 8 before they were counted") as refused:
        await start().assign([0])
    cause = refused.value.__context__
    assert isinstance(cause, UnfitError)
    assert "--accept-loss" in cause.hint
    after = await work(start(accept_loss=True))
    assert after.engine.counters.lost_records == 5
    assert [one["source"] for one in letters(broker)] == ["usage|0|4-8|0"]
    assert counted(broker) == 4 + 3
    after.crash()
    assert (await work(start())).engine.counters.lost_records == 0


async def test_changelog_shortened_by_a_power_cut_is_accepted(broker: MemoryBroker, start: Start) -> None:
    """The local store is ahead of it, so it is rebuilt from the changelog, and the messages are folded again."""
    send(broker, *range(8))
    before = await work(start())
    before.crash()
    records = broker.records(LOG)
    position = [record.offset for record in records if record.key == b"\0position"][-4]
    broker.cut(LOG, 0, position + 1)
    assert isinstance(before.store, MemoryStore)
    after = await work(start(before.store))
    assert after.engine.counters.folded > 0
    assert counted(broker) == counted(broker, TOPICS.hour_rows.name) == 8


@pytest.mark.parametrize("compacted", [False, True])
async def test_changelog_regrown_past_the_store_is_detected(
    broker: MemoryBroker, start: Start, compacted: bool
) -> None:
    """Another worker folds the cut messages again in other groups, so the store lacks the rows at these offsets."""
    sessions = [Session("codex-7f3a", f"session-{number}", "platform", "acme/app") for number in range(40)]

    def send_each(some: list[Session]) -> None:
        for session in some:
            broker.clock.seconds += 1
            ident = broker.end(TopicPartition(USAGE, 0))
            event = {"event_id": f"{ident:016x}", "occurred_at": broker.clock.now_ns(), "model": "o3", "output": 1}
            broker.append(USAGE, 0, [(session.key, session.message([event]))])

    send_each(sessions[:20])
    before = await work(start())
    before.crash()
    positions = [record.offset for record in broker.records(LOG) if record.key == b"\0position"]
    broker.cut(LOG, 0, positions[0] + 1)
    send_each(sessions[10:])
    other = start()
    await other.assign([0])
    while await other.deliver(0):
        pass
    await other.settle()
    other.crash()
    assert isinstance(before.store, MemoryStore)
    assert broker.end(TopicPartition(LOG, 0)) > before.store.changelog_offset(0) + 1
    if compacted:
        broker.compact(LOG)
    send_each(sessions)
    await work(start(before.store))
    assert counted(broker) == counted(broker, TOPICS.hour_rows.name) == 20 + 30 + 40


async def test_store_at_the_end_of_a_compacted_changelog_is_kept(broker: MemoryBroker, start: Start) -> None:
    send(broker, *range(8))
    before = await work(start())
    before.crash()
    broker.compact(LOG)
    assert isinstance(before.store, MemoryStore)
    after = await work(start(before.store))
    assert after.engine.counters.recovered == 0


async def test_removed_changelog_starts_a_new_generation(broker: MemoryBroker, start: Start) -> None:
    """Public rows have higher offsets than the newly counted ones; the generation lets the new rows win."""
    send(broker, *range(8))
    (await work(start())).crash()
    broker.create(LOG, 1)
    broker.delete_before(USAGE, 0, 6)
    await work(start(ids=IDS | {LOG: "new"}))
    versions = [orjson.loads(record.value or b"")["version"] for record in broker.records(ROWS)]
    assert versions[-1] == [1, 7]
    assert counted(broker) == 2, "what usage still has"


async def test_lower_watermark_of_a_replaced_worker_does_not_survive_compaction(
    broker: MemoryBroker, start: Start
) -> None:
    """Nothing more is sent, so no later group would write the right one."""

    def watermarks() -> list[bytes]:
        return [record.value or b"" for record in broker.records(LOG) if record.key == WATERMARK]

    send(broker, *range(4))
    first = await work(start())
    right = watermarks()[-1]
    broker.append(LOG, 0, [(WATERMARK, Watermark(b"2001-01-01T00", 0).encode())])
    first.crash()
    assert isinstance(first.store, MemoryStore)
    heir = await work(start(first.store))
    assert watermarks()[-1] == right
    written = len(watermarks())
    heir.crash()
    (await work(start())).crash()
    assert len(watermarks()) == written, "it is written again only once"
    broker.compact(LOG)
    other = await work(start())
    assert other.store.read(0, WATERMARK) == right
    assert counted(broker) == 4
