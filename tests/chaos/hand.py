"""Workers that a test moves step by step: the real app, table, producer, recovery and commit on real Kafka.

Faust's consumer is not used, so nothing happens by itself. An interleaving that chaos meets once in a thousand kills
can therefore be produced within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry
from tests.chaos.laws import judge
from tests.chaos.ledger import Ledger, read
from tests.chaos.prices import costs_law
from tests.support.counting import ended
from tests.support.usage import Event, Session, event

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.correction import HEADER
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.agents.session_cost.reprice_plan import PlannedCorrection, RepricePlan, Scope
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.runtime import Engine, Partition
from tallystream.streams.runtime.faust_backend import App, FoldTable

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


class Stepped(Engine):
    """The product's engine; its groups are committed by hand."""

    def begin(self, partition: Partition) -> None:
        """Do not commit automatically."""

    async def accepted(self, position: int) -> None:
        """Stands in for what Faust does when an agent has processed an event."""


@dataclass(frozen=True)
class Made:
    """The parts of a worker; a test can replace one by a version without a safeguard."""

    engine: type[Stepped] = Stepped
    fold: type[SessionCost] = SessionCost


PRODUCT = Made()


class CrashError(Exception):
    """Raised where a real process would exit."""


class Hand:
    """One worker of one partition. `write` may be replaced to delay, tear or reorder its writes."""

    def __init__(self, world: World, made: Made, lateness: timedelta, batch_bytes: int, book: Book) -> None:
        self._world = world
        name = f"hand-{len(world.hands)}"
        self.app = App(
            world.topics.worker_app, world.kafka, datadir=world.folder / name, partitions=1, store="memory",
            producer_max_batch_size=batch_bytes, exit=ended,
        )  # fmt: skip
        window = Window(int(lateness.total_seconds() * 1000))
        fold = made.fold(world.topics, book, window, FoldMetrics(CollectorRegistry()))
        table = FoldTable(self.app, fold, source=world.topics.usage.name, partitions=1, engine=made.engine)
        assert isinstance(table.engine, Stepped)
        self.engine = table.engine
        self.producer: Any = self.app.producer
        self.app.context.membership.confirmed(self.app.context.membership.now())

    @property
    def partition(self) -> Partition:
        partition = self.engine.partition(0)
        assert partition is not None
        return partition

    async def assign(self) -> None:
        """Drop the memory and recover, as after an assignment."""
        self.engine.revoke_all()
        self.app.context.membership.confirmed(self.app.context.membership.now())
        await self.engine.recover([0], lambda: True)

    async def fold(self, count: int | None = None) -> None:
        """Fold the next `count` messages, or all."""
        records = (await self._world.usage())[self.partition.expected :][:count]
        if records:
            await self.engine.accept(0, records)
            await self.engine.accepted(self.partition.expected)

    async def commit(self) -> None:
        """Commit a group and the following groups of tombstones, until the sweep for closed hours has ended."""
        partition = self.partition
        await self.engine.commit(0)
        while partition.expiry is not None and not partition.expiry.done():
            if partition.expired:
                await self.engine.commit(0)
            await asyncio.sleep(0.001)

    async def work(self) -> None:
        """Take the assignment, fold everything and commit."""
        await self.assign()
        await self.fold()
        await self.commit()

    def intercept(self, write: Callable[[Callable[..., Awaitable[int]], Any, int | None], Awaitable[int]]) -> None:
        """Let `write(real, rows, expect)` replace the producer's; `expect` is None for public rows."""
        real = self.producer.write

        async def intercepted(rows: object, expect: int | None = None) -> int:
            return await write(real, rows, expect)

        self.producer.write = intercepted


