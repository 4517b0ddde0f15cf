"""Both databases of the ledger, empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.postgres import PostgresServer

from tallystream.agents.ledger.store.database import Database
from tallystream.agents.ledger.store.postgres import PostgresDatabase
from tallystream.agents.ledger.store.sqlite import SQLiteDatabase


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    yield database
    database.close()


@pytest.fixture
def postgresql(postgres: PostgresServer) -> Iterator[Database]:
    database = PostgresDatabase(postgres.new_database(), "law")
    yield database
    database.close()
