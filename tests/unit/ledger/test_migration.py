"""An older ledger is migrated to this release without losing data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tallystream.agents.ledger import schema
from tallystream.agents.ledger.store.sqlite import SQLiteDatabase


@pytest.mark.parametrize("have", range(1, schema.VERSION))
def test_older_ledger_is_migrated_without_losing_data(tmp_path: Path, have: int) -> None:
    fresh, older = SQLiteDatabase(tmp_path / "fresh.db"), SQLiteDatabase(tmp_path / "older.db")
    assert schema.migrate(fresh)
    with older.writing():
        older.execute("CREATE TABLE ledger_meta (key {text} PRIMARY KEY, value {text} NOT NULL)")
        for statements in schema.MIGRATIONS[:have]:
            for statement in statements:
                older.execute(statement)
        older.execute("INSERT INTO session (connection_id, session_id, requests) VALUES ('codex-1', 's', 7)")
        schema.set_meta(older, {"schema_version": str(have)})
    assert schema.migrate(older)
    assert not schema.migrate(older)
    assert older.rows("SELECT requests, inconsistent FROM session") == [(7, 0)]
    for (table,) in fresh.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
        assert columns(older, table) == columns(fresh, table)
    fresh.close()
    older.close()


def columns(database: SQLiteDatabase, table: str) -> set[Any]:
    return {row[1] for row in database.rows(f"PRAGMA table_info({table})")}
