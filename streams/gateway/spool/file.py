"""The spool: what has been acknowledged to clients and not yet by Kafka, fsynced.

SQLite in WAL mode with `synchronous=FULL`: a commit that returned survives kill -9 and power loss. A row is one Kafka
message and only that message's own ack deletes it. Ids are never reused (AUTOINCREMENT), so a late deletion can never
hit another message.

The same file holds the quarantine (requests whose ingest id could not be judged) and the activity counters.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tallystream.streams.gateway.errors import SpoolFullError, SpoolWriteError
from tallystream.streams.gateway.message import Message

FORMAT = 1
_SIZE = "length(key) + length(value) + 64"
"""`Message.size` in SQL."""
SHRINK_PAGES = 4096
"""An empty file of more pages (16 MiB) is vacuumed."""
_PUT = "INSERT INTO messages (at, topic, schema, key, value) VALUES (?, ?, ?, ?, ?)"
_DELETE = f"DELETE FROM messages WHERE id = ? RETURNING {_SIZE}"  # noqa: S608 - a constant
_HOLD = "INSERT INTO quarantine (at, ingest_sha256, provider, bearer_sha256, payload) VALUES (?, ?, ?, ?, ?)"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    topic TEXT NOT NULL,
    schema TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS quarantine (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    ingest_sha256 TEXT NOT NULL,
    provider TEXT NOT NULL,
    bearer_sha256 TEXT,
    payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS activity (
    connection_id TEXT NOT NULL,
    signal TEXT NOT NULL,
    last_synced_ns INTEGER NOT NULL,
    requests INTEGER NOT NULL,
    records INTEGER NOT NULL,
    PRIMARY KEY (connection_id, signal)
) WITHOUT ROWID;
"""


class Row(NamedTuple):
    """A spooled message and the id that deletes it."""

    id: int
    at: int
    message: Message


class Held(NamedTuple):
    """A request in quarantine. `provider` is "" when it came by header; `payload` is JSON of `quarantine.py`."""

    id: int
    at: int
    ingest_sha256: str
    provider: str
    bearer_sha256: str | None
    payload: bytes


class ActivityRow(NamedTuple):
    """What a connection has sent through this gateway since its spool was made."""

    connection_id: str
    signal: str
    last_synced_ns: int
    requests: int
    records: int


@dataclass(frozen=True, slots=True)
class Level:
    """How full a table is; `oldest_ns` is 0 when it is empty."""

    rows: int = 0
    bytes: int = 0
    oldest_ns: int = 0


