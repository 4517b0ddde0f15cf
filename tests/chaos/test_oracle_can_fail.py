"""Tests that the oracle detects errors: it must report them when a safeguard is removed.

Each scenario is an interleaving that chaos meets now and then, produced by hand. It runs twice: with the product's
worker the topics must be exact, and with the broken worker they must not.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tests.chaos.hand import DAY, NOW, PRODUCT, CrashError, Made, Stepped, World, late_rows, world
from tests.chaos.mishaps import OTHER_BOOK
from tests.chaos.prices import corrected
from tests.chaos.test_compaction_and_expiry import alter
from tests.support.counting import EndedError
from tests.support.usage import Event, event

from tallystream.agents.pricing import Book, read_overlay
from tallystream.agents.session_cost.agent import SessionCost
from tallystream.agents.session_cost.correction import kind_of, parse_correction
from tallystream.agents.session_cost.derived import Derived
from tallystream.agents.session_cost.hour_state import State, to_row
from tallystream.agents.session_cost.parse import Head, ParsedBatch
from tallystream.schemas.rows import SessionHourCost
from tallystream.schemas.versions import find_version
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.runtime import InputRecord, Partition
from tallystream.streams.runtime.changelog import TAIL, Position, Watermark, split_version
from tallystream.streams.runtime.expiry import Expiry
from tallystream.streams.runtime.host import Host

pytestmark = [pytest.mark.kafka, pytest.mark.chaos, pytest.mark.timeout(900)]

Write = Callable[..., Awaitable[int]]


class Unguarded(Stepped):
    """Without heartbeat guard, and without checking the offsets in the changelog."""

    def __init__(self, fold: Any, host: Any, *args: Any, **options: Any) -> None:
        super().__init__(fold, host, *args, **options)
        app = host._app
        app.context.must_be_member = lambda: None
        write = app.producer.write

        async def careless(rows: Any, expect: int | None = None) -> int:
            return int(await write(rows))

        app.producer.write = careless


class FaustsOffsets(Stepped):
    """Starts at the group's offsets, which are committed after each message, as Faust does."""

    async def _consumer(self) -> tuple[AIOKafkaConsumer, TopicPartition]:
        host: Any = self.host
        app = host._app
        consumer = AIOKafkaConsumer(**app.context.kafka.client(), group_id=app.conf.id, enable_auto_commit=False)
        await consumer.start()
        at = TopicPartition(self.source, 0)
        consumer.assign([at])
        return consumer, at

    async def accepted(self, position: int) -> None:
        consumer, at = await self._consumer()
        await consumer.commit({at: position})
        await consumer.stop()

    async def accept(self, p: int, records: Sequence[InputRecord]) -> None:
        consumer, at = await self._consumer()
        committed = await consumer.committed(at) or 0
        await consumer.stop()
        partition = self._owned[p]
        if committed > partition.expected:
            partition.expected = committed
            partition.applied = Position(committed)
        records = [record for record in records if record.offset >= committed]
        if records:
            await super().accept(p, records)


class Amnesia(dict[int, bytes]):
    """Event ids that are forgotten immediately."""

    def __contains__(self, _: object) -> bool:
        return False

    def get(self, _: int, default: Any = None) -> Any:
        return default

    def keys(self) -> Any:
        return dict[int, bytes]().keys()


class NoDedupe(SessionCost):
    def _state(self, partition: Partition, derived: Derived, key: bytes, head: Head | ParsedBatch) -> State:
        state = super()._state(partition, derived, key, head)
        state.ids.seen = Amnesia()
        return state


class NoVersions(SessionCost):
    """A state without a record of which messages it includes."""

    def version(self, raw: bytes) -> int:
        return 0

    def _state(self, partition: Partition, derived: Derived, key: bytes, head: Head | ParsedBatch) -> State:
        state = super()._state(partition, derived, key, head)
        state.version = -1
        return state