@dataclass
class World:
    """Topics of one test and the workers on them."""

    kafka: KafkaSettings
    topics: Topics
    folder: Path
    book: Book
    hands: list[Hand] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(5))
    corrected_book: str = ""
    """The book with the prices of `prices`, once rows are given them."""

    async def hand(
        self,
        made: Made = PRODUCT,
        *,
        lateness: timedelta = 7 * DAY,
        batch_bytes: int = 900_000,
        book: Book | None = None,
    ) -> Hand:
        """Return another worker."""
        hand = Hand(self, made, lateness, batch_bytes, book or self.book)
        self.hands.append(hand)
        await hand.producer.start()
        return hand

    async def worked(self, made: Made = PRODUCT, book: Book | None = None) -> Hand:
        """Return another worker that has counted everything."""
        hand = await self.hand(made, book=book)
        await hand.work()
        return hand

    def event(self, days_ago: float = 0) -> Event:
        return event(self.rng, NOW - days_ago * DAY)

    async def send(self, *sessions: str | tuple[str, list[Event]]) -> None:
        """Send a message of one event for each session, or of the events given."""
        producer = AIOKafkaProducer(**self.kafka.client())
        await producer.start()
        try:
            for one in sessions:
                name, events = (one, [self.event()]) if isinstance(one, str) else one
                session = Session("codex-7f3a", name, "platform", "acme/app")
                await producer.send_and_wait(self.topics.usage.name, session.message(events), key=session.key)
        finally:
            await producer.stop()

    async def planned(self, book: Book) -> list[PlannedCorrection]:
        """Return what gives the rows the prices of another book, as `tallystream reprice --apply` plans it."""
        self.corrected_book = book.hash
        rows = {
            key: ((row["version"][0], row["version"][1]), orjson.dumps(row))
            for key, row in (await self.ledger()).rows.items()
        }
        window = Window(int((7 * DAY).total_seconds() * 1000))
        plan = RepricePlan(book, window, self.topics, Scope(), time.time_ns() // 1_000_000)
        plan.begin(0, rows)
        for record in await self.usage():
            plan.add(record)
        plan.end()
        return plan.corrections

    async def correct(self, corrections: list[PlannedCorrection]) -> None:
        """Send price corrections."""
        producer = AIOKafkaProducer(**self.kafka.client())
        await producer.start()
        try:
            for one in corrections:
                await producer.send_and_wait(self.topics.usage.name, one.value, key=one.key, headers=[HEADER])
        finally:
            await producer.stop()

    async def append(self, ahead: timedelta, *sessions: str) -> None:
        """Send messages of one event each, appended `ahead` of now; the topic must take the producer's time."""
        at = int((datetime.now(UTC) + ahead).timestamp() * 1000)
        producer = AIOKafkaProducer(**self.kafka.client())
        await producer.start()
        try:
            for name in sessions:
                session = Session("codex-7f3a", name, "platform", "acme/app")
                value = session.message([self.event()])
                await producer.send_and_wait(self.topics.usage.name, value, key=session.key, timestamp_ms=at)
        finally:
            await producer.stop()

    async def usage(self) -> list[Any]:
        """Return all messages."""
        consumer = AIOKafkaConsumer(**self.kafka.client(), group_id=None)
        await consumer.start()
        try:
            at = TopicPartition(self.topics.usage.name, 0)
            consumer.assign([at])
            await consumer.seek_to_beginning(at)
            end = (await consumer.end_offsets([at]))[at]
            found: list[Any] = []
            while len(found) < end:
                for records in (await consumer.getmany(at, timeout_ms=200)).values():
                    found += records
            return found
        finally:
            await consumer.stop()

    async def problems(self) -> list[str]:
        """Return the problems that the oracle finds."""
        found = await self.ledger()
        buckets = [bucket for row in found.rows.values() for bucket in row["buckets"]]
        return judge(found) + costs_law(buckets, self.corrected_book)

    async def ledger(self) -> Ledger:
        return await read(self.kafka, self.topics)


_BOOK = Book()


@asynccontextmanager
async def world(kafka: KafkaSettings, prefix: str, folder: Path) -> AsyncIterator[World]:
    """Provide topics of one partition, and stop the workers at the end."""
    topics = Topics(prefix, 1)
    await ensure(kafka, topics.all())
    made = World(kafka, topics, folder, _BOOK)
    try:
        yield made
    finally:
        for hand in made.hands:
            hand.engine.revoke_all()
            await hand.producer.stop()


async def late_rows(
    here: World, sessions: list[str], others: Callable[[], Awaitable[Hand]], *, again: bool = True
) -> Hand:
    """Let a worker write its public rows after those of `others`, and die before its changelog rows.

    `again`: the sessions have more usage before the others count, so that their rows are newer.
    """
    zombie = await here.hand()
    await zombie.assign()
    await here.send(*sessions)
    await zombie.fold()
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(real: Callable[..., Awaitable[int]], rows: object, expect: int | None) -> int:
        if expect is not None:
            raise CrashError  # as the heartbeat guard does
        held.set()
        await go_on.wait()
        return await real(rows, expect)

    zombie.intercept(hold)
    late = asyncio.create_task(zombie.commit())
    await held.wait()
    if again:
        await here.send(*sessions)
    successor = await others()
    go_on.set()
    with contextlib.suppress(CrashError):
        await late
    return successor
