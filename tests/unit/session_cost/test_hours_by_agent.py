"""Rows of `cost.hours` are told apart by agent inside the row, also after an upgrade from rows that are not."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from tests.support.examples import examples
from tests.support.stepped_fold import NOW, Message, Stepped, session_cost
from tests.support.usage import Session, ns

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.hours import MAX_AGENTS
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.schemas.rows import SUM_COUNTS, HourCost
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime.changelog import DERIVED, DERIVED_FORMAT
from tallystream.streams.runtime.memory import MemoryBroker, MemoryHost, MemoryWorker
from tallystream.streams.runtime.store import MemoryStore

TOPICS = Topics("hours", 1)
LOG, HOURS = TOPICS.session_hours_changelog.name, TOPICS.hour_rows.name


def of(agent: str | None, *idents: int, at: int = ns(NOW)) -> tuple[bytes, bytes]:
    """Return a message of a session of this agent; each request has as many output tokens as its id says."""
    session = Session("codex-7f3a", f"of {agent}", "platform", "acme/app", agent)
    events = [
        {"event_id": f"{ident:016x}", "occurred_at": at, "model": "o3", "output": ident, "reported_cost_usd": "0.1"}
        for ident in idents
    ]
    return session.key, session.message(events)


def folded(messages: Iterable[tuple[bytes, bytes]]) -> Stepped:
    one = Stepped(0, session_cost())
    for offset, (key, value) in enumerate(messages):
        one.fold([Message(offset, value, key)])
        one.commit()
    return one


def parts_of(row: dict[str, Any]) -> dict[str | None, int]:
    """Return the output tokens by agent, of a row whose parts add up to it."""
    HourCost.model_validate(row, strict=True)
    for name in SUM_COUNTS:
        assert sum(part[name] for part in row["agents"]) == row[name], name
    for name in ("cost_usd", "reported_cost_usd"):
        assert sum(Decimal(part[name]) for part in row["agents"]) == Decimal(row[name]), name
    return {part["agent"]: part["output"] for part in row["agents"]}


@examples(50)
@given(st.lists(st.tuples(st.sampled_from((None, "main", "explorer|%")), st.integers(1, 40)), min_size=1), st.data())
def test_agents_add_up_to_the_row_after_any_split_crash_or_torn_group(
    requests: list[tuple[str | None, int]], data: st.DataObject
) -> None:
    messages = [of(agent, ident) for agent, ident in requests]
    one = Stepped(0, session_cost())
    one.take(data, [Message(n, value, key) for n, (key, value) in enumerate(messages)], most=5)
    ((_, row),) = one.hours.items()
    told: dict[str | None, int] = {}
    for agent, ident in set(requests):  # the same request of another session is another request
        told[agent] = told.get(agent, 0) + ident
    assert parts_of(row) == told


def test_row_of_too_many_agents_is_whole_and_not_told_apart_whoever_wrote_it() -> None:
    """The row must stay small whatever names clients send, and the agents that came first are no better than others."""
    messages = [of(f"agent-{n}", n + 1) for n in range(MAX_AGENTS + 1)]
    one = folded(messages[:-1])
    ((_, row),) = one.hours.items()
    assert len(parts_of(row)) == MAX_AGENTS
    one.fold([Message(MAX_AGENTS, messages[-1][1], messages[-1][0])])
    one.commit()
    ((_, full),) = one.hours.items()
    assert full["agents"] is None
    assert full["requests"] == MAX_AGENTS + 1
    assert full["output"] == sum(range(1, MAX_AGENTS + 2))
    one.recover()
    key, value = of("agent-0", 1000)
    one.fold([Message(MAX_AGENTS + 1, value, key)])
    one.commit()
    ((_, again),) = one.hours.items()
    assert (again["agents"], again["output"]) == (None, full["output"] + 1000)


def test_agent_whose_only_request_was_counted_elsewhere_is_not_in_the_row() -> None:
    """Claude Code repeats a request in a larger record, which another agent may have sent."""
    head = {"connection_id": "claude-7f3a", "client": "claude", "provider": "anthropic", "session_id": "s"}
    one = Stepped(0, session_cost())
    for offset, (agent, output) in enumerate((("small", 1), ("large", 500))):
        told = {"event_id": f"{7:016x}", "occurred_at": ns(NOW), "model": "claude-sonnet-4-5", "output": output}
        batch = {**head, "attribution": {"agent": agent}, "events": [told]}
        one.fold([Message(offset, orjson.dumps(batch), b"claude-7f3a|s")])
        one.commit()
    ((_, row),) = one.hours.items()
    assert [(part["agent"], part["output"]) for part in row["agents"]] == [("large", 500)]


def worker(broker: MemoryBroker, name: str, store: MemoryStore | None = None) -> MemoryWorker:
    fold = SessionCost(TOPICS, Book(), Window(7 * 86_400_000), FoldMetrics(CollectorRegistry()), broker.clock)
    return MemoryWorker(MemoryHost(broker, name), fold, source=TOPICS.usage.name, changelog=LOG, store=store)


def as_an_earlier_release(broker: MemoryBroker, store: MemoryStore) -> None:
    """Leave what a release that knew no agents has written: in its store, and as the newest row of the topic."""
    offset = store.changelog_offset(0)
    for key, raw in [row for row in store.items(0) if row[0].startswith(DERIVED)]:
        version, sums, _ = orjson.loads(raw)
        store.write(0, [(key, orjson.dumps((version, sums))), (DERIVED_FORMAT, b"hours/1")], offset)
    last = broker.records(HOURS)[-1]
    row = {name: value for name, value in orjson.loads(last.value or b"").items() if name != "agents"}
    broker.append(HOURS, 0, [(last.key, orjson.dumps(row))])


@pytest.mark.parametrize("disk", ["kept", "empty"])
async def test_upgrade_counts_no_hour_twice_and_tells_its_agents_with_the_next_request(disk: str) -> None:
    """Whoever wrote a row, the next one has its key and replaces it, forth and back in a rolling upgrade."""
    broker = MemoryBroker()
    now = broker.clock.now_ms() * 1_000_000
    for topic in (TOPICS.usage.name, LOG, TOPICS.session_hour_rows.name, HOURS, TOPICS.deadletters.name):
        broker.create(topic, 1)
    store, output = MemoryStore(), {"main": 0, "explorer": 0}
    for turn, agent in enumerate(("main", "explorer", "main"), 1):
        broker.append(TOPICS.usage.name, 0, [of(agent, turn, at=now)])
        output[agent] += turn
        one = worker(broker, f"worker-{turn}", store if disk == "kept" else None)
        await one.assign([0])
        before = len(broker.records(HOURS))
        await one.engine.late_writes.look(idle=True)
        await one.settle()
        assert len(broker.records(HOURS)) == before, "an upgrade alone writes no row again"
        await one.deliver(0)
        await one.settle()
        assert len({record.key for record in broker.records(HOURS)}) == 1
        row = orjson.loads(broker.records(HOURS)[-1].value or b"")
        assert parts_of(row) == {name: tokens for name, tokens in output.items() if tokens}
        one.crash()
        as_an_earlier_release(broker, store)
