"""The session-cost fold driven one step at a time on a store in memory, without Kafka."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.schemas.deadletters import DeadLetter
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import Partition
from tallystream.streams.runtime.changelog import Position, Row, Watermark
from tallystream.streams.runtime.store import MemoryStore

NOW = datetime(2026, 11, 21, 14, 20, tzinfo=UTC)
NOW_MS = int(NOW.timestamp()) * 1000
TOPICS = Topics("unit", 3)
BOOK = Book()


@dataclass
class Message:
    """A source record."""

    offset: int
    value: bytes | None
    key: bytes | None
    timestamp: int = NOW_MS
    partition: int = 0
    topic: str = TOPICS.usage.name
    headers: Sequence[tuple[str, bytes]] = ()


def session_cost(lateness_ms: int = 7 * 24 * 3_600_000, registry: CollectorRegistry | None = None) -> SessionCost:
    return SessionCost(TOPICS, BOOK, Window(lateness_ms), FoldMetrics(registry or CollectorRegistry()))


@dataclass
class Stepped:
    """Performs the runtime's steps for a partition one at a time; `published` is what readers see."""

    p: int
    fold_of: SessionCost
    store: MemoryStore = field(default_factory=MemoryStore)
    partition: Partition = field(init=False)
    published: dict[str, dict[bytes, dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    changelog: int = 0
    changelog_bytes: int = 0

    def __post_init__(self) -> None:
        self.recover()

    def recover(self, watermark: Watermark | None = None) -> None:
        """Drop the memory and read the store again."""
        self.fold_of.lost(self.p)
        self.partition = Partition(self.p, self.store, Position(0), watermark)
        self.fold_of.recovered(self.partition)

    def fold(self, messages: Sequence[Message]) -> None:
        self.fold_of.fold(self.partition, messages)
        self.version = messages[-1].offset

    def commit(self, *, stored: int | None = None) -> None:
        """Publish a group and store it, or only its first `stored` rows: a torn group, after which memory is lost."""
        states, self.partition.dirty = self.partition.dirty, {}
        group = self.fold_of.group(self.partition, states, self.version)
        for out in group.public:
            for key, value in out.rows:
                assert value is not None
                self.publish(out.topic, key, orjson.loads(value))
        self.changelog += 1
        self.changelog_bytes += sum(len(key) + len(value or b"") for key, value in group.rows)
        torn = group.rows if stored is None else group.rows[:stored]
        self.store.write(self.p, [*torn, *self.derived(torn)], self.changelog)

    def derived(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows after recovery."""
        replaced = [(key, self.store.read(self.p, key), row) for key, row in rows]
        return self.fold_of.derive(self.p, replaced, lambda key: self.store.read(self.p, key))

    def stored(self) -> dict[bytes, bytes]:
        return dict(self.partition.rows(self.fold_of.is_closed))

    def publish(self, topic: str, key: bytes, row: dict[str, Any]) -> None:
        before = self.published[topic].get(key)
        if topic == TOPICS.deadletters.name:
            assert before is None or before == row, "a dead letter repeats itself"
        elif topic != TOPICS.hour_rows.name and before is not None and before["version"] == row["version"]:
            # after a torn group, a partial adds up a session-hour that is ahead and others that are not: the later wins
            assert before == row, "one version is one row"
        if before is None or "version" not in row or before["version"] <= row["version"]:
            self.published[topic][key] = row

    def take(self, data: st.DataObject, messages: Sequence[Message], *, most: int) -> None:
        """Fold all messages, up to `most` at once, with commits, torn groups and crashes in between as drawn."""
        position = at = 0
        while position < len(messages):
            step = data.draw(st.integers(1, most), label="messages folded at once")
            self.fold(messages[at : at + step])
            at = min(len(messages), at + step)
            match data.draw(st.sampled_from(("fold", "commit", "commit", "torn", "crash")), label="then"):
                case "commit":
                    self.commit()
                    position = at
                case "torn":
                    self.commit(stored=data.draw(st.integers(0, 3), label="rows stored"))
                    self.recover()
                    at = position
                case "crash":
                    self.recover()
                    at = position
                case _ if at == len(messages):
                    self.commit()
                    position = at

    @property
    def rows(self) -> dict[bytes, dict[str, Any]]:
        return self.published[TOPICS.session_hour_rows.name]

    @property
    def hours(self) -> dict[bytes, dict[str, Any]]:
        return self.published[TOPICS.hour_rows.name]

    @property
    def letters(self) -> list[DeadLetter]:
        return [DeadLetter.model_validate(row) for row in self.published[TOPICS.deadletters.name].values()]
