"""Brings the ledger's tables to this release's version."""

from __future__ import annotations

from tallystream.agents.ledger import rollups
from tallystream.agents.ledger.errors import LedgerUnfitError
from tallystream.agents.ledger.names import name_key
from tallystream.agents.ledger.schema import CREW, MIGRATIONS, VERSION, VIEWS, views
from tallystream.agents.ledger.store.database import Database

_ROLLUPS = 5
"""The version that keeps the sums of hours and parts as they are now."""


def migrate(database: Database) -> bool:
    """Migrate the tables to this release's version in one transaction; return whether anything was done.

    Raises:
        LedgerUnfitError: a newer release created them.

    """
    with database.writing():
        if not database.tables():
            if database.dialect.name == "postgresql":
                schema = getattr(database, "schema", "")
                database.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            database.execute("CREATE TABLE ledger_meta (key {text} PRIMARY KEY, value {text} NOT NULL)")
        found = get_meta(database).get("schema_version", "0")
        have = int(found)
        if have > VERSION:
            raise LedgerUnfitError(
                f"the ledger in {database.where} is of a newer release (version {have}, this one knows {VERSION})",
                "run that release, or give this one an empty place with TALLYSTREAM_LEDGER",
            )
        if have == VERSION:
            return False
        for name in reversed(VIEWS):
            database.execute(f"DROP VIEW IF EXISTS {name}")
        for statements in MIGRATIONS[have:]:
            for statement in statements:
                database.execute(statement)
        if have < _ROLLUPS:
            _name_crews(database)
            rollups.fill(database)
        for name, text in views(database.dialect).items():
            database.execute(f"CREATE VIEW {name} AS {text}")
        set_meta(database, {"schema_version": str(VERSION)})
        return True


def _name_crews(database: Database) -> None:
    """Give each attribution its crew."""
    crews: dict[tuple[str | None, ...], int] = {}
    of = [
        (attribution, crews.setdefault(tuple(values), len(crews) + 1))
        for attribution, *values in database.rows(f"SELECT id, {', '.join(CREW)} FROM attribution ORDER BY id")
    ]
    database.execute("DELETE FROM crew")
    database.load("crew", ("id", *CREW, "key"), ((number, *one, name_key(one)) for one, number in crews.items()))
    database.execute("CREATE {temporary} TABLE named (attribution {int} PRIMARY KEY, crew {int})")
    database.load("named", ("attribution", "crew"), of)
    database.execute("UPDATE attribution SET crew = n.crew FROM named n WHERE n.attribution = attribution.id")
    database.execute("DROP TABLE named")


def get_meta(database: Database) -> dict[str, str]:
    """Return the ledger's metadata."""
    return {str(key): str(value) for key, value in database.rows("SELECT key, value FROM ledger_meta")}


def set_meta(database: Database, values: dict[str, str]) -> None:
    """Set metadata; call it within a transaction."""
    for key, value in values.items():
        database.execute(
            "INSERT INTO ledger_meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, value),
        )
