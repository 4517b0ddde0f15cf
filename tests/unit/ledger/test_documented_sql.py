"""Every SQL statement of docs/ledger.md runs as it is written, on the databases that it is for."""

from __future__ import annotations

import re
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo
from tests.support.ledger_rows import HOUR0, batches, bucket, row
from tests.support.postgres import PostgresServer

from tallystream.agents.cost_query import Query
from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.config import LedgerPlace
from tallystream.agents.ledger.queries.cost import cost_table
from tallystream.agents.ledger.queries.sql import query
from tallystream.agents.ledger.store.open import open_database
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "ledger.md").read_text()
FOR_ALL = re.findall(r'^    tallystream sql "(.*?)"', PAGE, re.MULTILINE)
BLOCKS = re.findall(r"(?:^    .*\n)+", PAGE.split("## Metabase and Grafana")[1].split("\n## ")[0], re.MULTILINE)
GRANTS = [block for block in BLOCKS if "CREATE ROLE" in block]
QUESTIONS = [block for block in BLOCKS if block.lstrip().startswith("SELECT")]
TOPICS = Topics("tallystream")
USD = 10**12


def filled(place: LedgerPlace) -> None:
    database = open_database(place)
    writer = Writer(database, TOPICS)
    writer.claim(Identity("cluster", "tallystream", {}))
    history = [
        row("s1", HOUR0, [0, 1], [bucket("m1", 2 * USD, attribution={"team": "a"}, requests=3)]),
        row("s2", HOUR0 + 1, [0, 2], [bucket("m2", USD // 4, attribution={"team": "b"})]),
    ]
    for batch in batches(TOPICS.session_hour_rows.name, history, [2]):
        writer.apply([batch])
    database.close()


def cost_by_day(place: LedgerPlace) -> dict[tuple[str, str], Decimal]:
    """The costs of each day and team as `cost hours --by team` has them."""
    database, found = open_database(place, read_only=True), defaultdict[tuple[str, str], Decimal](Decimal)
    with database.reading():
        for one in cost_table(database, Query("hours", by=("team",))).rows((HOUR0 + 9) * HOUR_NS):
            found[one["hour"][:10], one["team"]] += Decimal(one["cost_usd"])
    database.close()
    return dict(found)


def check(place: LedgerPlace) -> None:
    filled(place)
    assert len(FOR_ALL) >= 3
    for statement in FOR_ALL:
        with query(place, statement) as found:
            rows = list(found.rows)
        assert rows or "dead_letter" in statement, statement
    with query(place, FOR_ALL[0]) as found:
        assert [str(one[0]) for one in found.rows] == ["a", "b"]


def test_statements_for_both_run_on_sqlite(tmp_path: Path) -> None:
    check(LedgerPlace("tallystream", tmp_path))


def test_statements_run_on_postgresql_and_a_reader_can_only_read(postgres: PostgresServer, tmp_path: Path) -> None:
    url = postgres.new_database()
    check(LedgerPlace("tallystream", tmp_path, url))
    (grants,) = GRANTS
    with psycopg.connect(url, autocommit=True) as owner:
        try:
            for statement in grants.split(";\n"):
                owner.execute(statement.encode())
            owner.execute("CREATE TABLE tallystream.of_a_later_release (answer int)")
            with psycopg.connect(make_conninfo(url, user="reader")) as reader:
                assert reader.execute("SELECT answer FROM tallystream.of_a_later_release").fetchall() == []
                between = f"hour BETWEEN '{hour_iso(HOUR0)}' AND '{hour_iso(HOUR0 + 1)}'"
                assert len(QUESTIONS) >= 2
                for question in QUESTIONS:
                    asked = question.replace("$__timeFilter(hour)", between)
                    rows = reader.execute(asked.encode()).fetchall()
                    assert sorted(float(one[-1]) for one in rows) == [0.25, 2.0], question
                (by_day,) = (one for one in QUESTIONS if " AS day" in one)
                found = {(f"{day}", team): usd for day, team, usd in reader.execute(by_day.encode()).fetchall()}
                assert found == cost_by_day(LedgerPlace("tallystream", tmp_path, url))
            with psycopg.connect(make_conninfo(url, user="reader"), autocommit=True) as reader:
                for forbidden in ("DELETE FROM tallystream.bucket", "CREATE TABLE tallystream.x (y int)"):
                    refused = False
                    try:
                        reader.execute(forbidden)
                    except psycopg.errors.InsufficientPrivilege:
                        refused = True
                    assert refused, forbidden
        finally:
            owner.execute("DROP OWNED BY reader")
            owner.execute("DROP ROLE reader")
