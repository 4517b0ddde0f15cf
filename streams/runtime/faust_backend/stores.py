"""Local stores, addressed by partition: a rebuildable copy of the changelog, never ahead of it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import rocksdict
import structlog
from faust.stores import base as faust_base
from faust.stores import rocksdb as faust_rocksdb
from faust.types import TP
from typing_extensions import override

from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.store import MemoryStore

log = structlog.get_logger()


MISSING_FILE = "IO error: No such file or directory"
"""How RocksDB reports a database that lacks its MANIFEST, which it does not call corrupt."""


def _corrupt(exc: Exception) -> bool:
    return str(exc).startswith("Corruption")


def _by_table_only(*_args: Any, **_kwargs: Any) -> NoReturn:
    raise TypeError("rows can be accessed only through FoldTable")


class MemoryRows(MemoryStore, faust_base.Store):  # type: ignore[type-arg,misc]  # rows are bytes by partition
    """Rows in memory: recovered from the changelog at every assignment."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        MemoryStore.__init__(self)
        faust_base.Store.__init__(self, *args, **kwargs)

    def reset_state(self) -> None:
        """Forget everything."""
        self.clear()

    def __len__(self) -> int:
        return sum(1 for _ in self.keys())

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.keys())

    @override
    def persisted_offset(self, tp: TP) -> int | None:
        """Report no offset to Faust's recovery, because the table recovers itself."""
        return None

    # abstract in faust.types.stores.StoreT, which is a mutable mapping
    __getitem__ = __setitem__ = __delitem__ = _by_table_only
    apply_changelog_batch = backup_partition = restore_backup = _by_table_only


class RocksRows(faust_rocksdb.Store):
    """Rows in RocksDB, one database per partition, kept across restarts.

    A crash of the machine may lose the tail of RocksDB's log; then an older consistent state remains, and the changelog
    has the rest. A database that RocksDB reports as corrupt, or that lacks one of its files, is removed and rebuilt from
    the changelog. Damage that is met while it is open ends the worker, and the database is removed at the next start.

    Relies on `Store._db_for_partition` of faust/stores/rocksdb.py (opens and caches the database), on its calling
    `_open_for_partition`, and on `Store.on_rebalance`, which closes the databases of revoked partitions.
    """

    def _open_for_partition(self, partition: int) -> Any:
        path, mark = self.partition_path(partition), self._mark(partition)
        if mark.exists():
            self._remove(partition, mark.read_text())
        try:
            return super()._open_for_partition(partition)
        except Exception as exc:
            if not (_corrupt(exc) or (str(exc).startswith(MISSING_FILE) and any(path.glob("*")))):
                raise
            self._remove(partition, str(exc))
            return super()._open_for_partition(partition)

    def _remove(self, partition: int, why: str) -> None:
        log.warning("damaged_store_rebuilt_from_changelog", partition=partition, error=why)
        # The mark is removed last, so that a kill in between leaves nothing that looks like a store.
        shutil.rmtree(self.partition_path(partition), ignore_errors=True)
        self._mark(partition).unlink(missing_ok=True)

    def _mark(self, partition: int) -> Path:
        path: Path = self.partition_path(partition)
        return path.with_name(f"{path.name}.damaged")

    def _note(self, partition: int, exc: Exception) -> None:
        """Mark the database if it is damaged, so that the next start rebuilds it."""
        if _corrupt(exc):
            with contextlib.suppress(OSError):
                self._mark(partition).write_text(str(exc))

    def read(self, p: int, key: bytes) -> bytes | None:
        """Return the row of `key` in partition `p`."""
        try:
            row: bytes | None = self._db_for_partition(p).get(key)
        except Exception as exc:
            self._note(p, exc)
            raise
        return row

    def items(self, p: int) -> Iterator[tuple[bytes, bytes]]:  # type: ignore[override]
        """Iterate over all rows of a partition, including reserved ones."""
        last = None
        for key, value in self._db_for_partition(p).items():
            last = key
            if key != self.offset_key:
                yield key, value
        self._check_end(p, last)

    def keys_with(self, p: int, prefix: bytes) -> Iterator[bytes]:
        """Iterate over the keys of a partition that begin with `prefix`, in order."""
        last = prefix
        for key in self._db_for_partition(p).keys(from_key=prefix):
            if not key.startswith(prefix):
                return
            last = key
            yield key
        self._check_end(p, last)

    def chunks(self, p: int, size: int) -> Iterator[list[bytes]]:
        """Yield all keys of a partition, `size` at a time; each chunk seeks again, so that iterators do not pin the
        database.
        """
        last: bytes | None = None
        while True:
            chunk: list[bytes] = []
            for key in self._db_for_partition(p).keys(from_key=last):
                if key != last:
                    chunk.append(key)
                if len(chunk) >= size:
                    break
            else:
                self._check_end(p, chunk[-1] if chunk else last)
            if not chunk:
                return
            last = chunk[-1]
            yield [key for key in chunk if key != self.offset_key]

    def _check_end(self, p: int, last: bytes | None) -> None:
        """Raise RocksDB's error if an iteration ended after the key `last` because of damage.

        rocksdict's iterators end there as if it were the end of the database.
        """
        here = self._db_for_partition(p).iter()
        if last is None:
            here.seek_to_first()
        else:
            here.seek(last)
            if here.valid():
                here.next()
        try:
            here.status()
        except Exception as exc:
            self._note(p, exc)
            raise

    def changelog_offset(self, p: int) -> int:
        """Return the offset of the last changelog record in the store, -1 when it is empty."""
        raw = self.read(p, self.offset_key)
        return -1 if raw is None else int(raw)

    def write(self, p: int, rows: Iterable[Row], offset: int) -> None:
        """Write rows (None deletes) and the changelog offset, in one RocksDB write batch."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self.offset_key, b"%d" % offset)
        try:
            self._db_for_partition(p).write(batch)
        except Exception as exc:
            self._note(p, exc)
            raise

    def drop(self, p: int) -> None:
        """Keep the files: `on_rebalance` of Faust's store closes them."""

    @override
    def persisted_offset(self, tp: TP) -> int | None:
        """Report no offset to Faust's recovery, because the table recovers itself."""
        return None
