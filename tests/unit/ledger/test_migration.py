"""An older ledger is migrated to this release without losing data."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.ledger_rows import HOUR0, batches, bucket, expected, row
from tests.support.postgres import PostgresServer

from tallystream.agents.cost_query import Query
from tallystream.agents.ledger import schema
from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.migrations import migrate, set_meta
from tallystream.agents.ledger.queries.cost import cost_table
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.ledger.store.postgres import PostgresDatabase
from tallystream.agents.ledger.store.sqlite import SQLiteDatabase
from tallystream.schemas.hours import HOUR_NS
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

NOW = (HOUR0 + 40) * HOUR_NS
TOPICS = Topics("law")
KEPT = ("line", "kind", "session", "session_hour", "bucket", "session_model")
"""Tables whose columns are the same in version 4 and later."""


def older_tables(database: Database, have: int) -> None:
    if isinstance(database, PostgresDatabase):
        database.execute(f'CREATE SCHEMA "{database.schema}"')
    database.execute("CREATE TABLE ledger_meta (key {text} PRIMARY KEY, value {text} NOT NULL)")
    for statements in schema.MIGRATIONS[:have]:
        for statement in statements:
            database.execute(statement)
    set_meta(database, {"schema_version": str(have)})


@pytest.mark.parametrize("have", range(1, schema.VERSION))
def test_older_ledger_is_migrated_without_losing_data(tmp_path: Path, have: int) -> None:
    fresh, older = SQLiteDatabase(tmp_path / "fresh.db"), SQLiteDatabase(tmp_path / "older.db")
    assert migrate(fresh)
    with older.writing():
        older_tables(older, have)
        older.execute("INSERT INTO session (connection_id, session_id, requests) VALUES ('codex-1', 's', 7)")
    assert migrate(older)
    assert not migrate(older)
    assert older.rows("SELECT requests, inconsistent FROM session") == [(7, 0)]
    for (table,) in fresh.rows("SELECT name FROM sqlite_master WHERE type = 'table'"):
        assert set(columns_of(older, table)) == set(columns_of(fresh, table))
    fresh.close()
    older.close()


def test_sqlite_sums_are_made_from_what_an_older_ledger_has(tmp_path: Path) -> None:
    check(SQLiteDatabase(tmp_path / "fresh.db"), SQLiteDatabase(tmp_path / "older.db"))


def test_postgresql_sums_are_made_from_what_an_older_ledger_has(postgres: PostgresServer) -> None:
    url = postgres.new_database()
    check(PostgresDatabase(url, "fresh"), PostgresDatabase(url, "older"))


def check(fresh: Database, older: Database) -> None:
    who = [{}, {"team": "a", "agent": "review"}, {"team": "a", "billing": "plan", "user": "u1"}, {"user": "u2"}]
    history = [
        row(f"s{hour % 3}", HOUR0 + hour * 5, [0, hour], [
            bucket("m1", 10**15 + hour, attribution=who[hour % 4]),
            bucket("m2", None if hour % 2 else 7, attribution=who[(hour + 1) % 4], reported_cost_usd="0.5"),
        ])
        for hour in range(8)
    ]  # fmt: skip
    writer = Writer(fresh, TOPICS)
    writer.claim(Identity("cluster", "law", {}))
    for batch in batches(TOPICS.session_hour_rows.name, history, [3]):
        writer.apply([batch])
    with older.writing():
        older_tables(older, 4)
        for kept in KEPT:
            names = columns_of(fresh, kept)
            older.load(kept, names, fresh.rows(f"SELECT {', '.join(names)} FROM {kept}"))
        names = [name for name in columns_of(fresh, "attribution") if name != "crew"]
        found = fresh.rows(f"SELECT {', '.join(names)} FROM attribution")
        older.load("attribution", (*names, "team_id"), ((*one, 1) for one in found))
    writer = Writer(older, TOPICS)
    writer.claim(Identity("cluster", "law", {}))
    later = row(
        "s1", HOUR0 + 5, [1, 0], [bucket("m1", 3, attribution=who[1]), bucket("m9", 4, attribution={"env": "x"})]
    )
    for step in ([], [later]):
        for key, value in step:
            history.append((key, value))
            writer.apply(batches(TOPICS.session_hour_rows.name, [(key, value)], [1]))
        for query in (
            Query("hours"), Query("models"), Query("sessions", by=("agent",)), Query("models", since=HOUR0 + 7),
            Query("models", by=("team", "user")), Query("hours", by=("billing",)), Query("sessions"),
        ):  # fmt: skip
            with older.reading():
                table = cost_table(older, query)
            want = expected(history, query)
            assert list(table.rows(NOW)) == list(want.rows(NOW))
            assert table.plan == want.plan
    fresh.close()
    older.close()


def columns_of(database: Database, table: str) -> list[str]:
    if isinstance(database, SQLiteDatabase):
        return [str(row[1]) for row in database.rows(f"PRAGMA table_info({table})")]
    return [
        str(name)
        for (name,) in database.rows(
            "SELECT column_name FROM information_schema.columns WHERE table_schema = 'fresh' AND table_name = ?"
            " ORDER BY ordinal_position",
            (table,),
        )
    ]
