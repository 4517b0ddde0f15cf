"""The spool file: messages that were acknowledged to clients but not yet by Kafka, fsynced.

SQLite in WAL mode with `synchronous=FULL`: a commit that returned survives kill -9 and power loss. A row is one Kafka
message, and only that message's own ack deletes it. Ids are never reused (AUTOINCREMENT), so a late deletion can never
hit another message. Rows are indexed by topic and partition, so that an unavailable partition does not block the
others.

The file names its owner: the prefix from the beginning, and the cluster's id once Kafka has been reached; until then,
the addresses at which it was to be reached. A file without a prefix was written by version 0.1; then the topics of its
rows show the prefix.

The same file holds the quarantine (requests that could not be authorized) and the activity counters.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tallystream.streams.gateway.errors import SpoolCorruptError, SpoolFullError, SpoolWriteError
from tallystream.streams.gateway.message import Message, Place

FORMAT = 1
_SIZE = "length(key) + length(value) + 64"
"""`Message.size` in SQL."""
SHRINK_PAGES = 4096
"""An empty file of more pages (16 MiB) is vacuumed."""
_PUT = "INSERT INTO messages (at, topic, schema, key, value, partition) VALUES (?, ?, ?, ?, ?, ?)"
_DELETE = f"DELETE FROM messages WHERE id = ? RETURNING topic, partition, {_SIZE}"  # noqa: S608 - a constant
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_HOLD = "INSERT INTO quarantine (at, ingest_sha256, provider, bearer_sha256, payload) VALUES (?, ?, ?, ?, ?)"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    topic TEXT NOT NULL,
    schema TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    partition INTEGER NOT NULL DEFAULT -1
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
    """A spooled message and the id that deletes it. `at` is when it was spooled, in ns since the epoch."""

    id: int
    at: int
    message: Message


class Held(NamedTuple):
    """A request in quarantine. `provider` is "" when the id came in the header; `payload` is JSON of
    `quarantine.py`.
    """

    id: int
    at: int
    ingest_sha256: str
    provider: str
    bearer_sha256: str | None
    payload: bytes


class ActivityRow(NamedTuple):
    """A connection's counts through this gateway since its spool was created."""

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


def failure(path: Path, what: str, exc: Exception) -> SpoolWriteError:
    """Return our error for an error of SQLite or the system; a file is damaged only if SQLite itself reports it."""
    code = getattr(exc, "sqlite_errorcode", None)
    kind = SpoolCorruptError if code is not None and code & 0xFF in _DAMAGED else SpoolWriteError
    return kind(f"{what} the spool {path}: {exc}")


