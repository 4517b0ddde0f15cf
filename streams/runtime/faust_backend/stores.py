"""Local stores, addressed by partition: a rebuildable copy of the changelog, never ahead of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NoReturn

import rocksdict
import structlog
from faust.stores import base as faust_base
from faust.stores import rocksdb as faust_rocksdb
from faust.types import TP
from typing_extensions import override

from tallystream.streams.local_database import LocalDatabase
from tallystream.streams.runtime.changelog import Row
from tallystream.streams.runtime.store import MemoryStore

log = structlog.get_logger()


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
    has the rest. A damaged database is removed and rebuilt from the changelog: at once if it cannot be opened, else at
    the next start, for the worker ends when it meets damage in an open one.

    Relies on `Store._db_for_partition` of faust/stores/rocksdb.py (opens and caches the database), on its calling
    `_open_for_partition`, and on `Store.on_rebalance`, which closes the databases of revoked partitions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._unlogged: set[int] = set()
        """Partitions whose last writes are not logged."""

    def _open_for_partition(self, partition: int) -> LocalDatabase:
        self._unlogged.discard(partition)  # closing a database has written them to files

        def removed(why: str) -> None:
            log.warning("damaged_store_rebuilt_from_changelog", partition=partition, error=why)

        connect = partial(super()._open_for_partition, partition)
        return LocalDatabase(self.partition_path(partition), connect, removed)

    def read(self, p: int, key: bytes) -> bytes | None:
        """Return the row of `key` in partition `p`."""
        row: bytes | None = self._db_for_partition(p).get(key)
        return row

    def items(self, p: int) -> Iterator[tuple[bytes, bytes]]:  # type: ignore[override]
        """Iterate over all rows of a partition, including reserved ones."""
        return ((key, value) for key, value in self._db_for_partition(p).items() if key != self.offset_key)

    def keys_with(self, p: int, prefix: bytes) -> Iterator[bytes]:
        """Iterate over the keys of a partition that begin with `prefix`, in order."""
        for key in self._db_for_partition(p).keys(prefix):
            if not key.startswith(prefix):
                return
            yield key

    def chunks(self, p: int, size: int) -> Iterator[list[bytes]]:
        """Yield all keys of a partition, `size` at a time; each chunk seeks again, so that iterators do not pin the
        database.
        """
        last: bytes | None = None
        while True:
            chunk: list[bytes] = []
            for key in self._db_for_partition(p).keys(last):
                if key != last:
                    chunk.append(key)
                if len(chunk) >= size:
                    break
            if not chunk:
                return
            last = chunk[-1]
            yield [key for key in chunk if key != self.offset_key]

    def changelog_offset(self, p: int) -> int:
        """Return the offset of the last changelog record in the store, -1 when it is empty."""
        raw = self.read(p, self.offset_key)
        return -1 if raw is None else int(raw)

    def write(self, p: int, rows: Iterable[Row], offset: int, *, logged: bool = True) -> None:
        """Write rows (None deletes) and the changelog offset, in one RocksDB write batch.

        A write that is logged comes after everything before it is in files: otherwise a crash could leave it alone.
        """
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in rows:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(self.offset_key, b"%d" % offset)
        database = self._db_for_partition(p)
        if logged:
            self.flush(p)
        else:
            self._unlogged.add(p)
        database.write(batch, logged=logged)

    def flush(self, p: int, *, wait: bool = True) -> None:
        """Write what is not logged to files; without `wait` RocksDB's threads do that meanwhile."""
        if p in self._unlogged:
            self._db_for_partition(p).flush(wait=wait)
            if wait:
                self._unlogged.discard(p)

    def drop(self, p: int) -> None:
        """Keep the files: `on_rebalance` of Faust's store closes them."""

    @override
    def persisted_offset(self, tp: TP) -> int | None:
        """Report no offset to Faust's recovery, because the table recovers itself."""
        return None
