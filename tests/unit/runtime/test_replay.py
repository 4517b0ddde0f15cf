"""Recovery from the changelog: whatever is in it, a worker continues without losing or doubling a record.

The model has the rules of the runtime (groups that begin and end with positions, the watermark in the last batch, a
worker that ends when its rows land behind another one's, versions, absolute public rows) but not its code. It recovers
with the real `replay`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.streams.runtime.changelog import POSITION, WATERMARK, Position, Watermark, replay, reserved

Changelog = tuple[bytes | None, bytes | None]

LATENESS = 60
STEP = 10


def empty(_key: bytes) -> bytes | None:
    return None


def encode(version: int, total: int) -> bytes:
    return b"%d %d" % (version, total)


def version(raw: bytes) -> int:
    return int(raw.split(b" ")[0])


def total(raw: bytes) -> int:
    return int(raw.split(b" ")[1])


def is_closed(key: bytes, marker: bytes) -> bool:
    return int(key.split(b"|")[1]) < int(marker)


def closes_before(append_ms: int) -> bytes:
    return b"%06d" % max(0, append_ms - LATENESS)


def closing(append_ms: int, since: int) -> bytes:
    return Watermark(closes_before(append_ms), since).encode()


@dataclass
class World:
    """A source, a changelog and the published rows."""

    source: list[tuple[bytes, int]]
    log: list[Changelog] = field(default_factory=list)
    public: dict[bytes, bytes] = field(default_factory=dict)
    dead: set[int] = field(default_factory=set)

    def publish(self, key: bytes, row: bytes) -> None:
        if key not in self.public or version(row) >= version(self.public[key]):
            self.public[key] = row


@dataclass
class Worker:
    """A process that owns the partition, or assumes so."""

    world: World
    chunk: int = 1000

    def __post_init__(self) -> None:
        self.store: dict[bytes, bytes] = {}
        self.hidden: set[bytes] = set()
        log = self.world.log
        for start in range(0, len(log), self.chunk):
            replayed = replay(log[start : start + self.chunk], self.store.get, version, self.hidden)
            for key, value in replayed.rows.items():
                if value is None:
                    self.store.pop(key, None)
                else:
                    self.store[key] = value
        self.end = len(log)
        raw = self.store.get(POSITION)
        self.applied = Position(0) if raw is None else Position.decode(raw)
        row = self.store.get(WATERMARK)
        self.closed: bytes | None = None
        self.settled = -1
        if row is not None:
            self.closed, self.settled = Watermark.decode(row)
        self.tombstone = self.closed
        self.dirty = {
            key: self.store[key]
            for key in self.hidden
            if not reserved(key) and key in self.store and not (self.closed and is_closed(key, self.closed))
        }

    def fold(self, count: int) -> Position:
        start = self.applied.offset
        at = self.applied
        for offset in range(start, min(start + count, len(self.world.source))):
            key, amount = self.world.source[offset]
            at = Position(offset + 1, offset * STEP)
            if self.closed and is_closed(key, self.closed):
                if offset >= self.settled:
                    self.world.dead.add(offset)
                continue
            raw = self.dirty.get(key, self.store.get(key, encode(-1, 0)))
            if version(raw) < offset:
                self.dirty[key] = encode(offset, total(raw) + amount)
        return at

    def group(self, count: int, per_batch: int) -> list[list[tuple[bytes, bytes | None]]]:
        """Fold and return the group's record batches; publishes."""
        before, after = self.applied, self.fold(count)
        marker = closes_before(after.append_ms)
        rises = after.append_ms >= 0 and marker > (self.closed or b"")
        gone = []
        if self.tombstone:
            gone = [k for k in self.store if not reserved(k) and k not in self.dirty and is_closed(k, self.tombstone)]
        rows: list[tuple[bytes, bytes | None]] = [*self.dirty.items(), *((key, None) for key in gone)]
        for key, row in self.dirty.items():
            self.world.publish(key, row)
        opening = (POSITION, before.encode())
        batches = [[opening, *rows[i : i + per_batch]] for i in range(0, len(rows), per_batch)] or [[opening]]
        if rises:
            self.closed, self.settled = marker, after.offset
            batches[-1].append((WATERMARK, Watermark(marker, after.offset).encode()))
        elif WATERMARK in self.hidden:
            batches[-1].append((WATERMARK, self.store[WATERMARK]))
        batches[-1].append((POSITION, after.encode()))
        self._written = rows, after, marker if rises else None
        return batches

    def acknowledged(self) -> None:
        rows, self.applied, marker = self._written
        for key, value in rows:
            if value is None:
                self.store.pop(key, None)
            else:
                self.store[key] = value
        self.dirty = {}
        self.hidden = set()
        self.tombstone = marker or self.tombstone