class PublicLast(Stepped):
    """Writes the changelog first, and public rows after its acknowledgement."""

    def __init__(self, fold: Any, host: Any, *args: Any, **options: Any) -> None:
        super().__init__(fold, host, *args, **options)
        producer = host._app.producer
        write, held = producer.write, []

        async def late(rows: Any, expect: int | None = None) -> int:
            if expect is None:
                held.append(rows)
                return -1
            last = int(await write(rows, expect))
            for public in held:
                await write(public)
            held.clear()
            return last

        producer.write = late


class NothingIsClosed(SessionCost):
    def is_closed(self, key: bytes, watermark: bytes) -> bool:
        return False

    def recovered(self, partition: Partition) -> None:
        partition.watermark, partition.settled = None, -1
        super().recovered(partition)


class LateRowsStay(SessionCost):
    """Late rows of a replaced worker are not looked for."""

    def is_current(self, partition: Partition, topic: str, key: bytes, row: bytes | None) -> bool:
        return True


class VersionsOnly(SessionCost):
    """Late rows are recognised by their version, not by their content."""

    def is_current(self, partition: Partition, topic: str, key: bytes, row: bytes | None) -> bool:
        stored = partition.stored(key)
        same = stored is not None and find_version(row) == split_version(self.version(stored))
        return same or super().is_current(partition, topic, key, row)


class NoFloor(SessionCost):
    """An event is new if its id is not remembered, however old it is."""

    def _state(self, partition: Partition, derived: Derived, key: bytes, head: Head | ParsedBatch) -> State:
        state = super()._state(partition, derived, key, head)
        state.ids.floor = -1
        return state


class AnyRequests(SessionCost):
    """A price correction applies to whatever requests its row has by now."""

    def _correct(self, partition: Partition, derived: Derived, record: InputRecord) -> None:
        given = parse_correction(record.key, record.value)
        key = (record.key or b"") + b"|" + given.hour.encode()
        state = self._stored_state(partition, derived, key)
        assert state is not None
        have = SessionHourCost.model_validate_json(to_row(key, state)).buckets
        moves = [
            move.model_copy(
                update={"was": [b for b in have if b.book != given.book and kind_of(b) == kind_of(move.was[0])]}
            )
            for move in given.moves
        ]
        value = given.model_copy(update={"moves": moves}).model_dump_json().encode()
        careless = SimpleNamespace(offset=record.offset, timestamp=record.timestamp, key=record.key, value=value)
        super()._correct(partition, derived, cast(InputRecord, careless))


class Trusting(Stepped):
    """Accepts a local store without comparing its last record with the changelog."""

    async def recover(self, partitions: Sequence[int], current: Callable[[], bool]) -> None:
        for p in partitions:
            self.store.write(p, [(TAIL, None)], self.store.changelog_offset(p))
        await super().recover(partitions, current)


class BrokersClock(Expiry):
    """Closes hours by the append times alone, whatever our own clock says."""

    def raise_watermark(self, partition: Partition, at: Position) -> Watermark | None:
        self._host = cast(Host, SimpleNamespace(now_ms=lambda: at.append_ms))
        return super().raise_watermark(partition, at)


class Gullible(Stepped):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._groups._expiry = BrokersClock(self.fold, self.host, self.store)


async def overtaken(here: World, made: Made) -> None:
    """A worker is paused with a half-written group; others continue; it resumes, and later owns the partition again."""
    await here.send("s1", "s2")
    first = await here.hand(made)
    await first.work()
    await here.send("s1", "s2")
    await first.fold(1)
    paused, go_on = asyncio.Event(), asyncio.Event()

    async def hold(real: Write, rows: Any, expect: int | None) -> int:
        if expect is not None:
            paused.set()
            await go_on.wait()
        return await real(rows, expect)

    first.intercept(hold)
    late = asyncio.create_task(first.commit())
    await paused.wait()
    second = await here.hand()
    await second.work()
    go_on.set()
    try:
        await late
    except EndedError:
        first = await here.hand(made)
    await here.send("s3")
    third = await here.hand()
    await third.work()
    await here.send("s2")
    await first.work()


