"""State of the counters in one SQLite file: rows at their newest version, sums by label and hour, and positions.

Prometheus takes a decreasing counter for a restart from zero, so neither a new process nor rows removed by retention
may lower one. All changes of a batch of rows are committed in one transaction, and only committed values are
published. After any crash the next process therefore publishes at least as much and continues exactly there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import orjson

from tallystream.agents.cost_table import keep_newest
from tallystream.exporter.errors import CountersUnusableError
from tallystream.exporter.labels import FIELDS, OTHER, ZERO, Label, Labels, Sums, add, change, parts
from tallystream.schemas.hours import hour_from_iso
from tallystream.schemas.versions import supersedes
from tallystream.streams.kafka.follower import FollowedBatch, FollowerPosition

FORMAT = 1
KEEP_HOURS = 401 * 24
"""Hours after which a row is dropped; the topic has removed it by then, too."""
HISTORY_HOURS = 15 * 24
"""Number of hours for which the cost by hour and connection is kept."""
_COST = FIELDS.index("cost_pico")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS positions(topic TEXT, partition INTEGER, next INTEGER NOT NULL, stamp INTEGER NOT NULL,
    PRIMARY KEY(topic, partition));
CREATE TABLE IF NOT EXISTS counters(id INTEGER PRIMARY KEY, label TEXT UNIQUE NOT NULL, exact TEXT NOT NULL,
    published TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS rows(key BLOB PRIMARY KEY, hour INTEGER NOT NULL, generation INTEGER NOT NULL,
    offset INTEGER NOT NULL, parts BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS rows_by_hour ON rows(hour);
CREATE TABLE IF NOT EXISTS hours(hour INTEGER, connection TEXT, pico TEXT NOT NULL, PRIMARY KEY(hour, connection))
    WITHOUT ROWID;
"""


@dataclass(frozen=True)
class PublishedCounters:
    """The committed values. Sums only increase; hours follow their rows."""

    sums: Mapping[Label, Sums] = field(default_factory=dict)
    hours: Mapping[tuple[int, str], int] = field(default_factory=dict)
    """Cost in pico-dollars by (hour, connection)."""
    skipped: int = 0
    """Number of records that were not rows, since this process started."""


class _Row(NamedTuple):
    key: bytes
    hour: int
    connection: str
    version: tuple[int, int]
    parts: dict[Label, Sums]


