"""Late public rows of a replaced worker are overwritten by the owner, whatever that worker's settings were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry
from tests.support.usage import Session

from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime.memory import MemoryBroker, MemoryHost, MemoryWorker

TOPICS = Topics("late", 1)
LOG = TOPICS.session_hours_changelog.name
ROWS, HOURS = TOPICS.session_hour_rows.name, TOPICS.hour_rows.name
LAPTOP = Session("codex-7f3a", "one", "platform", "acme/app")
DEARER = """
[[price]]
provider = "openai"
model = "o3"
input = "1000"
output = "1000"
"""


@pytest.fixture
def dearer(tmp_path: Path) -> Book:
    """Provide a price book that a rollout has given to only one of two workers."""
    (tmp_path / "prices.toml").write_text(DEARER)
    return Book(read_overlay(tmp_path / "prices.toml"))


def broker_of(messages: Sequence[bytes]) -> MemoryBroker:
    broker = MemoryBroker()
    for topic in (TOPICS.usage.name, LOG, ROWS, HOURS, TOPICS.deadletters.name):
        broker.create(topic, 1)
    broker.append(TOPICS.usage.name, 0, [(LAPTOP.key, message) for message in messages])
    return broker


def message(broker_ms: int, *idents: int) -> bytes:
    return LAPTOP.message(
        [
            {"event_id": f"{ident:016x}", "occurred_at": broker_ms * 1_000_000, "model": "o3", "output": 5}
            for ident in idents
        ]
    )


def worker(broker: MemoryBroker, name: str, book: Book) -> MemoryWorker:
    fold = SessionCost(TOPICS, book, Window(7 * 86_400_000), FoldMetrics(CollectorRegistry()), broker.clock)
    return MemoryWorker(MemoryHost(broker, name), fold, source=TOPICS.usage.name, changelog=LOG)


def last(broker: MemoryBroker, topic: str) -> dict[str, Any]:
    row: dict[str, Any] = orjson.loads(broker.records(topic)[-1].value or b"")
    return row


@pytest.mark.parametrize("before", [True, False], ids=["while-it-owns", "before-it-takes-over"])
async def test_row_of_equal_version_with_another_price_is_replaced(dearer: Book, before: bool) -> None:
    """The versions of the two rows are equal; only their bytes differ."""
    broker = broker_of([message(MemoryBroker().clock.now_ms(), 1, 2)])
    zombie, owner = worker(broker, "zombie", dearer), worker(broker, "owner", Book())
    await zombie.assign([0])
    zombie.host.hold = True
    await zombie.deliver(0)
    await zombie.settle()
    await owner.assign([0])
    await owner.deliver(0)
    await owner.settle()
    right = {topic: last(broker, topic) for topic in (ROWS, HOURS)}
    while any(one.at.topic != LOG for one in zombie.host.in_flight):
        zombie.host.land()
    zombie.crash()
    for topic in (ROWS, HOURS):
        wrong = last(broker, topic)
        assert wrong["version"] == right[topic]["version"]
        assert wrong != right[topic]
    if not before:
        owner.crash()
        owner = worker(broker, "next", Book())
        await owner.assign([0])
    await owner.engine.late_writes.look(idle=True)
    await owner.settle()
    assert {topic: last(broker, topic) for topic in (ROWS, HOURS)} == right
    assert owner.engine.counters.late_writes == 2
    ends = {topic: len(broker.records(topic)) for topic in (ROWS, HOURS)}
    await owner.engine.late_writes.look(idle=True)
    await owner.settle()
    assert {topic: len(broker.records(topic)) for topic in (ROWS, HOURS)} == ends, "its own rows are not late ones"
    owner.crash()


async def test_takeover_does_not_rewrite_unchanged_rows() -> None:
    """Neither session-hours nor partial sums are written again, so moving an idle partition is cheap."""
    now = MemoryBroker().clock.now_ms()
    broker = broker_of([message(now, 1), message(now - 3_600_000, 2), message(now, 3, 3)])
    first = worker(broker, "first", Book())
    await first.assign([0])
    for _ in range(3):
        await first.deliver(0, 1)
        await first.settle()
    first.crash()
    ends = {topic: len(broker.records(topic)) for topic in (ROWS, HOURS, LOG)}
    for store in (first.store, None):
        heir = worker(broker, "heir", Book())
        if store is not None:
            heir = MemoryWorker(heir.host, heir.fold, source=TOPICS.usage.name, changelog=LOG, store=store)
        await heir.assign([0])
        await heir.engine.late_writes.look(idle=True)
        await heir.settle()
        assert {topic: len(broker.records(topic)) for topic in (ROWS, HOURS, LOG)} == ends
        heir.crash()


async def test_partial_of_an_earlier_release_in_a_higher_version_stays() -> None:
    """It says the same, although it lacks a field. Readers would ignore another row in a lower version."""
    broker = broker_of([message(MemoryBroker().clock.now_ms(), 1)])
    first = worker(broker, "first", Book())
    await first.assign([0])
    await first.deliver(0)
    await first.settle()
    first.crash()
    record = broker.records(HOURS)[-1]
    earlier = last(broker, HOURS) | {"version": [0, 7]}
    del earlier["inconsistent"]
    broker.append(HOURS, 0, [(record.key or b"", orjson.dumps(earlier))])
    heir = worker(broker, "heir", Book())
    await heir.assign([0])
    await heir.engine.late_writes.look(idle=True)
    await heir.settle()
    assert last(broker, HOURS) == earlier
    heir.crash()
