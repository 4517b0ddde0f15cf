"""A RocksDB database that only copies what Kafka has, so a damaged one is removed and filled again.

RocksDB calls most damage corruption, but not a missing MANIFEST, and reports some of it only when it reads the block.
rocksdict's iterators end at such a block as if the database ended there. So damage that is met while reading is noted
beside the database and raised: it ends the process, whose next start removes the database.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import rocksdict

MISSING_FILE = "IO error: No such file or directory"


class LocalDatabase:
    """An open database at `path`. `connect` opens it; `removed` is called with the reason if it had to be removed.

    Raises, from every method:
        Exception: RocksDB's, whose text begins with "Corruption" if the database is damaged.
    """

    def __init__(self, path: Path, connect: Callable[[], rocksdict.Rdict], removed: Callable[[str], None]) -> None:
        self._mark = path.with_name(f"{path.name}.damaged")
        if self._mark.exists():
            removed(self._mark.read_text())
            self._remove(path)
        try:
            self._db: Any = connect()
        except Exception as exc:
            if not (_corrupt(exc) or (str(exc).startswith(MISSING_FILE) and path.exists())):
                raise
            removed(str(exc))
            self._remove(path)
            self._db = connect()

    def _remove(self, path: Path) -> None:
        # The mark goes last, so that a kill in between leaves nothing that looks undamaged.
        shutil.rmtree(path, ignore_errors=True)
        self._mark.unlink(missing_ok=True)

    def _note(self, exc: Exception) -> None:
        if _corrupt(exc):
            with contextlib.suppress(OSError):
                self._mark.write_text(str(exc))

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        try:
            value: bytes | None = self._db.get(key)
        except Exception as exc:
            self._note(exc)
            raise
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Write one value."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        batch.put(key, value)
        self.write(batch)

    def write(self, batch: rocksdict.WriteBatch) -> None:
        """Write a batch atomically."""
        try:
            self._db.write(batch)
        except Exception as exc:
            self._note(exc)
            raise

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
            self._note(exc)
            raise

    def flush(self) -> None:
        """Write everything to sorted files."""
        self._db.flush()

    def close(self) -> None:
        """Close it."""
        self._db.close()


def _corrupt(exc: Exception) -> bool:
    return str(exc).startswith("Corruption")
