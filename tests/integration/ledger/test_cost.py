"""`cost`, `sql` and `export` with the ledger: when it is used and when not, and that the results are equal."""

from __future__ import annotations

import asyncio
import csv
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tests.integration.cli.conftest import Cli
from tests.support.ledger import LedgerProcess
from tests.support.ledger_rows import HOUR0, bucket, row
from tests.support.topics import produce
from tests.support.waiting import eventually

from tallystream.agents.ledger.config import LedgerPlace
from tallystream.agents.ledger.store.open import open_database
from tallystream.agents.pricing import Book
from tallystream.console.build import Sight, session_detail
from tallystream.console.models import SessionDetail
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.reconciliation import Causes, ReconciledDay, TierLine
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka
HUGE = 7 * 10**18
"""Pico-dollars; the sum of two of them exceeds 64 bits."""


def write(kafka: KafkaSettings, topics: Topics, found: list[tuple[bytes, bytes | None]]) -> None:
    async def all_of_them() -> None:
        await ensure(kafka, (topics.session_hour_rows,))
        await produce(kafka, topics.session_hour_rows.name, [(key, value, 0) for key, value in found])

    asyncio.run(all_of_them())


@pytest.fixture
def ledger(kafka: KafkaSettings, topics: Topics, tmp_path: Path) -> Iterator[LedgerProcess]:
    write(
        kafka,
        topics,
        [
            row("s1", HOUR0, [0, 1], [bucket("m1", HUGE, attribution={"team": "a"})]),
            row("s1", HOUR0 + 30, [0, 2], [bucket("m1", HUGE, attribution={"team": "a"}), bucket("=m2", None)]),
            row("s2", HOUR0 + 1, [0, 3], [bucket("m1", 1, attribution={"team": "b"})]),
        ],
    )
    process = LedgerProcess(kafka, topics, tmp_path)
    process.start()
    process.caught_up()
    yield process
    process.kill()


def test_cost_reads_the_topics_while_the_ledger_is_behind(
    kafka: KafkaSettings,
    topics: Topics,
    ledger: LedgerProcess,
    cli: Cli,
    tmp_path: Path,
) -> None:
    assert ledger.stop() == 0
    truth = cli("cost", "models", "--json", "--from-topics").document["rows"]
    assert cli("cost", "models", "--json").document["rows"] == truth
    # A value that is not in the topics shows that the ledger was read.
    with sqlite3.connect(tmp_path / "ledger" / f"{topics.prefix}.db") as database:
        database.execute("UPDATE day_total SET requests = requests + 1000")
    database.close()
    assert cli("cost", "models", "--json").document["rows"] != truth
    assert cli("cost", "models", "--json", "--from-topics").document["rows"] == truth
    write(kafka, topics, [row("s3", HOUR0, [0, 4], [bucket("m3", 5)])])
    models = {one["model"]: one["requests"] for one in cli("cost", "models", "--json").document["rows"]}
    assert models == {"m1": 3, "=m2": 1, "m3": 1}


def test_cost_imports_only_what_the_ledger_needs(kafka: KafkaSettings, ledger: LedgerProcess, tmp_path: Path) -> None:
    """They take longer to import than the ledger to answer."""
    argv = ["cost", "models", "--kafka", kafka.bootstrap, "--data-dir", str(tmp_path)]
    program = (
        f"import sys, tallystream.cli as cli\ntry:\n    cli.main({argv})\nexcept SystemExit as ended:\n"
        "    print('\\n'.join(sys.modules), file=sys.stderr); raise"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=ledger.environment
    )
    assert "=m2" in done.stdout
    imported = set(done.stderr.split())
    assert "tallystream.agents.ledger.queries.cost" in imported
    slow = {"aiohttp", "faust", "filelock", "opentelemetry", "psycopg", "rich.progress", "structlog"}
    assert slow & imported == set()


