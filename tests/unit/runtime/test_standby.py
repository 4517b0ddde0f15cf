"""A standby's copy is what a recovery would have read, even after its changelog was cut; other partitions go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

import pytest
from aiokafka.structs import TopicPartition
from tests.unit.runtime.conftest import PARTITIONS, Bench, counts

from tallystream.streams.runtime import changelog_copy
from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.memory import MemoryHost, MemoryWorker, WorkerCrashedError
from tallystream.streams.runtime.standby import Standby, total
from tallystream.streams.runtime.store import MemoryStore

IDS = {"unit.source": "1", "unit-worker-counts-changelog": "2"}


class Copier:
    """A worker without partitions that copies those of others."""

    def __init__(self, bench: Bench, ids: dict[str, str], store: MemoryStore | None = None) -> None:
        self.worker = MemoryWorker(
            MemoryHost(bench.broker, "copier"), counts(), source=bench.names.source, changelog=bench.names.changelog,
            topic_ids=ids, store=store,
        )  # fmt: skip
        self.standby = Standby(self.worker.engine, PARTITIONS)

    async def follow(self) -> None:
        async with self.worker.host.reader() as reader, self.worker.host.reader(fetch_bytes=1) as tails:
            await self.standby.follow(reader, tails)

    def rows(self, p: int = 0) -> dict[bytes, bytes]:
        return dict(self.worker.store.items(p))


@pytest.fixture
async def copier(bench: Bench) -> AsyncIterator[Copier]:
    made = Copier(bench, IDS)
    yield made
    made.worker.crash()


async def count(bench: Bench, *amounts: int) -> None:
    """Have the owner count records of partition 0, each of another key."""
    for amount in amounts:
        bench.broker.append(bench.names.source, 0, [(b"k", b"k%d|0 %d" % (amount, amount))])
    await bench.worker.assign(range(PARTITIONS))
    await bench.worker.deliver(0)
    await bench.worker.settle()


async def test_copy_equals_what_the_owner_stored(bench: Bench, copier: Copier) -> None:
    await count(bench, 1, 2)
    await copier.follow()
    assert copier.rows() == {}, "it has not joined yet: the partition may be its own"
    await copier.worker.assign(())
    await copier.follow()
    assert copier.rows() == dict(bench.worker.store.items(0))
    await count(bench, 3)
    await copier.follow()
    assert copier.rows() == dict(bench.worker.store.items(0))
    assert total([copier.standby]).copied == bench.broker.end(TopicPartition(bench.names.changelog, 0))


async def test_copy_is_made_again_when_the_changelog_was_cut(bench: Bench, copier: Copier) -> None:
    """A broker loses the end of the changelog, which then grows beyond what the copy has read."""
    await copier.worker.assign(())
    await count(bench, 1, 2, 3)
    await copier.follow()
    bench.broker.cut(bench.names.changelog, 0, 2)
    bench.broker.append(bench.names.changelog, 0, [(b"\0position", b"%d -1" % n) for n in range(9)])
    await copier.follow()
    fresh = Copier(bench, IDS)
    await fresh.worker.assign(())
    await fresh.follow()
    assert copier.rows() == fresh.rows()


class DyingStore(MemoryStore):
    """Ends its process at the second write of an emptying."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1

    def write(self, p: int, rows: Iterable[Row], offset: int, *, logged: bool = True) -> None:
        self.left = 1 if offset == -1 and self.left < 0 else self.left
        if self.left == 0:
            raise WorkerCrashedError("killed")
        self.left -= self.left > 0
        super().write(p, rows, offset, logged=logged)


async def test_copy_whose_emptying_was_interrupted_is_made_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that the broker has lost must not survive in a half-emptied store."""
    monkeypatch.setattr(changelog_copy, "MAX_RECORDS", 1)
    store = DyingStore()
    copier = Copier(bench, IDS, store)
    await copier.worker.assign(())
    await count(bench, 1, 2, 3)
    store.left = 1 << 40
    await copier.follow()
    bench.broker.cut(bench.names.changelog, 0, 1)
    store.left = -1
    with pytest.raises(WorkerCrashedError):
        await copier.follow()
    kept = MemoryStore()
    kept.write(0, store.items(0), store.changelog_offset(0))
    again, fresh = Copier(bench, IDS, kept), Copier(bench, IDS)
    for one in (again, fresh):
        await one.worker.assign(())
        await one.follow()
    assert again.rows() == fresh.rows()


async def test_changelog_deleted_and_created_again_does_not_end_the_worker(bench: Bench) -> None:
    """Without the topics' ids a shorter changelog is refused, by the standby of this one partition only."""
    copier = Copier(bench, {})
    await copier.worker.assign(())
    await count(bench, 1, 2)
    await copier.follow()
    kept = copier.rows()
    bench.broker.cut(bench.names.changelog, 0, 0)
    bench.broker.append(bench.names.changelog, 1, [(b"\0position", b"1 -1")])
    await copier.follow()
    assert copier.worker.alive
    assert copier.rows() == kept
    assert copier.rows(1)[b"\0position"] == b"1 -1"
    copier.worker.crash()
