"""Salvages the readable rows of a damaged spool.

Rows were acknowledged to clients, so an unreadable page must cost only the rows on it: rows are first read in order up
to the damage, then one by one by id.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tallystream.streams.gateway.message import Message
from tallystream.streams.gateway.spool.file import Held

MAX_MISSES = 50_000
"""Consecutive ids without a row after which salvaging stops, because a table whose root page is lost does not find any
id."""
_MESSAGES = "SELECT id, at, topic, key, value, schema FROM messages"
_HELD = "SELECT id, at, ingest_sha256, provider, bearer_sha256, payload FROM quarantine"


@dataclass
class Salvaged:
    """The result. `lost` is the minimum number of unreadable rows; `complete`: everything could be read."""

    messages: list[tuple[int, Message]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    complete: bool = True


def salvage(path: Path) -> Salvaged:
    """Read all readable rows; a file that is not a database has none. Does not write to the file's tables."""
    found = Salvaged()
    try:
        db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
    except sqlite3.Error:
        return Salvaged(complete=False)
    with contextlib.closing(db):
        try:
            healthy = db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)
        except sqlite3.Error:
            healthy = False

        def broken() -> None:
            found.complete = False

        for row in _rows(db, "messages", _MESSAGES, broken):
            with contextlib.suppress(TypeError, ValueError, AttributeError):
                found.messages.append((int(row[1]), Message(str(row[2]), bytes(row[3]), bytes(row[4]), str(row[5]))))
        for row in _rows(db, "quarantine", _HELD, broken):
            found.held.append(Held(*row))
    found.complete = found.complete and healthy
    return found


def _rows(db: sqlite3.Connection, table: str, select: str, broken: Callable[[], None]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows in order and, after the first damage, those that can be found by their ids."""
    last = 0
    try:
        for row in db.execute(f"{select} NOT INDEXED ORDER BY id"):
            last = max(last, row[0])
            yield row
    except sqlite3.Error as exc:
        broken()
        if exc.sqlite_errorcode & 0xFF == sqlite3.SQLITE_NOTADB:
            return
    else:
        return
    end = None
    with contextlib.suppress(sqlite3.Error):
        end = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()[0]
    number = last
    while number < (last + MAX_MISSES if end is None else min(end, last + MAX_MISSES)):
        number += 1
        with contextlib.suppress(sqlite3.Error):
            if row := db.execute(f"{select} WHERE id = ?", (number,)).fetchone():
                last = number
                yield row
