"""The product's fold on a broker in memory, compared with a plain sequential model.

A Hypothesis state machine: workers fold, crash, and return with their disk, an older one or none; they are paused and
continue as zombies. Their batches land completely, in part, late or never; partitions move, and standbys copy those of
others; records are sent twice; topics are compacted; hours expire. Whenever nothing is in progress, readers must see
exactly the model's result, and every public row ever written must equal the model's at its version.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections import defaultdict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import orjson
from aiokafka.structs import TopicPartition
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from prometheus_client import CollectorRegistry

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.schemas.hours import HOUR_MS, hour_iso
from tallystream.schemas.money import to_usd
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import Engine
from tallystream.streams.runtime.memory import (
    ManualClock,
    MemoryBroker,
    MemoryGroup,
    MemoryHost,
    MemoryWorker,
    WorkerCrashedError,
)
from tallystream.streams.runtime.standby import Standby
from tallystream.streams.runtime.store import MemoryStore

PARTITIONS = 2
SEATS = ("a", "b", "c")
LATENESS_MS = 2 * HOUR_MS
SESSIONS = 3
"""A partition."""
MODELS = ("gpt-5-codex", "o3", "house-model-9")
BATCH_BYTES = 1_200
"""Small, so that most groups need several batches and can be torn."""
COUNTS = ("input_uncached", "cache_read", "output")
TOPICS = Topics("machine", PARTITIONS)
BOOK = Book()
T = TypeVar("T")


@dataclass
class Sums:
    """The model's state of one session-hour, or of one partial sum of an hour."""

    requests: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(COUNTS))
    cost: int = 0
    unpriced: int = 0
    late: int = 0

    def add(self, counts: list[int], cost: int | None, late: bool) -> None:
        self.requests += 1
        self.counts = [a + b for a, b in zip(self.counts, counts, strict=True)]
        self.cost += cost or 0
        self.unpriced += cost is None
        self.late += late

    def row(self) -> dict[str, Any]:
        priced = self.requests > self.unpriced
        return {
            "requests": self.requests, **dict(zip(COUNTS, self.counts, strict=True)),
            "cost_usd": to_usd(self.cost) if priced else None, "unpriced_requests": self.unpriced,
            "late_events": self.late,
        }  # fmt: skip


SHOWN = ("requests", *COUNTS, "cost_usd", "unpriced_requests", "late_events")


class Model:
    """Processes records sequentially, without groups or crashes: each row after each source offset."""

    def __init__(self) -> None:
        self.sessions: dict[bytes, dict[str, Sums]] = defaultdict(lambda: defaultdict(Sums))
        self.copies: dict[bytes, int] = defaultdict(int)
        self.hours: dict[bytes, Sums] = defaultdict(Sums)
        self.seen: dict[bytes, set[int]] = defaultdict(set)
        self.letters: set[bytes] = set()
        self.history: dict[tuple[bytes, int], Any] = {}
        """The session-hour after the source offset that changed it."""

    def fold(self, p: int, offset: int, append_ms: int, session: str, events: list[Any]) -> None:
        touched = set()
        for index, (ident, at_ms, model, counts) in enumerate(events):
            hour = at_ms // HOUR_MS
            if hour < (append_ms - LATENESS_MS) // HOUR_MS:
                self.letters.add(b"usage|%d|%d|%d" % (p, offset, index))
                continue
            key = f"codex-7f3a|{session}|{hour_iso(hour)}".encode()
            touched.add(key)
            if ident in self.seen[key]:
                self.copies[key] += 1
                continue
            self.seen[key].add(ident)
            cost = BOOK.price("openai", model, None, at_ms * 1_000_000, counts[0], counts[1], 0, 0, counts[2])
            late = append_ms >= (hour + 2) * HOUR_MS
            self.sessions[key][model].add(counts, cost, late)
            self.hours[f"{p}|codex-7f3a|{hour_iso(hour)}|{model}|".encode()].add(counts, cost, late)
        for key in touched:
            self.history[key, offset] = self.row(key)

    def row(self, key: bytes) -> Any:
        return self.copies[key], {model: sums.row() for model, sums in self.sessions[key].items()}