operations = st.lists(
    st.tuples(
        st.integers(0, 2),  # which worker acts
        st.integers(0, 6),  # how many records it folds
        st.integers(1, 3),  # rows in a batch
        st.one_of(st.none(), st.integers(0, 4)),  # batches that land before it is killed; None: all, and it continues
        st.integers(0, 2),  # operations that happen before the rest of its group lands
    ),
    max_size=25,
)


def play(source: list[tuple[bytes, int]], steps: list[tuple[int, int, int, int | None, int]], chunk: int) -> World:
    world = World(source)
    workers: dict[int, Worker] = {}
    late: list[tuple[int, Worker, list[list[tuple[bytes, bytes | None]]]]] = []

    def land(worker: Worker, batches: list[list[tuple[bytes, bytes | None]]]) -> None:
        alone = worker.end == len(world.log)
        for batch in batches:
            world.log.extend(batch)
        if alone and batches:
            worker.end = len(world.log)
            worker.acknowledged()
        else:  # another process has written: this one ends, its rows stay
            for name in [name for name, other in workers.items() if other is worker]:
                del workers[name]

    for name, count, per_batch, torn, delay in steps:
        worker = workers.setdefault(name, Worker(world, chunk)) if name in workers else Worker(world, chunk)
        workers[name] = worker
        if any(other is worker for _, other, _ in late):
            continue  # its group is still in flight
        batches = worker.group(count, per_batch)
        if torn is not None:
            world.log.extend(row for batch in batches[:torn] for row in batch)
            del workers[name]
        elif delay:
            late.append((delay, worker, batches))
        else:
            land(worker, batches)
        due = [entry for entry in late if entry[0] <= 1]
        late = [(left - 1, other, rest) for left, other, rest in late if left > 1]
        for _, other, rest in due:
            land(other, rest)
    for _, other, rest in late:
        land(other, rest)
    return world


def truth(source: list[tuple[bytes, int]]) -> dict[bytes, int]:
    sums: dict[bytes, int] = defaultdict(int)
    for key, amount in source:
        sums[key] += amount
    return dict(sums)


