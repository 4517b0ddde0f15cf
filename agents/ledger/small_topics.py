"""The small topics as tables: the latest record of a key is valid, or the one with the highest version."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from tallystream.agents.ledger import records as decode
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.ledger.witnesses import apply as witness
from tallystream.schemas import keys
from tallystream.streams.kafka.topics import Topics

MAX_KEY = 1000
"""Maximum bytes of a name that a database can index."""
_DAY = ("day", "model", "project_id")
_STATEMENT = ("provider", "scope", "day")
_CONNECTION = ("connection_id", "provider", "name", "created_at", "revoked_at", "old_until", "bearer")
_ACTIVITY = ("connection_id", "signal", "gateway", "last_synced_at", "requests", "records")
_LINK = ("connection_id", "session_id", "parent_session_id")
_LETTER = (
    "source", "reason", "detail", "at", "connection_id", "client", "session_id", "document", "partition",
    "record_offset",
)  # fmt: skip


class TopicRecord(Protocol):
    """A Kafka record."""

    @property
    def key(self) -> bytes | None:
        """The key; None if the record has none."""

    @property
    def value(self) -> bytes | None:
        """The value; None in a tombstone."""

    @property
    def offset(self) -> int:
        """The offset in its partition."""

    @property
    def timestamp(self) -> int:
        """The append time in ms."""


Apply = Callable[[Database, Sequence[tuple[int, TopicRecord]]], int]
"""Writes (partition, record) of one topic, and returns how many of them are unreadable."""


def tables_of(topics: Topics) -> Mapping[str, Apply]:
    """Return how each topic is written."""
    return {
        topics.connections.name: _keyed("connection", _CONNECTION, 1, decode.connection_row),
        topics.session_links.name: _keyed("session_link", _LINK, 2, decode.link_row),
        topics.witness.name: witness,
        topics.activity.name: _keyed("activity", _ACTIVITY, 3, decode.activity_row),
        topics.deadletters.name: _dead_letters,
        topics.openai_days.name: _days,
        topics.reconciliation_days.name: _statements,
    }


def _replace(database: Database, table: str, names: Sequence[str], width: int, rows: Mapping[Any, Any]) -> None:
    """Replace rows by their keys (the first `width` columns); a value of None removes the key."""
    database.execute("{empty} staged_key")
    padded = [(*key, *[""] * (3 - width)) for key in rows]
    database.load("staged_key", ("a", "b", "c"), padded)
    # `IN` with a set, so that nothing depends on how a planner orders a join.
    own, theirs = ", ".join(names[:width]), ", ".join("abc"[:width])
    database.execute(f"DELETE FROM {table} WHERE ({own}) IN (SELECT {theirs} FROM staged_key)")
    database.load(table, names, [row for row in rows.values() if row is not None])


def _keyed(
    table: str, names: Sequence[str], width: int, row_of: Callable[[bytes], tuple[Any, ...]]
) -> Callable[[Database, Sequence[tuple[int, TopicRecord]]], int]:
    def apply(database: Database, records: Sequence[tuple[int, TopicRecord]]) -> int:
        rows: dict[tuple[str, ...], tuple[Any, ...] | None] = {}
        unreadable = 0
        for _, record in records:
            try:
                key = keys.split(record.key or b"")
                row = None if record.value is None else row_of(record.value)
                _check_key(key, width, key if row is None else row[:width])
            except ValueError:
                unreadable += 1
                continue
            rows[key] = row
        _replace(database, table, names, width, rows)
        return unreadable

    return apply


def _dead_letters(database: Database, records: Sequence[tuple[int, TopicRecord]]) -> int:
    rows: dict[tuple[str], tuple[Any, ...] | None] = {}
    unreadable = 0
    for partition, record in records:
        try:
            if record.value is None:
                rows[((record.key or b"").decode(),)] = None
                continue
            row = decode.dead_letter_row(record.value)
            _check_key(row[:1], 1, row[:1])
        except ValueError:
            unreadable += 1
            continue
        session = row[6] if row[6] is None else row[6][:300]
        rows[(row[0],)] = (*row[:6], session, row[7], partition, record.offset)
    _replace(database, "dead_letter", _LETTER, 1, rows)
    return unreadable


def _versioned(
    database: Database,
    records: Sequence[tuple[int, TopicRecord]],
    table: str,
    names: Sequence[str],
    row_of: Callable[[bytes], decode.VersionedRow],
) -> tuple[dict[tuple[str, ...], decode.VersionedRow | None], int]:
    """Return the rows that replace those of a table with three key columns `names`, and how many are unreadable."""
    rows: dict[tuple[str, ...], decode.VersionedRow | None] = {}
    unreadable = 0
    for _, record in records:
        try:
            key = keys.split(record.key or b"")
            row = None if record.value is None else row_of(record.value)
            _check_key(key, 3, key if row is None else row.key)
        except ValueError:
            unreadable += 1
            continue
        if row is None or key in rows:
            have = rows.get(key)
            if row is None or have is None or row.version >= have.version:
                rows[key] = row
            continue
        where = " AND ".join(f"{name} = ?" for name in names)
        known = database.rows(f"SELECT version FROM {table} WHERE {where}", key)
        if not known or row.version >= int(known[0][0]):
            rows[key] = row
    return rows, unreadable


def _days(database: Database, records: Sequence[tuple[int, TopicRecord]]) -> int:
    rows, unreadable = _versioned(database, records, "openai_day", _DAY, decode.day_row)
    _replace(database, "openai_day", (*_DAY, "version"), 3, {k: r and (*k, r.version) for k, r in rows.items()})
    for table in ("openai_billed", "openai_used"):
        database.execute(f"DELETE FROM {table} WHERE (day, model, project_id) IN (SELECT a, b, c FROM staged_key)")
    kept = [(key, row.day) for key, row in rows.items() if isinstance(row, decode.DayRow)]
    database.load(
        "openai_billed", (*_DAY, "resource", "usd", "polled_at"),
        [(*key, one.resource, one.usd, decode.iso(one.polled_at)) for key, day in kept for one in day.billed],
    )  # fmt: skip
    database.load(
        "openai_used", (*_DAY, "resource", "name", "amount", "polled_at"),
        [
            (*key, one.resource, name, amount, decode.iso(one.polled_at))
            for key, day in kept for one in day.used for name, amount in one.counts.items()
        ],
    )  # fmt: skip
    return unreadable


def _statements(database: Database, records: Sequence[tuple[int, TopicRecord]]) -> int:
    rows, unreadable = _versioned(database, records, "reconciled", _STATEMENT, decode.statement_row)
    kept = [(key, row) for key, row in rows.items() if isinstance(row, decode.StatementRow)]
    names = (*_STATEMENT, "version", *decode.STATEMENT_COLUMNS)
    written = {key: (*key, row.version, *row.columns) for key, row in kept}
    _replace(database, "reconciled", names, 3, {key: written.get(key) for key in rows})
    database.execute("DELETE FROM reconciled_cause WHERE (provider, scope, day) IN (SELECT a, b, c FROM staged_key)")
    database.load(
        "reconciled_cause", (*_STATEMENT, "cause", "usd"),
        [(*key, cause, usd) for key, row in kept for cause, usd in row.causes],
    )  # fmt: skip
    return unreadable


def _check_key(key: Sequence[str], width: int, own: Sequence[str]) -> None:
    """Raise ValueError for a key of another form, of another row than its value, or unfit for an index."""
    if len(key) != width or tuple(own) != tuple(key) or _unfit(key):
        raise ValueError("its key does not fit")


def _unfit(key: Iterable[str]) -> bool:
    """Tell whether a key is one that a database cannot put into an index."""
    return any("\0" in part or len(part.encode()) > MAX_KEY for part in key)
