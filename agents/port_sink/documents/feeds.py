"""The topics that the sink reads, and the rows of their records in the local copy.

    S|connection|session|hour                   a row of cost.session-hours
    M|provider|model, N|connection              models, with their newest hour, and connections, with their client
    H|hour|model|partition|connection|team      a partial of cost.hours, so that rows that are added up are adjacent
    C|connection, A|connection|signal|gateway   connections, activity
    R|resource|query|bucket                     openai.records
    D|day|model|project                         openai.days
    B|day|provider|scope                        reconciliation.days, so that the scopes of a day are adjacent

Versions decide as each topic's own rule says: rows by `version`, records by `polled_at`, the rest by offset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson
from aiokafka import ConsumerRecord

from tallystream.schemas import keys
from tallystream.schemas.connections import Activity, Connection
from tallystream.schemas.hours import hour_from_iso
from tallystream.schemas.reconciliation import ReconciledDay
from tallystream.schemas.versions import find_version
from tallystream.streams.kafka.global_table import Feed, TableRow
from tallystream.streams.kafka.topics import Topics

_POLLED = re.compile(rb'"polled_at":"([^"]+)"')
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SessionHourFeed:
    """cost.session-hours."""

    topic: str

    def rows(self, record: ConsumerRecord) -> Iterator[TableRow]:
        """Return the row, and the models and the connection it names."""
        yield (row := _row(b"S|", record))
        if row.value is None:
            return
        found = orjson.loads(row.value)
        yield TableRow(b"N|" + keys.join(found["connection_id"]), (0, 0), found["client"].encode())
        hour = found["hour"]
        for model in {bucket["model"] for bucket in found["buckets"]}:
            yield TableRow(b"M|" + keys.join(found["provider"], model), (hour_from_iso(hour), 0), hour.encode())


@dataclass(frozen=True)
class HourFeed:
    """cost.hours."""

    topic: str

    def rows(self, record: ConsumerRecord) -> Iterator[TableRow]:
        """Return the partial."""
        row = _row(b"", record)
        partition, connection, hour, model, team = row.key.split(b"|")
        yield row._replace(key=b"|".join((b"H", hour, model, partition, connection, team)))


@dataclass(frozen=True)
class LatestFeed:
    """A topic in which the latest record of a key is valid. `key_of` returns the key of a value."""

    topic: str
    prefix: bytes
    key_of: Callable[[bytes], bytes]
    """Raises ValueError for an invalid value, because readers of the rows rely on their format."""

    def rows(self, record: ConsumerRecord) -> Iterator[TableRow]:
        """Return the record as it is."""
        if not record.key:
            raise ValueError("no key")
        if record.value is not None and self.key_of(record.value) != record.key:
            raise ValueError("not the key of this value")
        yield TableRow(self.prefix + record.key, (0, record.offset), record.value)


@dataclass(frozen=True)
class RecordFeed:
    """openai.records."""

    topic: str

    def rows(self, record: ConsumerRecord) -> Iterator[TableRow]:
        """Return the record; the newest poll is valid."""
        if not record.key:
            raise ValueError("no key")
        version = (0, 0) if record.value is None else (polled_us(record.value), record.offset)
        yield TableRow(b"R|" + record.key, version, record.value)


@dataclass(frozen=True)
class DayFeed:
    """openai.days."""

    topic: str

    def rows(self, record: ConsumerRecord) -> Iterator[TableRow]:
        """Return the row."""
        yield _row(b"D|", record)


@dataclass(frozen=True)
class StatementFeed:
    """reconciliation.days."""

    topic: str

    def rows(self, record: ConsumerRecord) -> Iterator[TableRow]:
        """Return the statement."""
        row = _row(b"", record)
        provider, scope, day = row.key.split(b"|")
        if record.value is not None and ReconciledDay.model_validate_json(record.value).key != record.key:
            raise ValueError("not the key of this value")
        yield row._replace(key=b"|".join((b"B", day, provider, scope)))


def feeds(topics: Topics) -> list[Feed]:
    """Return all feeds of documents."""
    return [
        SessionHourFeed(topics.session_hour_rows.name),
        HourFeed(topics.hour_rows.name),
        LatestFeed(topics.connections.name, b"C|", _connection_key),
        LatestFeed(topics.activity.name, b"A|", _activity_key),
        RecordFeed(topics.openai_records.name),
        DayFeed(topics.openai_days.name),
        StatementFeed(topics.reconciliation_days.name),
    ]


def _connection_key(value: bytes) -> bytes:
    return keys.join(Connection.model_validate_json(value).connection_id)


def _activity_key(value: bytes) -> bytes:
    one = Activity.model_validate_json(value)
    return keys.join(one.connection_id, one.signal, one.gateway)


def polled_us(value: bytes) -> int:
    """Return `polled_at` of an OpenAIRecord in µs since the epoch, without decoding its rows.

    Raises:
        ValueError: it has no `polled_at`.

    """
    found = _POLLED.search(value)
    text = found[1].decode() if found else orjson.loads(value)["polled_at"]
    since = datetime.fromisoformat(text) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _row(prefix: bytes, record: ConsumerRecord) -> TableRow:
    if not record.key:
        raise ValueError("no key")
    if record.value is None:
        return TableRow(prefix + record.key, (0, 0), None)
    version = find_version(record.value)
    if version is None:
        raise ValueError("no version")
    return TableRow(prefix + record.key, version, record.value)