class SpoolFile:
    """The spool file with blocking calls, used by one thread (`spool.Spool`).

    `partition_of` computes a message's partition; without it rows do not have one. `patience` is how many seconds a
    call waits for another process that has the file locked (a backup).

    Every method raises SpoolWriteError when SQLite cannot do its work, SpoolCorruptError when it reports that the file
    is damaged; then the call has not changed the file.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int = 0,
        quarantine_max_bytes: int = 0,
        partition_of: Callable[[Message], int] = lambda _: -1,
        patience: float = 1.0,
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._quarantine_max_bytes = quarantine_max_bytes
        self._partition_of = partition_of
        self.level = Level()
        self.quarantine_level = Level()
        self.places: dict[Place, int] = {}
        """Number of rows by place; only places with rows."""
        self.prefix = ""
        self.cluster_id = ""
        """"" until Kafka has been reached."""
        self.addresses: frozenset[str] = frozenset()
        """Where Kafka was to be reached; empty once it has been, and if nobody knows."""
        try:
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=patience)
        except (OSError, sqlite3.Error) as exc:
            raise failure(path, "cannot open", exc) from exc
        try:
            self._open()
        except sqlite3.Error as exc:
            self._db.close()
            raise failure(path, "cannot open", exc) from exc
        except SpoolWriteError:
            self._db.close()
            raise

    def _open(self) -> None:
        db = self._db
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA journal_size_limit=8388608")
        if not self._made():
            with self._transaction():
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
                if "partition" not in {row[1] for row in db.execute("PRAGMA table_info(messages)")}:
                    db.execute("ALTER TABLE messages ADD COLUMN partition INTEGER NOT NULL DEFAULT -1")
                db.execute("CREATE INDEX IF NOT EXISTS messages_place ON messages (topic, partition, id)")
        known = dict(db.execute("SELECT name, value FROM meta"))
        if known.get("format") != str(FORMAT):
            raise SpoolWriteError(
                f"the spool {self.path} has format {known.get('format')}, this version reads {FORMAT}"
            )
        self.prefix, self.cluster_id = known.get("prefix", ""), known.get("cluster", "")
        self.addresses = frozenset(known.get("addresses", "").split())
        self._measure()

    def _made(self) -> bool:
        """Tell whether the file can be used without writing to it first, so that it can be drained even on a full
        disk.
        """
        sql = "SELECT count(*) FROM sqlite_master WHERE name IN ('meta', 'messages_place')"
        return bool(self._db.execute(sql).fetchone()[0] == 2)

    def _measure(self) -> None:
        sums = "SELECT count(*), coalesce(sum({}), 0), coalesce(min(at), 0) FROM {}"
        self.level = Level(*self._db.execute(sums.format(_SIZE, "messages")).fetchone())
        self.quarantine_level = Level(*self._db.execute(sums.format("length(payload)", "quarantine")).fetchone())
        sql = "SELECT topic, partition, count(*) FROM messages GROUP BY topic, partition"
        self.places = {Place(topic, partition): rows for topic, partition, rows in self._db.execute(sql)}

    @property
    def empty(self) -> bool:
        """Return whether it has neither messages nor requests in quarantine."""
        return not (self.level.rows or self.quarantine_level.rows)

    def belong(self, prefix: str, cluster_id: str, addresses: Iterable[str] = ()) -> None:
        """Record the file's owner; `addresses` replace the id of a cluster that has not been reached."""
        found = frozenset(addresses)
        owner = {"prefix": prefix, "cluster": cluster_id, "addresses": " ".join(sorted(found))}
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", owner.items())
        self.prefix, self.cluster_id, self.addresses = prefix, cluster_id, found

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
            raise failure(self.path, "cannot write", exc) from exc

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise failure(self.path, "cannot read", exc) from exc

    def meta(self, name: str, default: str | None = None) -> str | None:
        """Return a stored value; with `default`, store that one first if there is none."""
        with self._transaction() as db:
            if default is not None:
                db.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, default))
            row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def put(self, messages: Sequence[Message], at: int) -> list[int]:
        """Store the messages in one transaction, fsynced; return their ids, in order.

        Raises:
            SpoolFullError: they would exceed `max_bytes`.

        """
        size = sum(message.size for message in messages)
        if self.level.bytes + size > self._max_bytes:
            raise SpoolFullError(f"the spool holds {self.level.bytes} of {self._max_bytes} bytes")
        rows = [self._row(at, message) for message in messages]
        with self._transaction() as db:
            ids = [db.execute(_PUT, row).lastrowid or 0 for row in rows]
        self._added(rows)
        return ids

    def read(self, place: Place | None = None, *, max_bytes: int, limit: int = 4096, after: int = 0) -> list[Row]:
        """Return the oldest messages with ids above `after`: at least one if there is one, and more up to `max_bytes`.

        Either those of one place, or all.
        """
        rows: list[Row] = []
        size = 0
        where = "" if place is None else "AND topic = ? AND partition = ? "
        sql = f"SELECT id, at, topic, key, value, schema FROM messages WHERE id > ? {where}ORDER BY id LIMIT ?"  # noqa: S608
        with self._reading(), contextlib.closing(self._db.execute(sql, (after, *(place or ()), limit))) as cursor:
            for row in cursor:
                message = Message(*row[2:])
                size += message.size
                if rows and size > max_bytes:
                    break
                rows.append(Row(row[0], row[1], message))
        return rows

    def delete(self, ids: Iterable[int]) -> None:
        """Delete messages that Kafka has acknowledged. Ids that do not exist are ignored."""
        with self._transaction() as db:
            gone = [found for row in ids for found in db.execute(_DELETE, (row,)).fetchall()]
            oldest = db.execute("SELECT at FROM messages ORDER BY id LIMIT 1").fetchone()
        for topic, partition, _ in gone:
            place = Place(topic, partition)
            self.places[place] -= 1
            if not self.places[place]:
                del self.places[place]
        size = sum(found[2] for found in gone)
        self.level = Level(self.level.rows - len(gone), self.level.bytes - size, oldest[0] if oldest else 0)
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

        The spool's limit does not apply, because the data is already on the disk.
        """
        rows = [self._row(at, message) for message in messages]
        with self._transaction() as db:
            db.executemany(_PUT, rows)
            left = self._release(db, [request])
        self.quarantine_level = left
        self._added(rows)

    def restore(self, messages: Sequence[tuple[int, Message]], held: Sequence[Held]) -> None:
        """Store messages rescued from another file, with their original times; the limit does not apply."""
        rows = [self._row(at, message) for at, message in messages]
        with self._transaction() as db:
            db.executemany(_PUT, rows)
            db.executemany(_HOLD, [request[1:] for request in held])
        self._added(rows)
        for request in held:
            self._held(request)

    def save_activity(self, rows: Iterable[ActivityRow]) -> None:
        """Save absolute activity counts."""
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO activity VALUES (?, ?, ?, ?, ?)", rows)

    def load_activity(self) -> list[ActivityRow]:
        """Return the activity counts as last saved."""
        sql = "SELECT connection_id, signal, last_synced_ns, requests, records FROM activity"
        with self._reading():
            return [ActivityRow(*row) for row in self._db.execute(sql)]

    def inherit(self, other: SpoolFile) -> bool:
        """Take over the name and the activity counts of `other`, if it has them and this file does not."""
        name = other.meta("gateway")
        if name is None or self.meta("gateway") is not None:
            return False
        self.meta("gateway", name)
        self.save_activity(other.load_activity())
        with other._transaction() as db:
            db.execute("DELETE FROM meta WHERE name = 'gateway'")
            db.execute("DELETE FROM activity")
        return True

    def close(self) -> None:
        """Close the file; SQLite checkpoints it."""
        self._db.close()

    def _row(self, at: int, message: Message) -> tuple[int, str, str, bytes, bytes, int]:
        return at, message.topic, message.schema, message.key, message.value, self._partition_of(message)

    def _added(self, rows: Sequence[tuple[int, str, str, bytes, bytes, int]]) -> None:
        if not rows:
            return
        level, oldest = self.level, min(row[0] for row in rows)
        size = sum(len(key) + len(value) + 64 for _, _, _, key, value, _ in rows)
        self.level = Level(level.rows + len(rows), level.bytes + size, min(level.oldest_ns or oldest, oldest))
        for _, topic, _, _, _, partition in rows:
            place = Place(topic, partition)
            self.places[place] = self.places.get(place, 0) + 1

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
        """Free disk space after an outage, because SQLite never shrinks a file by itself."""
        with contextlib.suppress(sqlite3.Error):
            if self._db.execute("PRAGMA page_count").fetchone()[0] > SHRINK_PAGES:
                self._db.execute("VACUUM")
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
