"""Writes records into the ledger, together with the positions after them, in one transaction.

Promise: after any kill the ledger has the contents of the topics up to its positions. A repeated record does not change
anything, because rows are absolute and carry their version. Relies on: one writer at a time (`Database.try_lock`),
records of a partition in their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol

import orjson

from tallystream.agents.ledger import records as decode
from tallystream.agents.ledger.config import sources_of
from tallystream.agents.ledger.migrations import migrate, set_meta
from tallystream.agents.ledger.names import Names
from tallystream.agents.ledger.positions import identity_of, positions
from tallystream.agents.ledger.records import SessionHourRow, Unreadable
from tallystream.agents.ledger.small_topics import MAX_KEY, TopicRecord, tables_of
from tallystream.agents.ledger.staging import merge, merge_staged, prepare, stage
from tallystream.agents.ledger.store.database import Database
from tallystream.schemas import keys
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.follower import FollowerPosition
from tallystream.streams.kafka.topics import Topics

EXPIRE_ROWS = 10_000


class RecordBatch(Protocol):
    """Records of one partition in offset order, and the position after them."""

    @property
    def topic(self) -> str:
        """The topic's full name."""

    @property
    def partition(self) -> int:
        """The partition's number."""

    @property
    def records(self) -> Sequence[TopicRecord]:
        """The records."""

    @property
    def after(self) -> FollowerPosition:
        """The position after the last record."""


@dataclass
class Applied:
    """The result of a transaction: records by topic, rows that were newer than the stored ones, and skipped records."""

    records: dict[str, int] = field(default_factory=dict)
    rows: int = 0
    unreadable: int = 0


@dataclass(slots=True)
class _Newest:
    """The final state of one session-hour in a batch."""

    row: SessionHourRow
    gone: bool
    reset: bool
    partition: int
    offset: int
    timestamp: int


