"""SQLite: one file in the data dir, in WAL mode, so that readers see consistent snapshots while one process writes."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tallystream.agents.ledger.errors import LedgerDamagedError, LedgerUnfitError, LedgerUnreachableError
from tallystream.agents.ledger.store.database import Dialect, Row, no_ledger

if TYPE_CHECKING:
    from tallystream.streams.service.locks import ProcessLock

DIALECT = Dialect(
    "sqlite",
    {
        "id": "INTEGER PRIMARY KEY",
        "int": "INTEGER",
        "text": "TEXT",
        "blob": "BLOB",
        "amount": "TEXT",  # a decimal number of any length; SQLite's own numbers would round it
        "clustered": " WITHOUT ROWID",
        "nulls_last": "",
        "greatest": "max",
        "temporary": "TEMP",
        "empty": "DELETE FROM",
        # Pico-dollars as one integer. Beyond what 64 bits hold SQLite would go on in floating point, so the last branch
        # raises its "integer overflow" instead.
        "pico": "CASE WHEN $hi IS NULL THEN NULL WHEN abs($hi) < 9223372036 THEN $hi * 1000000000 + $lo"
        " ELSE abs(-9223372036854775807 - 1) END",
        "printf": "printf",
        # The shortest decimal of an amount without its sign.
        "usd": "CASE WHEN $lo = 0 AND $hi % 1000 = 0 THEN abs($hi / 1000)"
        " WHEN $hi >= 0 THEN rtrim(printf('%d.%03d%09d', $hi / 1000, $hi % 1000, $lo), '0')"
        " ELSE rtrim(printf('%d.%03d%09d', (-$hi - ($lo > 0)) / 1000, (-$hi - ($lo > 0)) % 1000,"
        " (1000000000 - $lo) % 1000000000), '0') END",
    },
)
FILE = "ledger.db"
ASIDE = ".aside-"
BUSY_MS = 10_000


class SQLiteDatabase:
    """The file `path`. With `read_only` it must exist and is never changed.

    Raises, from opening and from every method:
        LedgerUnreachableError: the file does not exist, or cannot be written.
    """

    dialect = DIALECT

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        self.where = str(path)
        self._read_only = read_only
        self._lock: ProcessLock | None = None
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        if self._read_only and not self.path.exists():
            raise no_ledger(self.where)
        mode = "ro" if self._read_only else "rwc"
        try:
            if not self._read_only:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(
                f"{self.path.resolve().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
            )
            connection.execute(f"PRAGMA busy_timeout={BUSY_MS}")
            connection.execute("PRAGMA cache_size=-65536")
            connection.execute("PRAGMA temp_store=MEMORY")
            connection.execute("PRAGMA mmap_size=1073741824")
            if self._read_only:
                connection.execute("PRAGMA query_only=ON")
            else:
                connection.execute("PRAGMA journal_mode=WAL")
                # A power failure may lose the newest transactions, but only whole ones, including their positions.
                connection.execute("PRAGMA synchronous=NORMAL")
        except (sqlite3.Error, OSError) as exc:
            raise self._failed(exc) from exc
        return connection

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, for what only SQLite has (authorizer, functions)."""
        return self._connection

    def try_lock(self) -> bool:
        """Become the one writer of this file."""
        if self._lock is None:
            from tallystream.streams.service.locks import ProcessLock  # a reader needs none

            lock = ProcessLock(self.path.with_name(f"{self.path.name}.lock"))
            try:
                if not lock.acquire():
                    return False
            except OSError as exc:
                raise self._failed(exc) from exc
            self._lock = lock
        return True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Give a transaction."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            self._give_up()
            raise

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Give one consistent view."""
        self.execute("BEGIN")
        try:
            yield
        finally:
            self._give_up()

    def _give_up(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def execute(self, sql: str, parameters: Sequence[object] = ()) -> int:
        """Run a statement."""
        try:
            return self._connection.execute(DIALECT.sql(sql), parameters).rowcount
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def load(self, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Append rows."""
        marks = ", ".join("?" * len(columns))
        try:
            self._connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", rows)
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """Return all rows."""
        return list(self.stream(sql, parameters))

    def stream(self, sql: str, parameters: Sequence[object] = ()) -> Iterator[Row]:
        """Iterate over rows."""
        try:
            yield from self._connection.execute(DIALECT.sql(sql), parameters)
        except sqlite3.Error as exc:
            raise self._failed(exc) from exc

    def tables(self) -> bool:
        """Tell whether the tables exist."""
        return bool(self.rows("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'ledger_meta'"))

    def set_aside(self) -> str:
        """Rename the file and begin an empty one. Readers that have it open keep reading the renamed one."""
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        try:
            target = rename_aside(self.path)
        except OSError as exc:
            raise self._failed(exc) from exc
        self._connection = self._open()
        return str(target)

    def close(self) -> None:
        """Close the file and give the lock back."""
        self._connection.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _failed(self, exc: Exception) -> LedgerUnreachableError | LedgerUnfitError | LedgerDamagedError:
        if isinstance(exc, sqlite3.DatabaseError) and _is_damage(exc):
            return LedgerDamagedError(
                f"the ledger in {self.where} is damaged: {exc}",
                "`tallystream ledger` renames the file and rebuilds it from the topics",
            )
        if isinstance(exc, sqlite3.Error) and getattr(exc, "sqlite_errorcode", None) == sqlite3.SQLITE_ERROR:
            return LedgerUnfitError(f"the ledger in {self.where} refuses: {exc}", "this is a defect: report it")
        return LedgerUnreachableError(
            f"the ledger in {self.where} cannot be used: {exc}", "is there room on that disk, and may we write there?"
        )


def rename_aside(path: Path) -> Path:
    """Rename a file and SQLite's files beside it; return its new name.

    Raises:
        OSError: it cannot be renamed.

    """
    target = path.with_name(f"{path.name}{ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}")
    path.rename(target)
    for end in ("-wal", "-shm"):
        beside = path.with_name(path.name + end)
        if beside.exists():
            beside.rename(target.with_name(target.name + end))
    return target


def _is_damage(exc: sqlite3.DatabaseError) -> bool:
    code = getattr(exc, "sqlite_errorcode", 0) or 0
    return code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