class CounterLedger:
    """The file, used by one exporter and one thread at a time. `published` may be read from any thread.

    Raises, from opening:
        CountersUnusableError: the file is damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.published = PublishedCounters()
        self._forgot = 0
        try:
            with contextlib.ExitStack() as opened:
                self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
                opened.callback(self._db.close)
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.executescript(_SCHEMA)
                path.chmod(0o600)
                self._load()
                opened.pop_all()
        except (sqlite3.DatabaseError, ValueError) as exc:
            raise CountersUnusableError(
                f"the exporter's counters in {path} cannot be read: {exc}",
                "move the file away; the counters then start again with what the rows topic still holds",
            ) from exc

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def positions(self, topic: str) -> dict[tuple[str, int], FollowerPosition]:
        """Return the positions to continue at, by topic and partition."""
        found = self._db.execute("SELECT partition, next, stamp FROM positions WHERE topic = ?", (topic,))
        return {(topic, p): FollowerPosition(offset, stamp) for p, offset, stamp in found}

    def forget_positions(self, topic: str) -> None:
        """Read a recreated topic from its beginning. The counters and known rows are kept."""
        self._db.execute("DELETE FROM positions WHERE topic = ?", (topic,))

    def apply(self, batches: Iterable[FollowedBatch], now_hour: int) -> PublishedCounters:
        """Count rows that are newer than the known ones, commit, and return the values to publish.

        Of equal versions the later one counts, as for every reader. Tombstones are ignored: the money stays spent.

        Raises:
            sqlite3.Error: the file cannot be written. Nothing was changed.

        """
        batches = list(batches)
        newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
        broken = sum(
            keep_newest(newest, [record for record in batch.records if record.value is not None]) for batch in batches
        )
        rows: list[_Row] = []
        for key, (version, value) in newest.items():
            row = self._row(key, version, value)
            if row is None:
                broken += 1
            elif row.hour > now_hour - KEEP_HOURS:
                rows.append(row)
        self._db.execute("BEGIN IMMEDIATE")
        try:
            sums, hours = self._write(rows, batches)
            self._forget(hours, now_hour)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite itself has ended it if the disk is full
                self._db.execute("ROLLBACK")
            self._load()
            raise
        self.published = PublishedCounters(sums, hours, self.published.skipped + broken)
        return self.published

    def _row(self, key: bytes, version: tuple[int, int], value: bytes) -> _Row | None:
        try:
            row = orjson.loads(value)
            hour, found = hour_from_iso(row["hour"]), parts(row, self._labels)
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError):
            return None
        connection = next((label.first for label in found if label.kind == "usage"), OTHER)
        return _Row(hashlib.blake2b(key, digest_size=16).digest(), hour, connection, version, found)

    def _write(
        self, rows: list[_Row], batches: list[FollowedBatch]
    ) -> tuple[dict[Label, Sums], dict[tuple[int, str], int]]:
        db, hours, changes = self._db, dict(self.published.hours), dict[Label, Sums]()
        touched: set[tuple[int, str]] = set()
        for row in rows:
            known = db.execute("SELECT generation, offset, parts FROM rows WHERE key = ?", (row.key,)).fetchone()
            if not supersedes(row.version, known and (known[0], known[1])):
                continue
            old = {} if known is None else self._decode(known[2])
            changed = change(old, row.parts)
            for label, sums in changed.items():
                changes[label] = add(changes.get(label, ZERO), sums)
                if label.kind == "usage" and sums[_COST]:
                    at = (row.hour, row.connection)
                    hours[at] = hours.get(at, 0) + sums[_COST]
                    touched.add(at)
            self._admit(row.parts)
            db.execute(
                "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?)",
                (row.key, row.hour, *row.version, self._encode(row.parts)),
            )
        published = dict(self.published.sums)
        for label, sums in changes.items():
            exact = self._exact[label] = add(self._exact[label], sums)
            # After a correction downwards the published value stays until the exact sum has caught up.
            published[label] = tuple(map(max, published.get(label, ZERO), exact))
            db.execute(
                "UPDATE counters SET exact = ?, published = ? WHERE id = ?",
                (_text(exact), _text(published[label]), self._ids[label]),
            )
        for at in touched:
            db.execute("INSERT OR REPLACE INTO hours VALUES (?, ?, ?)", (*at, str(hours[at])))
        for batch in batches:
            db.execute(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", (batch.topic, batch.partition, *batch.after)
            )
        return published, hours

    def _admit(self, labels: Iterable[Label]) -> None:
        for label in labels:
            if label not in self._ids:
                zero = _text(ZERO)
                cursor = self._db.execute(
                    "INSERT INTO counters(label, exact, published) VALUES (?, ?, ?)",
                    (orjson.dumps(list(label)).decode(), zero, zero),
                )
                assert cursor.lastrowid is not None
                self._know(cursor.lastrowid, label, ZERO)

    def _forget(self, hours: dict[tuple[int, str], int], now_hour: int) -> None:
        """Once an hour, drop rows and hours that are too old to change or to be shown."""
        if self._forgot == now_hour:
            return
        self._forgot = now_hour
        oldest = now_hour - HISTORY_HOURS
        for at in [at for at in hours if at[0] < oldest]:
            del hours[at]
        self._db.execute("DELETE FROM hours WHERE hour < ?", (oldest,))
        self._db.execute("DELETE FROM rows WHERE hour <= ?", (now_hour - KEEP_HOURS,))

    def _load(self) -> None:
        """Load everything except the rows into memory."""
        db = self._db
        db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (str(FORMAT),))
        (version,) = db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        if version != str(FORMAT):
            raise ValueError(f"format {version}, ours is {FORMAT}")
        self._ids: dict[Label, int] = {}
        self._by_id: dict[int, Label] = {}
        self._exact: dict[Label, Sums] = {}
        published: dict[Label, Sums] = {}
        for number, label, exact, shown in db.execute("SELECT id, label, exact, published FROM counters ORDER BY id"):
            named = Label(*orjson.loads(label))
            self._know(number, named, _sums(exact))
            published[named] = _sums(shown)
        self._labels = Labels(self._ids)
        hours = {(hour, name): int(pico) for hour, name, pico in db.execute("SELECT hour, connection, pico FROM hours")}
        self.published = PublishedCounters(published, hours, self.published.skipped)

    def _know(self, number: int, label: Label, exact: Sums) -> None:
        self._ids[label], self._by_id[number], self._exact[label] = number, label, exact

    def _encode(self, found: Mapping[Label, Sums]) -> bytes:
        return " ".join(f"{self._ids[label]}:{_text(sums)}" for label, sums in found.items()).encode()

    def _decode(self, raw: bytes) -> dict[Label, Sums]:
        pairs = (part.partition(":") for part in raw.decode().split())
        return {self._by_id[int(number)]: _sums(sums) for number, _, sums in pairs}


def _text(sums: Sums) -> str:
    """Return sums as text, because SQLite's integers end at 9.2 million dollars in pico-dollars."""
    return ",".join(map(str, sums))


def _sums(text: str) -> Sums:
    sums = tuple(map(int, text.split(",")))
    if len(sums) != len(FIELDS):
        raise ValueError(f"{len(sums)} fields")
    return sums


def file_name(cluster: str, topic: str) -> str:
    """Return the file's name. Each cluster and deployment has its own counters."""
    return f"ledger-{hashlib.sha256(os.fsencode(f'{cluster}|{topic}')).hexdigest()[:16]}.sqlite"
