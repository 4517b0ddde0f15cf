"""Workers moved by hand: the real app, table, producer, recovery and commit on real Kafka, one step at a time.

Without Faust's consumer nothing happens by itself, so that an interleaving which chaos meets once in a thousand kills
can be made at will, in a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry
from tests.chaos.ledger import Ledger, judge, read
from tests.support.counting import ended
from tests.support.usage import Event, Session, event

from tallystream.agents.pricing import Book
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.hour_state import Window
from tallystream.agents.session_cost.metrics import FoldMetrics
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topics import Topics, ensure
from tallystream.streams.runtime import App, Part
from tallystream.streams.runtime.commit import commit_group
from tallystream.streams.runtime.recovery import Recovery

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


class Stepped(SessionCost):
    """The product's table; its groups are committed by hand."""

    def install(self, p: int, part: Part) -> None:
        self.recovered_partition(p)
        self._parts[p] = part

    async def accepted(self, position: int) -> None:
        """A place for what Faust does when an agent is done with an event."""


class CrashError(Exception):
    """The process would be dead."""


class Hand:
    """One worker of one partition. `write` may be replaced to hold, tear or reorder what it writes."""

    def __init__(self, world: World, table: type[Stepped], lateness: timedelta, batch_bytes: int) -> None:
        self._world = world
        name = f"hand-{len(world.hands)}"
        self.app = App(
            world.topics.worker_app, world.kafka, datadir=world.folder / name, partitions=1, store="memory",
            producer_max_batch_size=batch_bytes, exit=ended,
        )  # fmt: skip
        self.table = table(
            self.app, world.topics, world.book, Window(int(lateness.total_seconds() * 1000)),
            FoldMetrics(CollectorRegistry()),
        )  # fmt: skip
        self.producer: Any = self.app.producer
        self.app.membership.confirmed(self.app.membership.now())

    @property
    def part(self) -> Part:
        part = self.table.part(0)
        assert part is not None
        return part

    async def assign(self) -> None:
        """Drop what is in memory and recover, as at an assignment."""
        self.table.forget_all()
        self.app.membership.confirmed(self.app.membership.now())
        await Recovery(self.table, [0], lambda: True).run()

    async def fold(self, count: int | None = None) -> None:
        """Fold the next messages, all there are without `count`."""
        records = (await self._world.usage())[self.part.expected :][:count]
        if records:
            await self.table.accept(0, records)
            await self.table.accepted(self.part.expected)

    async def commit(self) -> None:
        """Commit a group, and those with the tombstones that follow."""
        await commit_group(self.table, 0, self.part)
        await asyncio.sleep(0.02)
        while self.part.expired:
            await commit_group(self.table, 0, self.part)
            await asyncio.sleep(0.02)

    async def work(self) -> None:
        """Be assigned, fold everything, commit."""
        await self.assign()
        await self.fold()
        await self.commit()

    def intercept(self, write: Callable[[Callable[..., Awaitable[int]], Any, int | None], Awaitable[int]]) -> None:
        """Put `write(real, rows, expect)` before the producer's; `expect` is None for public rows."""
        real = self.producer.write

        async def intercepted(rows: Any, expect: int | None = None) -> int:
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

    async def hand(
        self, table: type[Stepped] = Stepped, *, lateness: timedelta = 7 * DAY, batch_bytes: int = 900_000
    ) -> Hand:
        """Return another worker."""
        made = Hand(self, table, lateness, batch_bytes)
        self.hands.append(made)
        await made.producer.start()
        return made

    async def worked(self, table: type[Stepped] = Stepped) -> Hand:
        """Return another worker, which has counted everything."""
        made = await self.hand(table)
        await made.work()
        return made

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
        """Return what the oracle says."""
        return judge(await self.ledger())

    async def ledger(self) -> Ledger:
        return await read(self.kafka, self.topics)


_BOOK = Book()


@asynccontextmanager
async def world(kafka: KafkaSettings, prefix: str, folder: Path) -> AsyncIterator[World]:
    """Give a world of one partition; stops its workers."""
    topics = Topics(prefix, 1)
    await ensure(kafka, topics.all())
    made = World(kafka, topics, folder, _BOOK)
    try:
        yield made
    finally:
        for hand in made.hands:
            hand.table.forget_all()
            await hand.producer.stop()


async def late_rows(here: World, sessions: list[str], others: Callable[[], Awaitable[Hand]]) -> Hand:
    """Let a worker write its public rows after the newer ones of `others`, and die before its changelog rows."""
    zombie = await here.hand()
    await zombie.assign()
    await here.send(*sessions)
    await zombie.fold()
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(real: Callable[..., Awaitable[int]], rows: Any, expect: int | None) -> int:
        if expect is not None:
            raise CrashError  # what the heartbeat guard does
        held.set()
        await go_on.wait()
        return await real(rows, expect)

    zombie.intercept(hold)
    late = asyncio.create_task(zombie.commit())
    await held.wait()
    await here.send(*sessions)
    successor = await others()
    go_on.set()
    with contextlib.suppress(CrashError):
        await late
    return successor
