"""Rules of the send queue, tested with deliveries in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.support.examples import examples

from tallystream.agents.port_sink.mapping.entities import Entity, EntityKey
from tallystream.agents.port_sink.pipeline.send_queue import QueuedEntity, SendQueue
from tallystream.agents.port_sink.port import api

NAMES = st.sampled_from("abcdefg")
BLUEPRINTS = st.sampled_from(["one", "two"])


def entity(blueprint: str, name: str, version: int, size: int = 0) -> Entity:
    body = {"identifier": name, "version": version, "relations": {"x": "target"}}
    return Entity(EntityKey(blueprint, name), body, b"x" * size, f"{version:024x}")


class Machine(RuleBasedStateMachine):
    """`newest` is the last enqueued version, `there` the last one that landed; in the end they must be equal."""

    def __init__(self) -> None:
        super().__init__()
        self.send_queue = SendQueue(linger_ms=100)
        self.now = 0
        self.version = 0
        self.newest: dict[EntityKey, int] = {}
        self.there: dict[EntityKey, int] = {}
        self.flying: dict[EntityKey, QueuedEntity] = {}

    @rule(blueprint=BLUEPRINTS, name=NAMES, size=st.sampled_from([10, 400_000]))
    def put(self, blueprint: str, name: str, size: int) -> None:
        self.version += 1
        one = entity(blueprint, name, self.version, size)
        self.newest[one.key] = self.version
        self.send_queue.put(QueuedEntity(one, "kind", name.encode(), since_ms=self.now), self.now)

    @rule(ms=st.integers(1, 300))
    def wait(self, ms: int) -> None:
        self.now += ms

    @rule()
    def take(self) -> None:
        if (taken := self.send_queue.take(self.now)) is not None:
            blueprint, items = taken
            assert 0 < len(items) <= api.BULK
            assert len(items) == 1 or sum(len(item.entity.text) for item in items) < api.MAX_BODY
            for item in items:
                key = item.entity.key
                assert key.blueprint == blueprint
                assert key not in self.flying, "never twice at a time"
                assert item.entity.body["version"] == self.newest[key], "only the newest"
                self.flying[key] = item

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def land(self, data: Any) -> None:
        item = self.flying.pop(data.draw(st.sampled_from(sorted(self.flying))))
        self.there[item.entity.key] = item.entity.body["version"]
        self.send_queue.ack(item, self.now)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), pause=st.integers(1, 500))
    def fail(self, data: Any, pause: int) -> None:
        item = self.flying.pop(data.draw(st.sampled_from(sorted(self.flying))))
        self.send_queue.defer(item, self.now + pause, self.now)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def again(self, data: Any) -> None:
        key = data.draw(st.sampled_from(sorted(self.flying)))
        (item,) = self.send_queue.newest([self.flying[key]])
        assert item.entity.body["version"] == self.newest[key]
        self.flying[key] = item

    @rule()
    def wake(self) -> None:
        self.send_queue.wake(["target"], self.now)

    @invariant()
    def nothing_is_forgotten(self) -> None:
        for key, version in self.newest.items():
            assert self.there.get(key) == version or self.send_queue.holds(key)

    def teardown(self) -> None:
        for key in list(self.flying):
            item = self.flying.pop(key)
            self.there[key] = item.entity.body["version"]
            self.send_queue.ack(item, self.now)
        self.now += 10_000
        while (taken := self.send_queue.take(self.now)) is not None:
            for item in taken[1]:
                self.there[item.entity.key] = item.entity.body["version"]
                self.send_queue.ack(item, self.now)
        assert self.there == self.newest
        assert len(self.send_queue) == 0


Machine.TestCase.settings = examples(60, stateful_step_count=40)
TestOutbox = Machine.TestCase


def test_newest_document_is_sent_with_the_time_of_the_oldest_change() -> None:
    send_queue = SendQueue(linger_ms=0)
    send_queue.put(QueuedEntity(entity("one", "a", 2), "k", b"new", order=2, since_ms=50, appended_ms=45), 50)
    send_queue.put(QueuedEntity(entity("one", "a", 1), "k", b"old", order=1, since_ms=40), 60)
    assert send_queue.since_ms() == 40
    taken = send_queue.take(60)
    assert taken is not None
    assert [(item.key, item.appended_ms) for item in taken[1]] == [(b"new", 45)], "a repetition is no change"


def test_relation_targets_are_sent_first_in_requests_of_twenty() -> None:
    send_queue = SendQueue(linger_ms=100)
    send_queue.rank({"target": 0, "source": 1})
    for number in range(25):
        send_queue.put(QueuedEntity(entity("source", f"{number}", 1), "k", b"", since_ms=1), 0)
    send_queue.put(QueuedEntity(entity("target", "t", 1), "k", b"", since_ms=2), 0)
    batches = [send_queue.take(0), send_queue.take(50), send_queue.take(100), send_queue.take(100)]
    assert [batch and (batch[0], len(batch[1])) for batch in batches] == [
        ("source", 20), None, ("target", 1), ("source", 5),
    ]  # fmt: skip
