"""The ledger's statements of bills: the newest of each day, whatever the order, and causes that add up to it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.support.bills import cost, record, take
from tests.support.examples import examples
from tests.support.ledger_rows import batches

from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.config import LedgerPlace
from tallystream.agents.ledger.queries.sql import query
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.ledger.store.sqlite import SQLiteDatabase
from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.schemas import keys
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

TOPICS = Topics("law")
DAYS = ("2026-11-20", "2026-11-21")


def statement(day: str, amount: str, version: tuple[int, int]) -> dict[str, Any]:
    """Return what an agent says of a day that was billed so much for a product."""
    view = Reconciliation(Book())
    view.record(record("/organization/costs", day, [cost("whisper \0", amount), cost("gpt-5-codex, output", "3", 7)]))
    return take(view)["openai", "all", day] | {"version": list(version)}


versions = st.tuples(st.integers(0, 1), st.integers(0, 5))
amounts = st.decimals(0, 10**12, places=20, allow_nan=False).map(lambda amount: f"{amount:f}")
histories = st.lists(st.tuples(st.sampled_from(DAYS), st.none() | st.tuples(amounts, versions)), max_size=12)


def law(database: Database, history: list[tuple[str, Any]], sizes: list[int]) -> None:
    writer = Writer(database, TOPICS)
    writer.claim(Identity("cluster", "law", {}))
    for table in ("reconciled", "reconciled_cause", "ledger_position"):
        database.execute(f"DELETE FROM {table}")
    newest: dict[str, dict[str, Any]] = {}
    messages: list[tuple[bytes, bytes | None]] = []
    for day, what in history:
        said = None if what is None else statement(day, *what)
        messages.append((keys.join("openai", "all", day), None if said is None else orjson.dumps(said)))
        if said is None:
            newest.pop(day, None)
        elif day not in newest or said["version"] >= newest[day]["version"]:
            newest[day] = said
    for batch in batches(TOPICS.reconciliation_days.name, messages, sizes):
        writer.apply([batch])
    found = {
        str(day): rest
        for day, *rest in database.rows("SELECT day, state, bill_usd, difference_usd FROM reconciled_days")
    }
    assert {day: (state, Decimal(bill), Decimal(less)) for day, (state, bill, less) in found.items()} == {
        day: (said["state"], Decimal(said["bill_usd"]), Decimal(said["difference_usd"])) for day, said in newest.items()
    }  # fmt: skip
    causes: dict[str, dict[str, Decimal]] = {day: {} for day in newest}
    for day, cause, usd in database.rows("SELECT day, cause, usd FROM reconciled_causes"):
        causes[str(day)][str(cause)] = Decimal(usd)
    assert causes == {
        day: {name: Decimal(usd) for name, usd in said["causes"].items() if usd != "0"} for day, said in newest.items()
    }


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=3)


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories, sizes)
def test_sqlite_ledger_has_the_newest_statement_of_each_day(
    sqlite: Database, history: list[tuple[str, Any]], sizes: list[int]
) -> None:
    law(sqlite, history, sizes)


@examples(15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories, sizes)
def test_postgresql_ledger_has_the_newest_statement_of_each_day(
    postgresql: Database, history: list[tuple[str, Any]], sizes: list[int]
) -> None:
    law(postgresql, history, sizes)


def test_causes_are_added_exactly_in_sql(tmp_path: Path) -> None:
    place = LedgerPlace("law", tmp_path)
    database = SQLiteDatabase(place.file)
    law(database, [(DAYS[0], ("0.1", (0, 1))), (DAYS[1], ("0.20000000000000000001", (0, 1)))], [9])
    database.close()
    asked = "select cause, sum(usd) as usd from reconciled_causes group by cause order by cause"
    with query(place, asked) as result:
        found = {str(cause): Decimal(usd) for cause, usd in result.rows}
    assert found["no_token_line"] == Decimal("0.30000000000000000001")