def test_cost_reads_the_topics_if_the_ledger_cannot_store_a_row(
    kafka: KafkaSettings,
    topics: Topics,
    ledger: LedgerProcess,
    cli: Cli,
) -> None:
    write(kafka, topics, [row("s4", HOUR0, [0, 9], [bucket("m1", 1, requests=2**60)])])
    assert ledger.stop() == 0
    ledger.start()
    ledger.caught_up()
    found = {one["session_id"]: one["requests"] for one in cli("cost", "sessions", "--json").document["rows"]}
    assert found["s4"] == 2**60


def test_children_are_added_to_the_session_that_started_them(
    kafka: KafkaSettings, topics: Topics, ledger: LedgerProcess, cli: Cli, tmp_path: Path
) -> None:
    """From the ledger and from the topics alike; the console's page reads the same links."""
    link = {"connection_id": "codex-1a2b", "session_id": "s2", "parent_session_id": "s1"}

    async def tell() -> None:
        await ensure(kafka, (topics.session_links,))
        await produce(kafka, topics.session_links.name, [(b"codex-1a2b|s2", json.dumps(link).encode(), 0)])

    asyncio.run(tell())
    for where in ((), ("--from-topics",)):
        rows = cli("cost", "sessions", "--with-children", "--json", *where).document["rows"]
        assert {(one["session_id"], tuple(one["children"])) for one in rows} == {("s1", ("s2",)), ("s1", ())}
        assert sum(Decimal(one["cost_usd"] or 0) for one in rows) == Decimal("14000000.000000000001")
    assert cli("cost", "models", "--with-children").code == 2
    assert ledger.stop() == 0  # so that it finds the new topic at once
    ledger.start()

    def page(session: str) -> SessionDetail:
        database = open_database(LedgerPlace(topics.prefix, tmp_path / "ledger"), read_only=True)
        with database.reading():
            shown = session_detail(Sight(database, (HOUR0 + 40) * HOUR_NS), Book(), "codex-1a2b", session)
        database.close()
        assert shown is not None
        return shown

    eventually(lambda: page("s1").children, "the ledger has the link")
    found, child = page("s1"), page("s2")
    assert [(one.session_id, one.depth, one.cost_usd) for one in found.children] == [("s2", 1, "0.000000000001")]
    assert found.with_children is not None
    assert found.with_children.cost_usd == "14000000.000000000001"
    assert (child.parents, child.children, child.with_children) == (["s1"], [], None)


@pytest.mark.usefixtures("ledger")
def test_sql_is_read_only_and_exact(cli: Cli) -> None:
    rows = cli("sql", "select session_id, cost_usd from sessions order by cost_usd desc", "--json").document["rows"]
    assert rows == [{"session_id": "s1", "cost_usd": "14000000"}, {"session_id": "s2", "cost_usd": "0.000000000001"}]
    total = cli("sql", "select sum(cost_usd) as all_of_it from session_hours where cost_usd > 0", "--json").document
    assert total["rows"] == [{"all_of_it": "14000000.000000000001"}]
    overflow = cli("sql", "select cost_pico from sessions", "--json")
    assert overflow.code == 2
    assert "integer overflow" in overflow.err
    assert cli("sql", "select model from models order by 1", "--csv").out.splitlines() == ["model", "'=m2", "m1"]
    for forbidden in (
        "delete from session", "drop table session", "attach 'x' as y", "pragma query_only=off", "vacuum into '/tmp/x'",
        "with x as (select 1) insert into team select 9, 'x', 'x'", "select load_extension('x')",
        "select 1; delete from session",
    ):  # fmt: skip
        assert cli("sql", forbidden, "--json").code == 2, forbidden
    assert cli("sql", "select count(*) as n from sessions", "--json").document["rows"] == [{"n": 2}]