class SpoolFile:
    """The file, synchronously. One thread uses it (`spool_thread.Spool`).

    Every method raises SpoolWriteError when SQLite cannot do its work; nothing of that call is then in the file.
    """

    def __init__(self, path: Path, *, max_bytes: int, quarantine_max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._quarantine_max_bytes = quarantine_max_bytes
        self.level = Level()
        self.quarantine_level = Level()
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        except (OSError, sqlite3.Error) as exc:
            raise SpoolWriteError(f"cannot open the spool {path}: {exc}") from exc
        try:
            self._open()
        except sqlite3.Error as exc:
            self._db.close()
            raise SpoolWriteError(f"cannot open the spool {path}: {exc}") from exc
        except SpoolWriteError:
            self._db.close()
            raise

    def _open(self) -> None:
        db = self._db
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA journal_size_limit=8388608")
        with self._transaction():
            for statement in _SCHEMA.split(";"):
                db.execute(statement)
            db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
        found = self.meta("format")
        if found != str(FORMAT):
            raise SpoolWriteError(f"the spool {self.path} has format {found}, this version reads {FORMAT}")
        self._measure()

    def _measure(self) -> None:
        sums = "SELECT count(*), coalesce(sum({}), 0), coalesce(min(at), 0) FROM {}"
        self.level = Level(*self._db.execute(sums.format(_SIZE, "messages")).fetchone())
        self.quarantine_level = Level(*self._db.execute(sums.format("length(payload)", "quarantine")).fetchone())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as exc:
            raise SpoolWriteError(f"the spool {self.path} cannot be written: {exc}") from exc

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise SpoolWriteError(f"the spool {self.path} cannot be read: {exc}") from exc

    def meta(self, name: str, default: str | None = None) -> str | None:
        """Return a remembered value; with `default`, remember that one first when there is none."""
        with self._transaction() as db:
            if default is not None:
                db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, default))
            row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def put(self, messages: Sequence[Message], at: int) -> list[int]:
        """Store the messages in one transaction, fsynced; return their ids, in order.

        Raises:
            SpoolFullError: they do not fit below `max_bytes`.

        """
        size = sum(message.size for message in messages)
        if self.level.bytes + size > self._max_bytes:
            raise SpoolFullError(f"the spool holds {self.level.bytes} of {self._max_bytes} bytes")
        with self._transaction() as db:
            ids = [
                db.execute(_PUT, (at, message.topic, message.schema, message.key, message.value)).lastrowid or 0
                for message in messages
            ]
        self._added([(at, message) for message in messages])
        return ids

    def read(self, *, max_bytes: int, after: int = 0) -> list[Row]:
        """Return the oldest messages with ids above `after`: one if there is one, more up to `max_bytes`."""
        rows: list[Row] = []
        size = 0
        sql = "SELECT id, at, topic, key, value, schema FROM messages WHERE id > ? ORDER BY id LIMIT 4096"
        with self._reading(), contextlib.closing(self._db.execute(sql, (after,))) as cursor:
            for row in cursor:
                message = Message(*row[2:])
                size += message.size
                if rows and size > max_bytes:
                    break
                rows.append(Row(row[0], row[1], message))
        return rows

    def delete(self, ids: Iterable[int]) -> None:
        """Delete messages that Kafka has acknowledged. Ids that are gone are no error."""
        with self._transaction() as db:
            gone = [size for row in ids for (size,) in db.execute(_DELETE, (row,)).fetchall()]
            oldest = db.execute("SELECT at FROM messages ORDER BY id LIMIT 1").fetchone()
        self.level = Level(self.level.rows - len(gone), self.level.bytes - sum(gone), oldest[0] if oldest else 0)
        if not self.level.rows and not self.quarantine_level.rows:
            self._shrink()

    def hold(self, request: Held) -> None:
        """Store a request in quarantine, fsynced; its `id` is chosen here.

        Raises:
            SpoolFullError: the quarantine is full.

        """
        size = len(request.payload)
        if self.quarantine_level.bytes + size > self._quarantine_max_bytes:
            raise SpoolFullError(
                f"the quarantine holds {self.quarantine_level.bytes} of {self._quarantine_max_bytes} bytes"
            )
        with self._transaction() as db:
            db.execute(_HOLD, request[1:])
        self._held(request)

    def held(self, limit: int) -> list[Held]:
        """Return the oldest requests in quarantine."""
        sql = "SELECT id, at, ingest_sha256, provider, bearer_sha256, payload FROM quarantine ORDER BY id LIMIT ?"
        with self._reading():
            return [Held(*row) for row in self._db.execute(sql, (limit,))]

    def judge(self, request: Held, messages: Sequence[Message], at: int) -> None:
        """Replace a request in quarantine by the messages it became, in one transaction.

        The spool's limit does not apply: what is already on the disk is not refused.
        """
        with self._transaction() as db:
            self._copy(db, [(at, message) for message in messages])
            left = self._release(db, [request])
        self.quarantine_level = left
        self._added([(at, message) for message in messages])

    def save_activity(self, rows: Iterable[ActivityRow]) -> None:
        """Remember absolute activity counts."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO activity VALUES (?, ?, ?, ?, ?)", rows)

    def load_activity(self) -> list[ActivityRow]:
        """Return the activity counts as last saved."""
        sql = "SELECT connection_id, signal, last_synced_ns, requests, records FROM activity"
        with self._reading():
            return [ActivityRow(*row) for row in self._db.execute(sql)]

    def adopt(self, other: SpoolFile, *, max_bytes: int = 1 << 20) -> int:
        """Move about `max_bytes` out of the spool of a dead gateway into this one; return how many rows, 0 at the end.

        Copied and fsynced here before it is deleted there: a crash in between sends some messages twice, which their
        event ids make harmless, and loses none.
        """
        if rows := other.read(max_bytes=max_bytes):
            copies = [(row.at, row.message) for row in rows]
            with self._transaction() as db:
                self._copy(db, copies)
            self._added(copies)
            other.delete([row.id for row in rows])
            return len(rows)
        if held := other.held(64):
            with self._transaction() as db:
                db.executemany(_HOLD, [row[1:] for row in held])
            for row in held:
                self._held(row)
            with other._transaction() as their:
                left = other._release(their, held)
            other.quarantine_level = left
        return len(held)

    def close(self) -> None:
        """Close the file; SQLite checkpoints it."""
        self._db.close()

    @staticmethod
    def _copy(db: sqlite3.Connection, rows: Iterable[tuple[int, Message]]) -> None:
        db.executemany(_PUT, [(at, m.topic, m.schema, m.key, m.value) for at, m in rows])

    def _added(self, rows: Sequence[tuple[int, Message]]) -> None:
        if rows:
            level, oldest = self.level, min(at for at, _ in rows)
            size = sum(message.size for _, message in rows)
            self.level = Level(level.rows + len(rows), level.bytes + size, min(level.oldest_ns or oldest, oldest))

    def _held(self, request: Held) -> None:
        level = self.quarantine_level
        self.quarantine_level = Level(
            level.rows + 1, level.bytes + len(request.payload), min(level.oldest_ns or request.at, request.at)
        )

    def _release(self, db: sqlite3.Connection, requests: Sequence[Held]) -> Level:
        """Take requests out of quarantine; return the level for when the transaction has been committed."""
        db.executemany("DELETE FROM quarantine WHERE id = ?", [(request.id,) for request in requests])
        oldest = db.execute("SELECT at FROM quarantine ORDER BY id LIMIT 1").fetchone()
        level = self.quarantine_level
        size = sum(len(request.payload) for request in requests)
        return Level(level.rows - len(requests), level.bytes - size, oldest[0] if oldest else 0)

    def _shrink(self) -> None:
        """Give the disk its bytes back after an outage: SQLite itself never does."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.execute("PRAGMA page_count").fetchone()[0] > SHRINK_PAGES:
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
