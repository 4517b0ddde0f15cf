"""Which rows win in `openai.days`: agents that are behind, paused or late, and a recreated topic.

The model has the two topics as lists, and agents that read and publish in any order. In the end readers (who keep the
highest version, and the later of two equal ones) must see what the newest records say.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.agents.openai_days import Days
from tallystream.schemas import exact
from tallystream.schemas.openai import OpenAIRecord, digest
from tallystream.streams.kafka.errors import TopicRecreatedError

COSTS = "/organization/costs"
FIRST = datetime(2026, 11, 21, tzinfo=UTC)
Message = tuple[bytes, bytes]


def record(day: int, polled: int, amounts: dict[str, int]) -> OpenAIRecord:
    rows = [
        {"amount": {"value": Decimal(value), "currency": "usd"}, "line_item": f"{model}, input", "project_id": None}
        for model, value in amounts.items()
    ]
    packed, decimals = exact.pack(rows)
    start = FIRST + timedelta(days=day)
    return OpenAIRecord(
        resource=COSTS, query="a" * 16, bucket=f"{start:%Y-%m-%d}", starts_at=start, ends_at=start + timedelta(days=1),
        polled_at=FIRST + timedelta(seconds=polled), digest=digest(rows), rows=packed, decimals=decimals,
    )  # fmt: skip


def read(messages: list[Message]) -> dict[bytes, dict[str, Any]]:
    """The rows that readers keep."""
    kept: dict[bytes, dict[str, Any]] = {}
    for key, value in messages:
        row = orjson.loads(value)
        if key not in kept or row["version"] >= kept[key]["version"]:
            kept[key] = row
    return kept


def amounts_of(rows: dict[bytes, dict[str, Any]]) -> dict[tuple[str, str], str]:
    """Dollars by day and model; empty rows are left out."""
    return {(row["day"], row["model"]): row["billed"][0]["usd"] for row in rows.values() if row["billed"]}


@dataclass
class Topics:
    """The records' topic has holes (None) after compaction; `made` counts how often it was recreated."""

    records: list[OpenAIRecord | None] = field(default_factory=list)
    days: list[Message] = field(default_factory=list)
    made: int = 0

    def newest(self) -> dict[tuple[str, str], str]:
        latest: dict[str, OpenAIRecord] = {}
        for one in self.records:
            if one is not None and (one.bucket not in latest or one.polled_at >= latest[one.bucket].polled_at):
                latest[one.bucket] = one
        return {
            (bucket, row["line_item"].partition(",")[0]): exact.plain(row["amount"]["value"])
            for bucket, one in latest.items()
            for row in one.exact_rows()
        }

    def compact(self) -> None:
        """Remove every record that is followed by one of the same key, also rows of days, whatever their versions."""
        last = {one.bucket: offset for offset, one in enumerate(self.records) if one is not None}
        self.records = [
            one if one is not None and last[one.bucket] == offset else None for offset, one in enumerate(self.records)
        ]


class Agent:
    """Does what `agent.py` does, step by step; `publish` may happen much later than `take`."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self.begin()

    def begin(self) -> None:
        self.days = Days()
        self.row = self.record = 0
        self.goal = (len(self.topics.days), len(self.topics.records))
        self.pending: list[Message] = []

    def read(self, rows: int, records: int) -> None:
        try:
            self.check()
            told = self.topics.days[self.row : self.row + rows]
            for key, value in told:
                self.days.published(key, value)
            self.row += len(told)
            for one in self.topics.records[self.record : self.record + records]:
                if one is not None:
                    self.days.passed(one.key, self.record)
                    self.days.record(one.key, self.record, one)
                self.record += 1
            if told:
                self.goal = (len(self.topics.days), len(self.topics.records))
                self.check()
            if self.caught_up() and self.days.missing_records:
                self.goal = (len(self.topics.days), len(self.topics.records))
                self.check()
            if self.caught_up():
                self.pending += self.days.take()
        except TopicRecreatedError:
            # Records already handed to the producer are still sent.
            late = self.pending
            self.begin()
            self.pending = late

    def caught_up(self) -> bool:
        return self.row >= self.goal[0] and self.record >= self.goal[1]

    def check(self) -> None:
        if self.record > len(self.topics.records):
            raise TopicRecreatedError("it ends before the position")

    def publish(self) -> None:
        self.topics.days += self.pending
        self.pending = []

    def settled(self) -> bool:
        return (self.row, self.record) == (len(self.topics.days), len(self.topics.records)) and not self.pending


def settle(topics: Topics, agents: list[Agent]) -> int:
    """Let all agents run until nothing changes; return the number of rounds."""
    for rounds in range(200):
        for agent in agents:
            agent.read(10**6, 10**6)
            agent.publish()
        if all(agent.settled() for agent in agents):
            before = len(topics.days)
            for agent in agents:
                agent.read(10**6, 10**6)
                agent.publish()
            if len(topics.days) == before:
                return rounds
    raise AssertionError("they never agree")


def test_rows_of_a_recreated_topic_get_the_next_generation() -> None:
    topics = Topics()
    topics.records = [record(0, n, {"m": n + 1}) for n in range(9)]
    agent = Agent(topics)
    settle(topics, [agent])
    assert [row["version"] for row in read(topics.days).values()] == [[0, 8]]
    topics.records = [record(0, 100, {"m": 77})]
    settle(topics, [agent])
    (row,) = read(topics.days).values()
    assert (row["version"], row["billed"][0]["usd"]) == ([1, 0], "77")
    topics.records.append(record(0, 101, {"m": 78}))
    settle(topics, [agent])
    assert [row["version"] for row in read(topics.days).values()] == [[1, 1]]


def test_all_agents_choose_the_same_generation() -> None:
    topics = Topics()
    topics.records = [record(0, n, {"m": n, "o": 1}) for n in range(5)]
    settle(topics, [Agent(topics)])
    topics.records = [record(0, 9, {"m": 50})]
    agents = [Agent(topics) for _ in range(3)]
    for agent in agents:  # none has seen the rows that the others publish
        agent.read(10**6, 10**6)
    said = [sorted(agent.pending) for agent in agents]
    assert said[0] == said[1] == said[2]
    assert {tuple(orjson.loads(value)["version"]) for _, value in said[0]} == {(1, 0)}


def test_agent_that_is_behind_starts_no_generation() -> None:
    """It sees a row of a record that it has not read yet, which does not mean that the topic was recreated."""
    topics = Topics()
    topics.records = [record(0, n, {"m": n}) for n in range(3)]
    ahead, late = Agent(topics), Agent(topics)
    settle(topics, [ahead, late])
    topics.records.append(record(0, 9, {"m": 99}))
    ahead.read(10**6, 10**6)
    ahead.publish()
    late.read(10**6, 0)
    assert late.pending == []
    settle(topics, [ahead, late])
    (row,) = read(topics.days).values()
    assert (row["version"], row["billed"][0]["usd"]) == ([0, 3], "99")


def test_new_agent_reads_all_records_before_it_judges_rows() -> None:
    topics = Topics()
    topics.records = [record(0, n, {"m": n}) for n in range(3)]
    ahead = Agent(topics)
    settle(topics, [ahead])
    begun = Agent(topics)
    topics.records.append(record(0, 9, {"m": 99}))
    settle(topics, [ahead])
    begun.read(10**6, 3)
    assert begun.pending == []
    settle(topics, [ahead, begun])
    assert [(row["version"], row["billed"][0]["usd"]) for row in read(topics.days).values()] == [([0, 3], "99")]


def test_compaction_during_the_start_is_not_taken_for_a_recreated_topic() -> None:
    """The row's record is compacted before the agent reads it, because of a record after the end that it was told."""
    topics = Topics()
    topics.records = [record(0, 0, {"m": 1}), record(0, 1, {"m": 2})]
    settle(topics, [Agent(topics)])
    begun = Agent(topics)
    begun.read(10**6, 1)
    topics.records.append(record(0, 2, {"m": 3}))
    topics.compact()
    begun.read(0, 1)
    assert begun.pending == [], "there is a newer record, which it has not read"
    settle(topics, [begun])
    assert [(row["version"], row["billed"][0]["usd"]) for row in read(topics.days).values()] == [([0, 2], "3")]


