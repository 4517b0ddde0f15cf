"""Writes statements of witnesses: each once, and of a cumulative count the highest of its hour.

So a copy, a repetition after a crash and the order of messages change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from tallystream.agents.ledger.records import MAX_COUNT
from tallystream.agents.ledger.store.database import Database
from tallystream.schemas import keys
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.witness import WitnessBatch

_KEY = ("connection_id", "session_id", "source", "id", "hour")
_COLUMNS = (
    *_KEY, "client", "version", "cumulative", "input_tokens", "output_tokens", "partition", "record_offset",
)  # fmt: skip
_INPUT, _OUTPUT = _COLUMNS.index("input_tokens"), _COLUMNS.index("output_tokens")


class _Record(Protocol):
    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def offset(self) -> int: ...


def apply(database: Database, records: Sequence[tuple[int, _Record]]) -> int:
    """Write records of `usage.witness`, given with their partitions; return how many are unreadable."""
    rows: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    unreadable = 0
    for partition, record in records:
        try:
            found = _rows(record.key or b"", record.value or b"", partition, record.offset)
        except ValueError:
            unreadable += 1
            continue
        for row in found:
            key = row[: len(_KEY)]
            rows[key] = _higher(rows[key], row) if key in rows else row
    database.execute("{empty} staged_witness")
    database.load("staged_witness", _COLUMNS, rows.values())
    highest = ", ".join(
        f"{name} = CASE WHEN excluded.{name} > witness.{name} THEN excluded.{name} ELSE witness.{name} END"
        for name in ("input_tokens", "output_tokens")
    )
    database.execute(
        f"INSERT INTO witness ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} FROM staged_witness WHERE true"
        f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {highest}, version = excluded.version,"
        " partition = excluded.partition, record_offset = excluded.record_offset"
    )
    return unreadable


def _rows(key: bytes, value: bytes, partition: int, offset: int) -> list[tuple[Any, ...]]:
    """Return the rows of a message.

    Raises:
        ValueError: it is not a WitnessBatch of this key that a database can hold.

    """
    try:
        batch = WitnessBatch.model_validate_json(value)
    except ValidationError as exc:
        raise ValueError(f"{exc.error_count()} fields are invalid") from None
    if keys.split(key) != (batch.connection_id, batch.session_id):
        raise ValueError("its key does not fit")
    if "\0" in batch.connection_id + batch.session_id + batch.client + batch.version:
        raise ValueError("a database cannot hold it")
    if any(max(one.input, one.output) >= MAX_COUNT for one in batch.statements):
        raise ValueError("a count is too large")
    return [
        (
            batch.connection_id, batch.session_id, one.source, one.id, one.at // HOUR_NS, batch.client, batch.version,
            int(one.cumulative), one.input, one.output, partition, offset,
        )
        for one in batch.statements
    ]  # fmt: skip


def _higher(first: tuple[Any, ...], later: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the later row with the higher counts of both."""
    counts = max(first[_INPUT], later[_INPUT]), max(first[_OUTPUT], later[_OUTPUT])
    return (*later[:_INPUT], *counts, *later[_OUTPUT + 1 :])