async def crash_before_commit(here: World, made: Made) -> None:
    """A worker dies after it has folded messages and before it has written them."""
    await here.send("s1", "s2")
    first = await here.hand(made)
    await first.assign()
    await first.fold(1)
    await (await here.hand(made)).work()


async def copies(here: World, made: Made) -> None:
    """A client sends events again, in the same request and in a later one."""
    events = [here.event(), here.event()]
    await here.send(("s1", [*events, events[0]]), ("s1", events))
    await (await here.hand(made)).work()


async def torn_group(here: World, made: Made) -> None:
    """A worker dies after one of the record batches of its group has landed."""
    sessions = [f"s{n}" for n in range(12)]
    await here.send(*sessions)
    first = await here.hand(made, batch_bytes=1500)

    async def tear(real: Write, rows: Any, expect: int | None) -> int:
        if expect is None:
            return await real(rows, expect)
        out = rows[0] if isinstance(rows, list) else rows
        assert len(out.batches) > 2
        half = out._replace(batches=out.batches[:2])
        await real([half] if isinstance(rows, list) else half, expect)
        raise CrashError

    first.intercept(tear)
    with pytest.raises(CrashError):
        await first.work()
    await (await here.hand(made)).work()


async def crash_between(here: World, made: Made) -> None:
    """A worker dies between the public rows and the changelog, whichever it writes first."""
    await here.send("s1", "s2")
    first = await here.hand(made)
    producer = first.producer._producer
    written = 0

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal written
        topic = args[1]
        if written and (topic == here.topics.session_hours_changelog.name) != (written == 2):
            raise CrashError
        written = 2 if topic == here.topics.session_hours_changelog.name else 1
        return await send(*args, **kwargs)

    send = producer.send_batch
    producer.send_batch = counted
    with pytest.raises(CrashError):
        await first.work()
    await (await here.hand(made)).work()


async def hidden(here: World, made: Made) -> None:
    """A worker's public rows come after those of its successor."""
    successor = await late_rows(here, ["s1", "s2"], lambda: here.worked(made))
    await here.send("s3")
    await successor.fold()
    await successor.commit()
    await successor.engine.late_writes.look()
    await successor.commit()


async def another_book(here: World, made: Made) -> None:
    """A worker's public rows come after those that its successor wrote of the same messages with another price book."""
    prices = here.folder / "prices.toml"
    prices.parent.mkdir(parents=True, exist_ok=True)
    prices.write_text(OTHER_BOOK)
    book = Book(read_overlay(prices))
    successor = await late_rows(here, ["s1", "s2"], lambda: here.worked(made, book), again=False)
    await successor.engine.late_writes.look(idle=True)
    await successor.commit()


async def other_prices(here: World, made: Made) -> None:
    """Another request arrives between the plan of a price correction and the correction. It is planned again, and the
    worker dies between the public rows and the changelog.
    """

    def asked() -> Event:
        return event(here.rng, NOW, "o3", "default")

    path, _ = corrected(here.folder)
    book = Book(read_overlay(path))
    await here.send(("s1", [asked()]), ("s2", [asked()]))
    worker = await here.worked(made)
    outdated = await here.planned(book)
    assert len(outdated) == 2
    await here.send(("s1", [asked()]))
    await here.correct(outdated)
    await worker.fold()
    await worker.commit()
    await here.correct([*await here.planned(book), *outdated])

    async def die(real: Write, rows: Any, expect: int | None) -> int:
        if expect is not None:
            raise CrashError
        return await real(rows, expect)

    worker.intercept(die)
    with pytest.raises(CrashError):
        await worker.work()
    await here.worked(made)


async def too_many(here: World, made: Made) -> None:
    """A session makes more requests in an hour than it remembers, and all of them are sent again."""
    events = [here.event() for _ in range(5_120)]
    for number, one in enumerate(events):
        one["occurred_at"] += number
    batches = [("s1", events[first : first + 512]) for first in range(0, len(events), 512)]
    await here.send(*batches)
    await here.worked(made)
    await here.send(*batches)
    await here.worked(made)


