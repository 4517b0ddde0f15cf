"""The ledger's Grafana dashboard: its queries on a real PostgreSQL must give the figures of the rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.ledger_rows import HOUR0, batches, bucket, row
from tests.support.postgres import PostgresServer

from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.store.postgres import PostgresDatabase
from tallystream.schemas.hours import hour_iso
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

TOPICS = Topics("acme")
BOARD = Path(__file__).resolve().parents[3] / "deploy" / "grafana" / "postgresql" / "ledger.json"
USD = 10**12


def targets() -> dict[str, dict[str, Any]]:
    panels = [panel for panel in json.loads(BOARD.read_text())["panels"] if panel["type"] != "row"]
    return {panel["title"]: panel["targets"][0] for panel in panels}


def filled(sql: str, first: int, last: int) -> str:
    """Replace what Grafana replaces: the time range and the variable."""
    between = f"BETWEEN '{hour_iso(first)}' AND '{hour_iso(last)}'"
    for column in ("hour", "day::timestamp"):
        sql = sql.replace(f"$__timeFilter({column})", f"{column} {between}")
    sql = sql.replace("${prefix}", "acme")
    assert "$" not in sql
    return sql


@pytest.fixture
def answers(postgres: PostgresServer) -> Iterator[dict[str, list[tuple[Any, ...]]]]:
    url = postgres.new_database()
    database = PostgresDatabase(url, "acme")
    writer = Writer(database, TOPICS)
    writer.claim(Identity("cluster", "acme", {}))
    history = [
        row("s1", HOUR0, [0, 1], [bucket("m1", 2 * USD, attribution={"team": "a", "repo": "x"}, requests=3)]),
        row("s1", HOUR0 + 1, [0, 2], [bucket("m1", USD, attribution={"team": "a", "repo": "y", "agent": "review"})]),
        row("s2", HOUR0 + 1, [0, 3], [bucket("m2", USD // 4), bucket("m3", None, unpriced_requests=1)]),
        row("s3", HOUR0 + 90, [0, 4], [bucket("m1", 50 * USD)]),
    ]
    for batch in batches(TOPICS.session_hour_rows.name, history, [2]):
        writer.apply([batch])
    database.close()
    with psycopg.connect(url) as connection:
        yield {
            title: connection.execute(filled(target["rawSql"], HOUR0, HOUR0 + 24).encode()).fetchall()
            for title, target in targets().items()
        }


def test_ledger_panels_show_the_figures_of_the_range(answers: dict[str, list[tuple[Any, ...]]]) -> None:
    assert answers["Cost"] == [(3.25,)]
    assert answers["Requests"] == [(6.0,)]
    assert answers["Without a price"] == [(1.0,)]
    assert answers["Sessions"] == [(2,)]
    assert answers["Cost by team"] == [("a", 3.0), ("none", 0.25)]
    assert answers["Cost by repository"] == [("x", 2.0), ("y", 1.0), ("none", 0.25)]
    assert answers["Cost by agent"] == [("none", 2.25), ("review", 1.0)]
    assert [(model, value) for _, model, value in answers["Cost per hour, by model"] if value] == [
        ("m1", 2.0), ("m1", 1.0), ("m2", 0.25),
    ]  # fmt: skip
    assert [session[1:4] for session in answers["Most expensive sessions"]] == [("s1", 3.0, 4.0), ("s2", 0.25, 2.0)]
    assert [model[1:4:2] for model in answers["Models"]] == [("m1", 3.0), ("m2", 0.25), ("m3", None)]
    assert answers["Dead letters"] == answers["Billed by OpenAI"] == []


def test_ledger_queries_use_the_selected_data_source_and_format() -> None:
    for title, target in targets().items():
        assert target["datasource"] == {"type": "grafana-postgresql-datasource", "uid": "${ledger}"}
        assert target["format"] == ("time_series" if title == "Cost per hour, by model" else "table")