def test_agent_unaware_of_a_recreated_topic_does_not_win() -> None:
    """Its position is in the middle of the new topic, and before it the agent has the old topic's records."""
    topics = Topics()
    topics.records = [record(day, n, {"m": n}) for n in range(3) for day in (0, 1)]
    unaware = Agent(topics)
    settle(topics, [unaware])
    topics.records = [record(0, 50, {"m": 500}), record(1, 50, {"m": 501})]
    topics.records += [record(2, 50 + n, {"m": n}) for n in range(10)]
    settle(topics, [Agent(topics), unaware])
    assert amounts_of(read(topics.days)) == topics.newest()


def test_unreadable_records_do_not_indicate_a_recreated_topic() -> None:
    """Another version of tallystream can read them; the days that it published are kept."""
    one = record(0, 1, {"m": 1})
    days = Days()
    days.record(one.key, 0, one)
    ((key, value),) = days.take()
    used = [{"resource": "r", "counts": {"n": 1}, "polled_at": "2026-11-21T00:00:00Z"}]
    newer = orjson.dumps({**orjson.loads(value), "used": used, "version": [0, 4]})
    days.passed(one.key, 4)
    days.published(key, newer)
    with pytest.raises(TopicRecreatedError):  # once, to be sure
        days.take()
    fresh = Days()
    fresh.published(key, newer)
    fresh.record(one.key, 0, one)
    fresh.passed(one.key, 4)
    assert [orjson.loads(value)["version"] for _, value in fresh.take()] == [[0, 4]]


@examples(300)
@given(st.integers(0, 2**32), st.booleans())
@example(1703, False)  # compaction ahead of a reader
def test_newest_records_win_in_any_interleaving_of_agents(seed: int, anew: bool) -> None:
    rng = random.Random(seed)
    topics = Topics()
    agents = [Agent(topics) for _ in range(3)]
    polled = 0
    for _ in range(rng.randrange(10, 80)):
        what = rng.random()
        if what < 0.4:
            polled += 1
            models = rng.sample(["a", "b", "c"], rng.randrange(4))
            late = rng.random() < 0.1  # a replaced poller's, after its successor's
            when = polled - rng.randrange(5) - 0.5 if late else polled
            topics.records.append(record(rng.randrange(2), int(2 * when), {m: rng.randrange(1, 4) for m in models}))
        elif what < 0.65:
            rng.choice(agents).read(rng.randrange(4), rng.randrange(4))
        elif what < 0.85:
            rng.choice(agents).publish()
        elif what < 0.9:
            rng.choice(agents).begin()  # killed, and started again
        elif what < 0.95:
            topics.compact()
        elif anew:
            topics.made += 1
            topics.records = []
    for day in range(2):  # every poller requests open buckets again
        polled += 1
        topics.records.append(record(day, 2 * polled, {"a": rng.randrange(4, 9)}))
    settle(topics, [*agents, Agent(topics)])
    assert amounts_of(read(topics.days)) == topics.newest()
    if not anew:
        assert all(row["version"][0] == 0 for row in read(topics.days).values()), "nothing raised a generation"
