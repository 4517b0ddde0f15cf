"""Long changelogs are copied without a log of their own, and without asking the store for keys that cannot be in it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.runtime.conftest import PARTITIONS, Bench, counts
from tests.unit.runtime.test_standby import Copier

from tallystream.streams.runtime import changelog_copy
from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.changelog_copy import Unseen
from tallystream.streams.runtime.memory import MemoryHost, MemoryWorker, WorkerCrashedError
from tallystream.streams.runtime.store import MemoryStore


class KilledStore(MemoryStore):
    """Keeps what survives a kill: all that is logged or flushed, and every second of the states in between."""

    def __init__(self, writes: int = -1, *, lucky: bool = True) -> None:
        super().__init__()
        self.left = writes
        """Number of writes after which the process is killed."""
        self.lucky = lucky
        """Whether anything that is neither logged nor flushed survives."""
        self.unlogged = 0
        self.survives = MemoryStore()

    def write(self, p: int, rows: Iterable[Row], offset: int, *, logged: bool = True) -> None:
        if self.left == 0:
            raise WorkerCrashedError("killed")
        self.left -= 1
        super().write(p, rows, offset)
        self.unlogged += not logged
        if logged or (self.lucky and self.unlogged % 2):
            self._keep(p)

    def flush(self, p: int, *, wait: bool = True) -> None:
        if wait:
            self._keep(p)

    def _keep(self, p: int) -> None:
        self.survives.drop(p)
        self.survives.write(p, self.items(p), self.changelog_offset(p))


def worker(bench: Bench, store: MemoryStore) -> MemoryWorker:
    host = MemoryHost(bench.broker, "another")
    return MemoryWorker(host, counts(), source=bench.names.source, changelog=bench.names.changelog, store=store)


async def count(bench: Bench, amounts: Iterable[int]) -> None:
    """Have a worker count records of partition 0 in groups of their own; some keys come again."""
    await bench.worker.assign(range(PARTITIONS))
    for amount in amounts:
        bench.broker.append(bench.names.source, 0, [(b"k", b"k%d|0 %d" % (amount % 3, amount))])
        await bench.worker.deliver(0)
        await bench.worker.settle()
    bench.worker.crash()


@pytest.fixture
def in_small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog_copy, "MANY", 1)
    monkeypatch.setattr(changelog_copy, "MAX_REPLAYED", 1)


@pytest.mark.usefixtures("in_small_steps")
@pytest.mark.parametrize("writes", range(1, 9))
async def test_copy_that_was_half_made_at_a_kill_is_completed(bench: Bench, writes: int) -> None:
    await count(bench, range(5))
    store = KilledStore(writes)
    first = worker(bench, store)
    with pytest.raises(WorkerCrashedError):
        await first.assign(range(PARTITIONS))
    again = worker(bench, store.survives)
    await again.assign(range(PARTITIONS))
    assert dict(again.store.items(0)) == dict(bench.worker.store.items(0))
    again.crash()


@pytest.mark.usefixtures("in_small_steps")
async def test_complete_copy_survives_a_kill(bench: Bench) -> None:
    await count(bench, range(5))
    store = KilledStore(lucky=False)
    copier = Copier(bench, {}, store)
    await copier.worker.assign(())
    await copier.follow()
    assert store.unlogged
    assert dict(store.survives.items(0)) == dict(store.items(0)) == dict(bench.worker.store.items(0))
    copier.worker.crash()


@given(st.lists(st.binary(max_size=2)), st.integers(0, 20))
def test_key_that_has_come_is_looked_up(keys: list[bytes], expected: int) -> None:
    store: dict[bytes, bytes] = {}
    read = Unseen(expected).reading(store.get)
    for number, key in enumerate(keys):
        assert read(key) == store.get(key)
        store[key] = b"%d" % number


def test_store_is_not_asked_for_most_keys_that_have_not_come() -> None:
    asked: list[bytes] = []
    read = Unseen(1000).reading(asked.append)
    for number in range(1000):
        assert read(b"%d" % number) is None
    assert len(asked) < 200