@pytest.mark.usefixtures("ledger")
def test_repeated_export_writes_no_duplicates(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "files"
    for _ in range(2):
        said = cli("export", "--format", "parquet", "--out", str(out), "--json").document
        assert (said["days"], said["rows"]) == (2, 4)
    table = pq.read_table(out)
    assert table.num_rows == 4
    assert str(table.schema.field("cost_usd").type) == "decimal128(38, 12)"
    assert sum(one for one in table["cost_usd"].to_pylist() if one is not None) == Decimal("14000000.000000000001")
    assert sorted(path.name for path in out.iterdir()) == ["day=2026-06-21", "day=2026-06-22"]
    assert cli("export", "--format", "csv", "--out", str(out), "--since", "2026-06-22", "--json").document["days"] == 1
    with (out / "day=2026-06-22" / "session-hours.csv").open(newline="") as file:
        assert [one["model"] for one in csv.DictReader(file)] == ["m1", "'=m2"]
    assert not [path for path in out.rglob(".*") if path.is_file()]


@pytest.mark.usefixtures("ledger")
def test_focus_files_contain_the_bill_if_complete_else_the_estimate(
    kafka: KafkaSettings, topics: Topics, cli: Cli, tmp_path: Path
) -> None:
    def total(*options: str) -> tuple[Decimal, set[str]]:
        out = tmp_path / "focus"
        said = cli("export", "--format", "focus", "--out", str(out), "--json", *options).document
        found = pq.read_table(list(out.glob("day=*/focus.parquet")), columns=["BilledCost", "x_CostBasis"]).to_pylist()
        assert said["rows"] == len(found)
        texts = [one for path in out.glob("day=*/focus.csv") for one in csv.DictReader(path.read_text().splitlines())]
        assert sum(Decimal(one["BilledCost"]) for one in texts) == sum(one["BilledCost"] for one in found)
        return sum((one["BilledCost"] for one in found), Decimal(0)), {one["x_CostBasis"] for one in found}

    estimates = Decimal("14000000.000000000001")
    assert total() == (estimates, {"estimate", "unpriced"})
    bill = reconciled("2026-06-21", connections=["codex-1a2b"], bill_usd="7000001.25")

    async def publish() -> None:
        await ensure(kafka, (topics.reconciliation_days,))
        await produce(kafka, topics.reconciliation_days.name, [(b"openai|all|2026-06-21", bill, 0)])

    asyncio.run(publish())
    assert total() == (Decimal("14000001.25"), {"estimate", "unpriced", "reconciled"})
    assert total("--basis", "estimate", "--focus", "1.2") == (estimates, {"estimate", "unpriced"})


def reconciled(day: str, *, connections: list[str], bill_usd: str) -> bytes:
    """Return a statement of a day whose bill is one line that is not for tokens."""
    none = dict.fromkeys(Causes.model_fields, "0")
    line: dict[str, Any] = dict.fromkeys(TierLine.model_fields) | {
        "tier": "standard", "seen_tokens": 0, "placed_tokens": 0, "amount_usd": bill_usd,
    }  # fmt: skip
    cell = {
        "model": None, "kind": None, "window": None, "product": "web search tool calls", "bill_usd": bill_usd,
        "estimate_usd": "0", "difference_usd": bill_usd, "causes": none | {"no_token_line": bill_usd}, "tiers": [line],
    }  # fmt: skip
    statement: dict[str, Any] = {
        "provider": "openai", "scope": "all", "day": day, "state": "settled", "reason": None,
        "as_of": "2026-06-24T00:00:00Z", "telemetry_as_of": None, "connections": connections, "projects": [],
        "api_keys": [], "bill_usd": bill_usd, "estimate_usd": "0", "difference_usd": bill_usd,
        "causes": cell["causes"], "seen_tokens": 0, "billed_tokens": 0, "discount_ratio": None, "cells": [cell],
        "version": [0, 1],
    }  # fmt: skip
    return ReconciledDay.model_validate(statement).model_dump_json().encode()


def test_sql_without_a_ledger_reports_the_next_step(cli: Cli) -> None:
    said = cli("sql", "select 1", "--json")
    assert said.code == 3
    assert json.loads(said.err)["code"] == "ledger_unreachable"