async def expiry(here: World, made: Made) -> None:
    """An hour is removed from the state; then the lateness is raised, and another event of the hour arrives."""
    await here.send(("s1", [here.event(3), here.event()]))
    await (await here.hand(made)).work()
    await here.send("s2")
    await (await here.hand(lateness=DAY)).work()
    await here.send(("s1", [here.event(3)]))
    await (await here.hand(made)).work()


async def swapped(here: World, made: Made) -> None:
    """A worker finds the store of another deployment, without any identity in it."""
    await here.send("s1", "s2", "s3")
    await here.worked()
    worker = await here.hand(made)
    async with world(here.kafka, f"{here.topics.prefix}-other", here.folder / "other") as there:
        await there.send("t1")
        theirs = (await there.worked()).engine.store
        worker.engine.store.write(0, list(theirs.items(0)), theirs.changelog_offset(0))
    await here.send("s1", "s4")
    await worker.work()


async def clock_jumps(here: World, made: Made) -> None:
    """The broker's clock jumps ten days ahead and back; the topic takes append times from the test."""
    clock = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": str(30 * 86_400_000)}
    await alter(here, here.topics.usage, clock)
    await here.send("s1")
    worker = await here.worked(made)
    for ahead, session in ((10 * DAY, "s2"), (timedelta(0), "s1"), (-DAY / 2, "s1")):
        await here.append(ahead, session)
        await worker.fold()
        await worker.commit()


SCENARIOS: dict[str, tuple[Callable[[World, Made], Awaitable[None]], Made, str]] = {
    "no guard, no contiguity check": (overtaken, Made(engine=Unguarded), r"rows: .* counts 2 requests, usage holds 3"),
    "Faust's own offsets": (crash_before_commit, Made(engine=FaustsOffsets), r"rows: .* is missing, 1 requests"),
    "no dedupe": (copies, Made(fold=NoDedupe), r"rows: .* counts 5 requests, usage holds 2"),
    "no version checks": (torn_group, Made(fold=NoVersions), r"rows: .* knows 1 copies, usage holds 0"),
    "public rows after the changelog": (crash_between, Made(engine=PublicLast), r"changelog .* is not published"),
    "late rows stay": (hidden, Made(fold=LateRowsStay), r"rows \(last\): .* would be lost to compaction"),
    "late rows by their version": (another_book, Made(fold=VersionsOnly), r"changelog .* differs from its public row"),
    "any requests are corrected": (other_prices, Made(fold=AnyRequests), r"costs: 2 requests of o3 cost .*"),
    "any forgotten id is new": (too_many, Made(fold=NoFloor), r"rows: .* counts \d+ requests, usage holds 5120"),
    "another's store": (swapped, Made(engine=Trusting), r"rows: .* counts 1 requests, usage holds 2"),
    "closing by the broker's clock": (clock_jumps, Made(engine=Gullible), r"closed: hours before .* are, it is"),
    "closed_before ignored": (expiry, Made(fold=NothingIsClosed), r"rows: .* counts 1 requests, usage holds 2"),
}
"""The scenario, the removed safeguard, and the expected problem: lost, counted again, reported too early,
begun anew.
"""


@pytest.mark.parametrize("name", SCENARIOS)
async def test_product_is_exact_with_all_safeguards(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, name: str
) -> None:
    scenario, _, _ = SCENARIOS[name]
    async with world(kafka, prefix, tmp_path) as here:
        await scenario(here, PRODUCT)
        assert await here.problems() == []


@pytest.mark.parametrize("name", SCENARIOS)
async def test_oracle_reports_errors_without_a_safeguard(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, name: str
) -> None:
    scenario, broken, reason = SCENARIOS[name]
    async with world(kafka, prefix, tmp_path) as here:
        await scenario(here, broken)
        problems = await here.problems()
        assert [one for one in problems if re.search(reason, one)], problems
