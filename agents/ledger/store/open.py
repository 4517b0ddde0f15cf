"""Opening the database of a place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystream.agents.ledger.config import LedgerPlace

if TYPE_CHECKING:
    from tallystream.agents.ledger.store.database import Database


def open_database(place: LedgerPlace, *, read_only: bool = False) -> Database:
    """Open the ledger of a place. Only the driver that is needed is imported: commands start with this.

    Raises:
        LedgerUnreachableError: it does not answer, or with `read_only` there is none.

    """
    if place.url is not None:
        from tallystream.agents.ledger.store.postgres import PostgresDatabase, schema_name

        return PostgresDatabase(place.url, schema_name(place.prefix), read_only=read_only)
    from tallystream.agents.ledger.store.sqlite import SQLiteDatabase

    return SQLiteDatabase(place.file, read_only=read_only)