def shown(row: dict[str, Any]) -> Any:
    """Return the model's state of a public session-hour."""
    return row["duplicates"], {b["model"]: {name: b[name] for name in SHOWN} for b in row["buckets"]}


@dataclass
class Seat:
    """A slot for a worker; its disk outlives the worker."""

    store: MemoryStore = field(default_factory=MemoryStore)
    older: MemoryStore = field(default_factory=MemoryStore)
    """An earlier state of the disk, which a power cut may restore."""
    paused: bool = False


class Exactness(RuleBasedStateMachine):
    """The product's engine and fold. A subclass removes a safeguard, to see that this is detected."""

    engine: ClassVar[type[Engine]] = Engine
    fold: ClassVar[type[SessionCost]] = SessionCost
    host: ClassVar[type[MemoryHost]] = MemoryHost
    standby: ClassVar[type[Standby]] = Standby
    mends_late_writes: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.broker = MemoryBroker(ManualClock(1_795_000_000.0))
        for topic in (TOPICS.usage, TOPICS.session_hours_changelog, TOPICS.session_hour_rows, TOPICS.hour_rows):
            self.broker.create(topic.name, PARTITIONS)
        self.broker.create(TOPICS.deadletters.name, 1)
        self.group = MemoryGroup()
        self.seats = {name: Seat() for name in SEATS}
        self.standbys: dict[str, Standby] = {}
        self.model = Model()
        self.random = random.Random(0)
        self.ghosts: list[MemoryHost] = []
        """Hosts of ended workers, with batches still in flight."""
        self.checked: dict[TopicPartition, int] = {}
        self.sent: list[tuple[int, str, list[Any]]] = []

    def teardown(self) -> None:
        async def ending() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.loop.run_until_complete(ending())
        self.loop.close()

    def run(self, doing: Coroutine[Any, Any, T]) -> T | None:
        """Run it and everything that follows from it; a worker may end meanwhile."""

        async def both() -> T | None:
            done = None
            with contextlib.suppress(WorkerCrashedError):
                done = await doing
            for worker in self.group.members.values():
                await worker.settle()
            return done

        done = self.loop.run_until_complete(both())
        for name, worker in list(self.group.members.items()):
            if not worker.alive:
                why = worker.host.crashed
                assert not isinstance(why, Exception), repr(why)
                self.end(name)
        return done

    def end(self, name: str) -> None:
        worker = self.group.members.pop(name)
        worker.crash()
        self.ghosts.append(worker.host)
        self.seats[name].paused = False

    def start(self, name: str) -> None:
        host = self.host(self.broker, name, batch_bytes=BATCH_BYTES)
        host.hold = True
        fold = self.fold(TOPICS, BOOK, Window(LATENESS_MS), FoldMetrics(CollectorRegistry()), self.broker.clock)
        self.group.members[name] = MemoryWorker(
            host, fold, source=TOPICS.usage.name, changelog=TOPICS.session_hours_changelog.name,
            store=self.seats[name].store, engine=self.engine,
        )  # fmt: skip
        self.standbys[name] = self.standby(self.group.members[name].engine, PARTITIONS)

    def rebalance(self, choice: int) -> None:
        """Assign the partitions to the workers that are not paused."""
        self.run(self._rebalance(choice))

    async def _rebalance(self, choice: int) -> None:
        aware = [name for name in self.group.members if not self.seats[name].paused]
        if not aware:
            return
        assignment: dict[str, set[int]] = {name: set() for name in aware}
        for p in range(PARTITIONS):
            assignment[aware[(choice >> p) % len(aware)]].add(p)
        await self.group.rebalance(assignment, [name for name in SEATS if self.seats[name].paused])

    def give_all_to(self, name: str) -> None:
        """Let one worker own everything; paused workers are not told."""
        if name not in self.group.members:
            self.start(name)
        unaware = [other for other in SEATS if self.seats[other].paused]
        self.run(self.group.rebalance({name: set(range(PARTITIONS))}, unaware))

    def member(self, number: int) -> MemoryWorker | None:
        names = sorted(self.group.members)
        return self.group.members[names[number % len(names)]] if names else None

    # -- the rules

    @initialize()
    def begin(self) -> None:
        for name in SEATS[:2]:
            self.start(name)
        self.rebalance(1)

    @rule(
        requests=st.lists(
            st.tuples(
                st.integers(0, SESSIONS * PARTITIONS - 1),
                st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.integers(0, 900)), min_size=1, max_size=4),
            ),
            min_size=1,
            max_size=6,
        )
    )
    def produce(self, requests: list[tuple[int, list[tuple[int, int, int]]]]) -> None:
        """Requests with usage of one session each: (id, age in steps of 40 minutes, tokens), with few ids."""
        now = self.broker.clock.now_ms()
        for session, events in requests:
            model = MODELS[session % len(MODELS)]
            made = [
                (ident, now - age * 40 * 60_000, model, [amount, ident, amount % 7 + 1])
                for ident, age, amount in events
            ]
            self._send(session % PARTITIONS, f"s{session}", made)

    @precondition(lambda self: self.sent)
    @rule(number=st.integers(0, 1000))
    def produce_again(self, number: int) -> None:
        """A client without an answer sends the same request again."""
        self._send(*self.sent[number % len(self.sent)])

    def _send(self, p: int, session: str, events: list[Any]) -> None:
        self.sent.append((p, session, events))
        value = {
            "connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": session,
            "attribution": {},
            "events": [
                {"event_id": f"{ident:016x}", "occurred_at": at_ms * 1_000_000, "model": model}
                | dict(zip(COUNTS, counts, strict=True))
                for ident, at_ms, model, counts in events
            ],
        }  # fmt: skip
        key = f"codex-7f3a|{session}".encode()
        offset = self.broker.append(TOPICS.usage.name, p, [(key, orjson.dumps(value))])
        self.model.fold(p, offset, self.broker.clock.now_ms(), session, events)

    @rule(minutes=st.sampled_from((1, 10, 70, 400)))
    def time_passes(self, minutes: int) -> None:
        self.broker.clock.seconds += minutes * 60

    @rule(who=st.integers(0, 2), p=st.integers(0, PARTITIONS - 1), count=st.integers(1, 5))
    def fold_some(self, who: int, p: int, count: int) -> None:
        worker = self.member(who)
        if worker is not None and p in worker.owned:
            self.run(worker.deliver(p, count))

    @rule(who=st.integers(0, 2), p=st.integers(0, PARTITIONS - 1), count=st.integers(1, 3))
    def lose_on_the_way(self, who: int, p: int, count: int) -> None:
        """A batch does not reach the engine; the next one shows the gap, or the watch detects it."""
        worker = self.member(who)
        if worker is not None and p in worker.owned:
            worker.skip(p, count)

    @rule(who=st.integers(0, 5), batches=st.integers(1, 6), topic=st.integers(0, 3))
    def land(self, who: int, batches: int, topic: int) -> None:
        """Batches in flight land, of a running or an ended worker."""
        hosts = [worker.host for _, worker in sorted(self.group.members.items())] + self.ghosts
        host = hosts[who % len(hosts)] if hosts else None
        if host is None or not host.in_flight:
            return
        at = sorted({one.at for one in host.in_flight})[topic % len({one.at for one in host.in_flight})]

        async def some() -> None:
            for _ in range(batches):
                if not host.land(at):
                    return

        self.run(some())

    @rule(who=st.integers(0, 2))
    def commit(self, who: int) -> None:
        """Everything that a worker has folded lands, group by group."""
        worker = self.member(who)
        if worker is not None:
            self.flow(worker)

    def flow(self, worker: MemoryWorker) -> None:
        for _ in range(200):
            worker.host.land_all()
            self.run(worker.settle())
            if not worker.alive or not worker.host.in_flight:
                return

    @rule(who=st.integers(0, 2), lost=st.booleans())
    def crash(self, who: int, lost: bool) -> None:
        """Kill -9: batches in flight may land later, or are `lost`."""
        worker = self.member(who)
        if worker is None:
            return
        if lost:
            worker.host.in_flight.clear()
        name = next(name for name, one in self.group.members.items() if one is worker)
        self.end(name)

    @rule(
        who=st.integers(0, 2), count=st.integers(1, 8), batches=st.integers(0, 4), number=st.integers(0, 2),
        disk=st.sampled_from(("kept", "lost", "older")), choice=st.integers(0, 7),
    )  # fmt: skip
    def tear(self, who: int, count: int, batches: int, number: int, disk: str, choice: int) -> None:
        """A group's public rows land and some of its changelog batches; its worker dies, another one starts."""
        worker = self.member(who)
        if worker is None:
            return
        self._begin_group(worker, count)
        self._land_changelog(worker.host, batches)
        self.crash(who, lost=True)
        self.restart(number, disk, choice)

    @rule(
        who=st.integers(0, 2), count=st.integers(1, 8), batches=st.integers(0, 4), public=st.booleans(),
        choice=st.integers(0, 7), more=st.booleans(),
    )  # fmt: skip
    def outlive(self, who: int, count: int, batches: int, public: bool, choice: int, more: bool) -> None:
        """A worker is paused during a group; others take over and continue; then some or all of its batches land."""
        worker = self.member(who)
        if worker is None or len(self.group.members) < 2:
            return
        self._begin_group(worker, count, public=public)
        name = next(name for name, one in self.group.members.items() if one is worker)
        self.seats[name].paused = True
        self.rebalance(choice)
        for other in list(self.group.members.values()):
            if other is not worker:
                self._fold_all(other)
        self._land_public(worker)
        self._land_changelog(worker.host, batches)
        if more:
            for other in list(self.group.members.values()):
                self._fold_all(other)
        self.seats[name].paused = False

    def _fold_all(self, worker: MemoryWorker) -> None:
        for p in worker.owned:
            self.run(worker.deliver(p))
        if worker.alive:
            self.flow(worker)

    def _begin_group(self, worker: MemoryWorker, count: int, *, public: bool = True) -> None:
        """Fold some records; the group's public rows land if requested, and its changelog batches are in flight."""
        for p in worker.owned:
            self.run(worker.deliver(p, count))
        if public:
            self._land_public(worker)

    def _land_public(self, worker: MemoryWorker) -> None:
        log = TOPICS.session_hours_changelog.name

        async def landing() -> None:
            for at in [one.at for one in worker.host.in_flight if one.at.topic != log]:
                worker.host.land(at)

        self.run(landing())

    def _land_changelog(self, host: MemoryHost, batches: int) -> None:
        log = TOPICS.session_hours_changelog.name

        async def landing() -> None:
            for at in [one.at for one in host.in_flight if one.at.topic == log][:batches]:
                host.land(at)

        self.run(landing())

    @rule(number=st.integers(0, 2), disk=st.sampled_from(("kept", "kept", "lost", "older")), choice=st.integers(0, 7))
    def restart(self, number: int, disk: str, choice: int) -> None:
        name = SEATS[number]
        if name in self.group.members:
            self.rebalance(choice)
            return
        seat = self.seats[name]
        if disk == "lost":
            seat.store = MemoryStore()
        elif disk == "older":
            seat.store = seat.older
        seat.older = copy.deepcopy(seat.store)
        self.start(name)
        self.rebalance(choice)

    @rule(
        who=st.integers(0, 2), landing=st.booleans(), turns=st.integers(0, 8),
        choice=st.one_of(st.none(), st.integers(0, 7)),
    )  # fmt: skip
    def copy_others(self, who: int, landing: bool, turns: int, choice: int | None) -> None:
        """A standby copies what others' changelogs have gained; partitions may move, and batches land, meanwhile."""
        worker = self.member(who)
        if worker is None:
            return
        name = next(name for name, one in self.group.members.items() if one is worker)

        async def copying() -> None:
            async with worker.host.reader() as reader, worker.host.reader(fetch_bytes=1) as tails:
                copied = asyncio.ensure_future(self.standbys[name].follow(reader, tails))
                for _ in range(turns):
                    await asyncio.sleep(0)
                if choice is not None:
                    await self._rebalance(choice)
                await copied

        if landing:
            self.broker.before_fetch = self._one_lands
        try:
            self.run(copying())
        finally:
            self.broker.before_fetch = None

    @rule(choice=st.integers(0, 7), landing=st.booleans())
    def partitions_move(self, choice: int, landing: bool) -> None:
        """A rebalance; while the new owners recover, zombies' batches may land."""
        if landing:
            self.broker.before_fetch = self._one_lands
        try:
            self.rebalance(choice)
        finally:
            self.broker.before_fetch = None

    def _one_lands(self) -> None:
        for host in [*self.ghosts, *(w.host for n, w in self.group.members.items() if self.seats[n].paused)]:
            if host.land():
                return

    @rule(who=st.integers(0, 2))
    def pause(self, who: int) -> None:
        """SIGSTOP: the worker misses rebalances, and considers itself a member when it is allowed to continue."""
        names = sorted(self.group.members)
        if names:
            self.seats[names[who % len(names)]].paused = True

    @rule()
    def resume(self) -> None:
        """Paused workers learn at the next rebalance that they are no longer members."""
        for seat in self.seats.values():
            seat.paused = False

    @rule(choice=st.integers(0, 7), compacted=st.booleans())
    def come_to_rest(self, choice: int, compacted: bool) -> None:
        """Everything lands and is folded, late rows are overwritten, topics are compacted; the result must be exact."""
        for host in self.ghosts:
            host.land_all()
        self.ghosts.clear()
        for _, worker in sorted(self.group.members.items()):
            self.flow(worker)
        self.resume()
        if not self.group.members:
            self.start(SEATS[choice % len(SEATS)])
        self.rebalance(choice)
        self.settle_all()
        assert self.group.members, "a worker ends although nobody else writes"
        if self.mends_late_writes:
            for worker in list(self.group.members.values()):
                self.run(worker.engine.late_writes.look(idle=True))
                self.flow(worker)
        if compacted:
            topics = (TOPICS.session_hours_changelog, TOPICS.session_hour_rows, TOPICS.hour_rows)
            for topic in topics:
                self.broker.compact(topic.name)
        self.exact()

    def settle_all(self) -> None:
        """Deliver and commit until all partitions are at their ends."""
        for _ in range(20):
            done = True
            for worker in list(self.group.members.values()):
                for p in worker.owned:
                    self.run(worker.deliver(p, 1 + self.random.randrange(6)))
                self.broker.clock.seconds += 2  # repairs are at least a second apart
                self.run(worker.engine.watch())
                self.flow(worker)
                done = done and all(at == self.broker.end(tp) for tp, at in worker.engine.applied().items())
            if done and sum(len(worker.owned) for worker in self.group.members.values()) == PARTITIONS:
                return
        positions = {name: worker.engine.applied() for name, worker in self.group.members.items()}
        raise AssertionError(f"not caught up: {positions}")

    # -- the invariants

    @invariant()
    def every_row_is_true_at_its_version(self) -> None:
        for p in range(PARTITIONS):
            tp = TopicPartition(TOPICS.session_hour_rows.name, p)
            for record in self.broker.records(tp.topic, p):
                if record.offset < self.checked.get(tp, 0):
                    continue
                row = orjson.loads(record.value or b"")
                assert record.key is not None
                assert shown(row) == self.model.history.get((record.key, row["version"][1])), (record.key, row)
            self.checked[tp] = self.broker.end(tp)

    def view(self, topic: str) -> dict[bytes, dict[str, Any]]:
        """Return what a reader sees: for each key the row of the highest version, the later of two equal ones."""
        rows: dict[bytes, dict[str, Any]] = {}
        for record in self.broker.records(topic):
            assert record.key is not None
            row = orjson.loads(record.value or b"")
            if record.key not in rows or row["version"] >= rows[record.key]["version"]:
                rows[record.key] = row
        return rows

    def exact(self) -> None:
        rows = self.view(TOPICS.session_hour_rows.name)
        assert {key: shown(row) for key, row in rows.items()} == {
            key: self.model.row(key) for key in self.model.sessions
        }
        hours = {key: {name: row[name] for name in SHOWN} for key, row in self.view(TOPICS.hour_rows.name).items()}
        assert hours == {key: sums.row() for key, sums in self.model.hours.items()}
        letters = {record.key for record in self.broker.records(TOPICS.deadletters.name)}
        assert letters == self.model.letters