class Writer:
    """Writes the ledger in `database`, whose lock its caller holds. Every method blocks."""

    def __init__(self, database: Database, topics: Topics) -> None:
        self._database = database
        self._topics = topics
        self._names = Names(database)
        self._tables = tables_of(topics)

    @property
    def sources(self) -> tuple[str, ...]:
        """The topics that the ledger reads."""
        return tuple(topic.name for topic in sources_of(self._topics))

    def claim(self, identity: Identity) -> str:
        """Claim the database for this deployment; return why another deployment's was set aside, "" if none was.

        Raises:
            LedgerUnfitError: a newer release created it.

        """
        why = ""
        migrate(self._database)
        have = identity_of(self._database)
        if have is not None and (why := identity.difference(have)):
            self.set_aside()
        self._note(identity)
        self._names.forget()
        prepare(self._database)
        return why

    def set_aside(self) -> str:
        """Start an empty ledger; return the new place of the previous one."""
        name = self._database.set_aside()
        migrate(self._database)
        prepare(self._database)
        self._names.forget()
        return name

    def positions(self) -> dict[tuple[str, int], FollowerPosition]:
        """Return the position of each topic and partition in the ledger."""
        return positions(self._database)

    def apply(
        self, batches: Iterable[RecordBatch], reached: Mapping[tuple[str, int], FollowerPosition] | None = None
    ) -> Applied:
        """Apply batches; `reached` are positions reached without a record, across gaps."""
        done = Applied()
        after: dict[tuple[str, int], FollowerPosition] = {}
        rows: list[tuple[int, TopicRecord]] = []
        others: dict[str, list[tuple[int, TopicRecord]]] = {}
        for batch in batches:
            after[batch.topic, batch.partition] = batch.after
            done.records[batch.topic] = done.records.get(batch.topic, 0) + len(batch.records)
            mine = rows if batch.topic == self._topics.session_hour_rows.name else others.setdefault(batch.topic, [])
            mine.extend((batch.partition, record) for record in batch.records)
        for place, position in (reached or {}).items():
            if place not in after or position.offset > after[place].offset:
                after[place] = position
        try:
            with self._database.writing():
                if rows:
                    self._session_hours(rows, done)
                for topic, found in others.items():
                    done.unreadable += self._tables[topic](self._database, found)
                self._write_positions(after)
        except BaseException:
            self._names.forget()
            raise
        return done

    def expire(self, begins: Mapping[tuple[str, int], int]) -> int:
        """Remove rows whose records were removed by retention; `begins` has the first offset of each partition."""
        removed = 0
        rows, letters = self._topics.session_hour_rows.name, self._topics.deadletters.name
        for (topic, partition), begin in begins.items():
            if topic == letters:
                with self._database.writing():
                    removed += self._database.execute(
                        "DELETE FROM dead_letter WHERE partition = ? AND record_offset < ?", (partition, begin)
                    )
            if topic == self._topics.witness.name:
                with self._database.writing():
                    removed += self._database.execute(
                        "DELETE FROM witness WHERE partition = ? AND record_offset < ?", (partition, begin)
                    )
            if topic == rows:
                while found := self._expire_rows(partition, begin):
                    removed += found
            with self._database.writing():
                self._database.execute(
                    "DELETE FROM unreadable WHERE topic = ? AND partition = ? AND record_offset < ?",
                    (topic, partition, begin),
                )
        return removed

    def _expire_rows(self, partition: int, begin: int) -> int:
        try:
            with self._database.writing():
                stage(self._database, self._names, ())
                self._database.execute(
                    "INSERT INTO staged (n, hour, version, gone, reset, session, client)"
                    " SELECT row_number() OVER (ORDER BY h.session, h.hour), h.hour, h.version, 1, 0, h.session, ''"
                    " FROM session_hour h WHERE h.partition = ? AND h.record_offset < ?"
                    f" ORDER BY h.session, h.hour LIMIT {EXPIRE_ROWS}",
                    (partition, begin),
                )
                return merge_staged(self._database)
        except BaseException:
            self._names.forget()
            raise

    def _session_hours(self, rows: Sequence[tuple[int, TopicRecord]], done: Applied) -> None:
        newest: dict[tuple[str, str, int], _Newest] = {}
        broken: dict[bytes, tuple[Unreadable | None, int, int]] = {}
        for partition, record in rows:
            key, value = record.key or b"", record.value
            name = decode.session_hour_key(key)
            if value is None:
                broken[key] = (None, partition, record.offset)
                if name is not None:
                    gone = SessionHourRow(*name, -1, "", 0, ())
                    newest[name] = _Newest(gone, True, True, partition, record.offset, record.timestamp)
                continue
            row = decode.session_hour_row(key, value)
            if isinstance(row, Unreadable):
                done.unreadable += 1
                broken[key] = (row, partition, record.offset)
                if name is None or row.version is None:
                    continue
                # Its version counts but its content does not: the row that it replaces disappears from the cost tables,
                # too.
                row = SessionHourRow(*name, row.version, "", 0, ())
            assert name is not None
            have = newest.get(name)
            if have is None or have.gone or row.version >= have.row.version:
                reset = have is not None and have.reset
                newest[name] = _Newest(row, False, reset, partition, record.offset, record.timestamp)
        self._note_broken(broken, newest)
        stage(
            self._database, self._names,
            ((one.row, one.gone, one.reset, one.partition, one.offset, one.timestamp) for one in newest.values()),
        )  # fmt: skip
        done.rows += merge(self._database)

    def _note_broken(
        self, broken: Mapping[bytes, tuple[Unreadable | None, int, int]], newest: Mapping[tuple[str, str, int], _Newest]
    ) -> None:
        """Update the list of unreadable records; those replaced by a newer row or a tombstone are removed."""
        topic, database = self._topics.session_hour_rows.name, self._database
        if not broken and not database.rows("SELECT 1 FROM unreadable WHERE topic = ? LIMIT 1", (topic,)):
            return
        for key, (what, partition, offset) in broken.items():
            database.execute("DELETE FROM unreadable WHERE topic = ? AND record_key = ?", (topic, _short(key)))
            if what is not None:
                database.execute(
                    "INSERT INTO unreadable (topic, record_key, reason, detail, version, partition, record_offset)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (topic, _short(key), what.reason, what.detail.replace("\0", ""), what.version, partition, offset),
                )
        for name, one in newest.items():
            if one.row.client:
                database.execute(
                    "DELETE FROM unreadable WHERE topic = ? AND record_key = ? AND version <= ?",
                    (topic, _short(_key(name)), one.row.version),
                )

    def _write_positions(self, after: Mapping[tuple[str, int], FollowerPosition]) -> None:
        for (topic, partition), position in after.items():
            self._database.execute(
                "INSERT INTO ledger_position (topic, partition, next_offset, timestamp) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset,"
                " timestamp = excluded.timestamp",
                (topic, partition, position.offset, position.timestamp),
            )

    def _note(self, identity: Identity) -> None:
        with self._database.writing():
            set_meta(
                self._database,
                {
                    "cluster_id": identity.cluster_id,
                    "prefix": identity.prefix,
                    "topic_ids": orjson.dumps(dict(identity.topic_ids), option=orjson.OPT_SORT_KEYS).decode(),
                },
            )


def _key(name: tuple[str, str, int]) -> bytes:
    from tallystream.schemas.hours import hour_iso

    return keys.join(name[0], name[1], hour_iso(name[2]))


def _short(key: bytes) -> bytes:
    return key if len(key) <= MAX_KEY else sha256(key).digest()