@examples(300)
@given(
    data=st.lists(st.tuples(st.integers(0, 4), st.integers(0, LATENESS - STEP), st.integers(1, 9)), max_size=40),
    steps=operations,
    chunk=st.integers(1, 50),
)
def test_new_worker_recovers_the_truth_after_torn_and_late_groups(
    data: list[tuple[int, int, int]], steps: list[tuple[int, int, int, int | None, int]], chunk: int
) -> None:
    """With torn groups landing in any order, nothing is lost or doubled, and no expired total starts again."""
    source = [
        (b"k%d|%d" % (name, max(0, offset * STEP - age) // 20 * 20 + 20), amount)
        for offset, (name, age, amount) in enumerate(data)
    ]
    world = play(source, steps, chunk)
    last = Worker(world, chunk)
    while last.applied.offset < len(source) or last.hidden:
        for batch in last.group(7, 3):
            world.log.extend(batch)
        last.acknowledged()

    expected = truth(source)
    assert not world.dead
    assert {key: total(row) for key, row in world.public.items()} == expected
    fresh = Worker(world)
    kept = {key: total(row) for key, row in fresh.store.items() if not reserved(key)}
    closed = fresh.closed or b"0"
    assert {k: v for k, v in kept.items() if not is_closed(k, closed)} == {
        k: v for k, v in expected.items() if not is_closed(k, closed)
    }
    assert all(kept[key] == expected[key] for key in kept)
    assert fresh.applied.offset == len(source)
    watermarks = [Watermark.decode(value or b"") for key, value in world.log if key == WATERMARK]
    assert watermarks[-1:] == sorted(watermarks)[-1:], "compaction would keep another than the highest"


@examples(200)
@given(
    records=st.lists(
        st.one_of(
            st.tuples(st.sampled_from([b"a", b"b"]), st.builds(encode, st.integers(0, 9), st.integers(0, 9))),
            st.tuples(st.just(POSITION), st.builds(lambda o: Position(o, o).encode(), st.integers(0, 9))),
            st.tuples(st.just(WATERMARK), st.builds(closing, st.integers(0, 900), st.integers(0, 9))),
            st.tuples(st.sampled_from([b"a", b"b"]), st.none()),
            st.tuples(st.sampled_from([b"a", None, POSITION]), st.just(b"garbage")),
        )
    ),
    cut=st.integers(0, 30),
)
def test_recovery_in_steps_equals_recovery_at_once(records: list[Changelog], cut: int) -> None:
    """The result does not depend on where recovery steps end."""

    def run(parts: list[list[Changelog]]) -> tuple[dict[bytes, bytes | None], set[bytes], list[int]]:
        store: dict[bytes, bytes | None] = {}
        hidden: set[bytes] = set()
        counts = [0, 0]
        for part in parts:
            replayed = replay(part, lambda key: store.get(key), version, hidden)
            counts[0] += replayed.zombies
            counts[1] += replayed.unknown
            for key, value in replayed.rows.items():
                store[key] = value
                if value is None:
                    del store[key]
        return store, hidden, counts

    assert run([records]) == run([records[:cut], records[cut:]])


def test_highest_version_wins_and_a_hidden_row_is_written_again() -> None:
    hidden: set[bytes] = set()
    replayed = replay([(b"a", encode(5, 50)), (b"a", encode(3, 30))], empty, version, hidden)
    assert replayed.rows == {b"a": encode(5, 50)}
    assert (replayed.zombies, hidden) == (1, {b"a"})
    replay([(b"a", encode(6, 60))], lambda key: replayed.rows.get(key), version, hidden)
    assert not hidden


def test_later_row_of_equal_version_is_kept() -> None:
    replayed = replay([(b"a", encode(5, 50)), (b"a", encode(5, 51))], empty, version, set())
    assert replayed.rows == {b"a": encode(5, 51)}


def test_positions_can_go_back_but_watermarks_cannot() -> None:
    records = [
        (POSITION, Position(9, 90).encode()),
        (WATERMARK, Watermark(b"000900", 9).encode()),
        (POSITION, Position(4, 40).encode()),
        (WATERMARK, Watermark(b"000400", 10).encode()),
    ]
    hidden: set[bytes] = set()
    assert replay(records, empty, version, hidden).rows == {POSITION: b"4 40", WATERMARK: b"9 000900"}
    assert hidden == {WATERMARK}, "it must be written again"
    replay([(WATERMARK, Watermark(b"000900", 9).encode())], {WATERMARK: b"9 000900"}.get, version, hidden)
    assert hidden == set()


@pytest.mark.parametrize("position", [Position(0), Position(7, 0), Position(2**62, 1_900_000_000_000)])
def test_position_is_decoded_as_encoded(position: Position) -> None:
    assert Position.decode(position.encode()) == position


@pytest.mark.parametrize("raw", [b"", b"7", b"x 1", b"1 2 3 4"])
def test_invalid_position_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        Position.decode(raw)


def test_foreign_changelog_records_are_counted_and_ignored() -> None:
    store = {b"a": encode(5, 50), POSITION: b"6 60"}
    hidden: set[bytes] = set()
    replayed = replay(
        [(None, b"x"), (b"a", b"garbage"), (POSITION, b"garbage")], lambda key: store.get(key), version, hidden
    )
    assert (replayed.rows, replayed.unknown) == ({}, 3)
    assert hidden == {b"a"}, "the good row is written again, or compaction keeps the garbage"
