"""A RocksDB database that only copies what Kafka has, so a damaged one is removed and filled again.

RocksDB calls most damage corruption, but not a missing MANIFEST, nor what another version or configuration has written
("Invalid argument", "Not implemented"), and reports some of it only when it reads the block. All that is not the disk's
own error is removed and filled again.
rocksdict's iterators end at such a block as if the database ended there. So damage that is met while reading is noted
beside the database and raised: it ends the process, whose next start removes the database. Whatever the disk refuses is
raised with its cause and the next step.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import rocksdict

from tallystream.streams.local_disk import ROCKSDB_PREFIX, LocalCopyDamagedError, disk_error

MISSING_FILE = "IO error: No such file or directory"


class LocalDatabase:
    """An open database at `path`. `connect` opens it; `removed` is called with the reason if it had to be removed.

    Raises, from every method:
        LocalDiskError: the disk is full, or cannot be written; LocalCopyDamagedError: the database is damaged.
    """

    def __init__(self, path: Path, connect: Callable[[], rocksdict.Rdict], removed: Callable[[str], None]) -> None:
        self._path = path
        self._failed = False
        self._mark = path.with_name(f"{path.name}.damaged")
        if self._mark.exists():
            removed(self._mark.read_text())
            self._remove(path)
        try:
            self._db: Any = connect()
        except Exception as exc:
            if str(exc).startswith(ROCKSDB_PREFIX) and not (str(exc).startswith(MISSING_FILE) and path.exists()):
                raise self._told(exc) from exc
            removed(str(exc))
            self._remove(path)
            try:
                self._db = connect()
            except Exception as again:
                raise self._told(again) from again

    def _remove(self, path: Path) -> None:
        # The mark goes last, so that a kill in between leaves nothing that looks undamaged.
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        self._mark.unlink(missing_ok=True)

    def _told(self, exc: Exception) -> Exception:
        """Return the error to raise for one of RocksDB's, after noting damage for the next start."""
        self._failed = True
        if _corrupt(exc):
            with contextlib.suppress(OSError):
                self._mark.write_text(str(exc))
            return LocalCopyDamagedError(
                f"the local copy in {self._path} is damaged: {exc}",
                "start it again: the copy is removed and filled again from Kafka",
            )
        return disk_error(exc) or exc

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as exc:
            raise self._told(exc) from exc
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Write one value."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.put(key, value)
        self.write(batch)

    def write(self, batch: rocksdict.WriteBatch, *, logged: bool = True) -> None:
        """Write a batch atomically. A crash may undo batches that are not `logged`, the last ones first.

        That is cheaper by half. Before the next one that is logged everything must be written to files (`flush`), or a
        crash could leave that one without those before it.
        """
        try:
            self._db.write(batch, None if logged else _unlogged())
        except Exception as exc:
            raise self._told(exc) from exc

    def keys(self, from_key: bytes | None = None) -> Iterator[bytes]:
        """Iterate over the keys in order, beginning with `from_key` if it exists."""
        last = from_key
        for key in self._db.keys(from_key=from_key):
            last = key
            yield key
        self._check_end(last)

    def items(self, from_key: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Iterate over keys and values in the same way."""
        last = from_key
        for key, value in self._db.items(from_key=from_key):
            last = key
            yield key, value
        self._check_end(last)

    def _check_end(self, last: bytes | None) -> None:
        """Raise RocksDB's error if an iteration ended after the key `last` because of damage."""
        here: Any = self._db.iter()
        if last is None:
            here.seek_to_first()
        else:
            here.seek(last)
            if here.valid():
                here.next()
        try:
            here.status()
        except Exception as exc:
            raise self._told(exc) from exc

    def flush(self, *, wait: bool = True) -> None:
        """Write everything to sorted files; without `wait` only begin to."""
        try:
            self._db.flush(wait)
        except Exception as exc:
            raise self._told(exc) from exc

    def close(self) -> None:
        """Close it. After an error RocksDB fails here, too, which would hide the first error."""
        try:
            self._db.close()
        except Exception as exc:
            if not self._failed:
                raise self._told(exc) from exc


@cache
def _unlogged() -> rocksdict.WriteOptions:
    options = rocksdict.WriteOptions()
    options.disable_wal = True  # type: ignore[method-assign, assignment]  # rocksdict's stub calls it a method
    return options


def _corrupt(exc: Exception) -> bool:
    return str(exc).startswith("Corruption")
