"""Repricing on a store in memory: two price books, a worker that may have either, and what its rows must come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from tests.support.stepped_fold import NOW_MS, TOPICS, Message, Stepped
from typing_extensions import override

from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.correction import HEADER
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.agents.session_cost.reprice_plan import PlannedCorrection, RepricePlan, Scope
from tallystream.schemas.money import to_pico
from tallystream.schemas.rows import SUM_COUNTS

WINDOW = Window(7 * 24 * 3_600_000)
OLD = """
price = [
  {provider = "openai", model = "sized", input = "1", output = "2"},
  {provider = "openai", model = "dropped", input = "1", output = "2"},
  {provider = "openai", model = "same", input = "1", output = "2"},
]
"""
NEW = """
[[price]]
provider = "openai"
model = "sized"
until = 2026-11-21T13:30:00Z
input = "3"
output = "5"
  [[price.above]]
  input_tokens = 10
  input = "7"
  output = "11"

[[price]]
provider = "openai"
model = "sized"
from = 2026-11-21T13:30:00Z
input = "13"
output = "17"

[[price]]
provider = "openai"
model = "found"
input = "1"
output = "1"

[[price]]
provider = "openai"
model = "same"
input = "1"
output = "2"
"""
"""Prices that depend on a request's size and time; of models that had none, and without one that had."""
MODELS = ("sized", "dropped", "same", "found")


def books(folder: Path) -> tuple[Book, Book]:
    """Return the old and the new book."""
    made = []
    for name, text in (("old", OLD), ("new", NEW)):
        path = folder / f"{name}.toml"
        path.write_text(text)
        made.append(Book(read_overlay(path)))
    return made[0], made[1]


@dataclass
class _Rows(Stepped):
    """A worker with another book may write another row of one version: the later one counts."""

    @override
    def publish(self, topic: str, key: bytes, row: dict[str, Any]) -> None:
        before = self.published[topic].get(key)
        if before is None or "version" not in row or before["version"] <= row["version"]:
            self.published[topic][key] = row


@dataclass
class Repriced:
    """A partition of `usage` and the worker that folds it; `crash` starts it again where it has committed."""

    book: Book
    log: list[Message] = field(default_factory=list)
    committed: int = 0
    folded: int = 0
    worker: Stepped = field(init=False)

    def __post_init__(self) -> None:
        self.worker = _Rows(0, self._fold(self.book))

    def _fold(self, book: Book) -> SessionCost:
        return SessionCost(TOPICS, book, WINDOW, FoldMetrics(CollectorRegistry()))

    def append(self, key: bytes, value: bytes, *, correction: bool = False) -> None:
        headers = [HEADER] if correction else []
        self.log.append(Message(len(self.log), value, key, NOW_MS + len(self.log), headers=headers))

    def step(self, most: int | None = None) -> None:
        """Fold some of the messages, or all."""
        messages = self.log[self.folded :][:most]
        if messages:
            self.worker.fold(messages)
            self.folded += len(messages)

    def commit(self, *, stored: int | None = None) -> None:
        if self.folded > self.committed:
            self.worker.commit(stored=stored)
            if stored is None:
                self.committed = self.folded
            else:
                self.crash(self.book)

    def crash(self, book: Book) -> None:
        """Lose what is not committed, and go on with a book."""
        self.book = book
        self.worker.fold_of = self._fold(book)
        self.worker.recover()
        self.folded = self.committed

    def plan(
        self, book: Book, scope: Scope | None = None, log: list[Message] | None = None, days_later: int = 0
    ) -> RepricePlan:
        """Plan from the rows as readers see them."""
        plan = RepricePlan(book, WINDOW, TOPICS, scope or Scope(), NOW_MS + days_later * 24 * 3_600_000)
        rows = {key: (tuple(row["version"]), orjson.dumps(row)) for key, row in self.worker.rows.items()}
        plan.begin(0, rows)
        for message in self.log if log is None else log:
            plan.add(message)
        plan.end()
        return plan

    def send(self, correction: PlannedCorrection) -> None:
        self.append(correction.key, correction.value, correction=True)

    def settle(self) -> None:
        self.step()
        self.commit()

    def reprice(self, book: Book, rounds: int = 3) -> int:
        """Correct until nothing is left; return how many corrections that took."""
        sent = 0
        for _ in range(rounds):
            corrections = self.plan(book).corrections
            if not corrections:
                return sent
            for one in corrections:
                self.send(one)
            sent += len(corrections)
            self.settle()
        assert not self.plan(book).corrections, "it does not end"
        return sent

    def as_if(self, book: Book) -> Repriced:
        """Return the same usage, counted by one book from the beginning."""
        other = Repriced(book)
        for message in self.log:
            if not message.headers:
                other.log.append(message)
        other.settle()
        return other

    def sums(self) -> dict[tuple[str, ...], list[int]]:
        """Return the sums of the rows by session, hour, model and team, over all books."""
        found: dict[tuple[str, ...], list[int]] = {}
        for row in self.worker.rows.values():
            for bucket in row["buckets"]:
                name = (row["session_id"], row["hour"], bucket["model"], bucket["attribution"].get("team", ""))
                _add(found, name, bucket)
            _add(found, (row["session_id"], row["hour"], "duplicates"), dict.fromkeys(SUM_COUNTS, row["duplicates"]))
        return {name: sums for name, sums in found.items() if any(sums)}

    def hours(self) -> dict[tuple[str, ...], list[int]]:
        """Return the sums of the hours' partials."""
        found: dict[tuple[str, ...], list[int]] = {}
        for row in self.worker.hours.values():
            _add(found, (row["hour"], row["model"], row["team"] or ""), row)
        return {name: sums for name, sums in found.items() if any(sums)}


def _add(found: dict[tuple[str, ...], list[int]], name: tuple[str, ...], sums: dict[str, Any]) -> None:
    numbers = [sums[count] for count in SUM_COUNTS]
    numbers += [to_pico(sums.get(money) or "0") for money in ("cost_usd", "reported_cost_usd")]
    found[name] = [a + b for a, b in zip(found.get(name, [0] * len(numbers)), numbers, strict=True)]
