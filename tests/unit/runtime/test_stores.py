"""Rules that both stores must obey."""

from __future__ import annotations

import gc
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rocksdict
from tests.support.counting import WorkerConfig, build

from tallystream.streams.runtime.faust_backend.stores import MemoryRows, RocksRows


@pytest.fixture(params=["memory", "rocksdb"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    _, table = build(WorkerConfig("127.0.0.1:1", "unit", 2, str(tmp_path), "", store=request.param))
    (tmp_path / "v1" / "tables").mkdir(parents=True, exist_ok=True)
    assert isinstance(table.engine.store, MemoryRows if request.param == "memory" else RocksRows)
    return table.engine.store


async def test_rows_and_changelog_offset_are_written_atomically(store: Any) -> None:
    assert (store.read(0, b"a"), store.changelog_offset(0)) == (None, -1)
    store.write(0, [(b"a", b"1"), (b"b", b"2")], 7)
    store.write(0, [(b"a", None)], 9)
    assert (store.read(0, b"a"), store.read(0, b"b"), store.changelog_offset(0)) == (None, b"2", 9)
    assert list(store.items(0)) == [(b"b", b"2")]


async def test_partitions_are_stored_separately(store: Any) -> None:
    store.write(0, [(b"a", b"0")], 1)
    store.write(1, [(b"a", b"1")], 2)
    assert (store.read(0, b"a"), store.read(1, b"a")) == (b"0", b"1")


async def test_keys_with_a_prefix_are_in_order(store: Any) -> None:
    made = [b"c|s|2", b"c|s|1", b"c|s|b", b"c|r|1", b"c|s", b"c|t|1", b"d"]
    store.write(0, [(key, b"v") for key in made], 1)
    store.write(1, [(b"c|s|9", b"v")], 1)
    assert list(store.keys_with(0, b"c|s|")) == [b"c|s|1", b"c|s|2", b"c|s|b"]
    assert list(store.keys_with(0, b"x")) == []


@pytest.mark.parametrize("size", [1, 3, 7, 100])
async def test_chunked_scan_visits_every_key_once_during_deletes(store: Any, size: int) -> None:
    keys = [b"k%d" % n for n in range(20)]
    store.write(0, [(key, b"v") for key in keys], 1)
    seen = []
    for chunk in store.chunks(0, size):
        assert len(chunk) <= size
        seen.extend(chunk)
        store.write(0, [(key, None) for key in chunk], 2)
    assert sorted(seen) == sorted(keys)
    assert list(store.items(0)) == []


async def test_rocksdb_store_is_persistent(tmp_path: Path) -> None:
    (tmp_path / "v1" / "tables").mkdir(parents=True, exist_ok=True)
    config = WorkerConfig("127.0.0.1:1", "unit", 2, str(tmp_path), "", store="rocksdb")
    _, table = build(config)
    table.engine.store.write(0, [(b"a", b"1")], 7)
    store: Any = table.engine.store
    store._dbs.clear()  # as Faust closes them
    gc.collect()
    _, again = build(config)
    assert (again.engine.store.read(0, b"a"), again.engine.store.changelog_offset(0)) == (b"1", 7)


def rocks(tmp_path: Path) -> Any:
    (tmp_path / "v1" / "tables").mkdir(parents=True, exist_ok=True)
    return build(WorkerConfig("127.0.0.1:1", "unit", 2, str(tmp_path), "", store="rocksdb"))[1].engine.store


def closed(store: Any) -> Path:
    """Close the database of partition 0, with everything in sorted files, and return its directory."""
    store._db_for_partition(0).flush()
    path: Path = store.partition_path(0)
    store._dbs.clear()
    gc.collect()
    return path


def after_a_kill(store: Any, tmp_path: Path) -> tuple[dict[bytes, bytes], int]:
    """Return the rows and the offset of partition 0 that a process finds that is started after this one was killed."""
    (tmp_path / "killed").mkdir(exist_ok=True)
    path = tmp_path / "killed" / str(len(list((tmp_path / "killed").iterdir())))
    shutil.copytree(store.partition_path(0), path)
    database = rocksdict.Rdict(str(path), rocksdict.Options(raw_mode=True))
    rows: dict[Any, Any] = dict(database.items())
    database.close()
    return rows, int(rows.pop(store.offset_key, b"-1"))


async def test_kill_undoes_only_the_last_writes_that_are_not_logged(tmp_path: Path) -> None:
    store = rocks(tmp_path)
    store.write(0, [(b"a", b"1")], 1)
    store.write(0, [(b"b", b"2")], 2, logged=False)
    store.write(0, [(b"a", b"3")], 3, logged=False)
    states = {1: {b"a": b"1"}, 2: {b"a": b"1", b"b": b"2"}, 3: {b"a": b"3", b"b": b"2"}}
    rows, offset = after_a_kill(store, tmp_path)
    assert rows == states[offset], "it is one of the states that there were"
    store.write(0, [(b"c", b"4")], 4)
    assert after_a_kill(store, tmp_path) == ({b"a": b"3", b"b": b"2", b"c": b"4"}, 4), "none is missing in between"


async def test_flushed_writes_survive_a_kill(tmp_path: Path) -> None:
    store = rocks(tmp_path)
    store.write(0, [(b"a", b"1")], 1, logged=False)
    store.flush(0, wait=False)
    store.write(0, [(b"b", b"2")], 2, logged=False)
    store.flush(0, wait=False)
    store.flush(0)
    assert after_a_kill(store, tmp_path) == ({b"a": b"1", b"b": b"2"}, 2)


@pytest.mark.parametrize("lost", ["CURRENT", "MANIFEST-*", "*.sst"])
async def test_database_that_lacks_a_file_is_rebuilt(tmp_path: Path, lost: str) -> None:
    store = rocks(tmp_path)
    for p in (0, 1):
        store.write(p, [(b"a", b"1")], 7)
    for path in closed(store).glob(lost):
        path.unlink()
    again = rocks(tmp_path)
    assert (again.read(0, b"a"), again.changelog_offset(0)) == (None, -1)
    assert (again.read(1, b"a"), again.changelog_offset(1)) == (b"1", 7)


async def test_database_of_another_version_is_rebuilt(tmp_path: Path) -> None:
    """One that orders keys differently, and a file where the database should be."""
    path = rocks(tmp_path).partition_path(0)
    rocksdict.Rdict(str(path)).close()  # rocksdict's own comparator; ours is raw
    store = rocks(tmp_path)
    assert (store.read(0, b"a"), store.changelog_offset(0)) == (None, -1)
    store.write(0, [(b"a", b"1")], 7)
    shutil.rmtree(closed(store))
    path.write_text("not a database")
    again = rocks(tmp_path)
    again.write(0, [(b"a", b"2")], 8)
    assert (again.read(0, b"a"), again.changelog_offset(0)) == (b"2", 8)


READS: list[Callable[[Any], Any]] = [
    lambda store: [store.read(0, b"k%04d" % number) for number in range(1000)],
    lambda store: list(store.items(0)),
    lambda store: list(store.keys_with(0, b"k")),
    lambda store: list(store.chunks(0, 64)),
]


@pytest.mark.parametrize("read", READS, ids=["read", "items", "keys_with", "chunks"])
async def test_damage_met_while_reading_is_an_error_and_the_next_start_rebuilds(
    tmp_path: Path, read: Callable[[Any], Any]
) -> None:
    store = rocks(tmp_path)
    store.write(0, [(b"k%04d" % number, random.Random(number).randbytes(1000)) for number in range(1000)], 7)
    (file,) = closed(store).glob("*.sst")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 255
    file.write_bytes(raw)
    store = rocks(tmp_path)
    assert store.changelog_offset(0) == 7, "the database opens, and most of it is readable"
    with pytest.raises(Exception, match="Corruption"):
        read(store)
    closed(store)
    again = rocks(tmp_path)
    assert (again.read(0, b"k0000"), again.changelog_offset(0)) == (None, -1)
    assert list(again.items(0)) == []
    again.write(0, [(b"a", b"1")], 3)
    closed(again)
    assert rocks(tmp_path).changelog_offset(0) == 3, "it is not rebuilt again"
