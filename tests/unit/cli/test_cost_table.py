"""Cost tables as CSV, as JSON and for people."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from tallystream.agents.cost_query import Query
from tallystream.agents.cost_table import Table
from tallystream.cli.output.cost_table import cost_table, people
from tallystream.cli.output.cost_text import cost_csv, cost_json, csv_header
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.schemas.rows import SUM_COUNTS, SessionHourCost

NOW = 500_000 * HOUR_NS
HOSTILE = "\x1b[2J=boom"


def value(session: str = "0199a213-81c0-7800-8aa1-00000000beef", **over: object) -> bytes:
    part = dict.fromkeys(SUM_COUNTS, 0) | {
        "requests": 1_234, "input_uncached": 12_345_678, "cache_read": 98_765_432, "output": 1_234_567, "reasoning": 7,
        "total_tokens": 112_345_677, "cost_usd": "1234.567890123456", "reported_cost_usd": None, "model": "gpt-5-codex",
        "service_tier": None, "speed": None, "book": "b1", "attribution": {"team": "payments"},
    }  # fmt: skip
    made = {
        "connection_id": "codex-1a2b", "client": "codex", "provider": "openai", "session_id": session,
        "hour": hour_iso(499_999), "version": [0, 41], "duplicates": 0, "buckets": [part | over],
    }  # fmt: skip
    return SessionHourCost.model_validate(made).model_dump_json().encode()


def filled(query: Query, *values: bytes) -> Table:
    made = Table(query)
    made.add(values)
    return made


def shown(query: Query, *values: bytes, width: int = 100, limit: int = 50, wide: bool = False) -> str:
    console = Console(width=width, file=io.StringIO(), highlight=False)
    table = filled(query if wide else people(query), *values)
    cost_table(table, NOW, limit=limit, wide=wide, console=console)
    written = console.file
    assert isinstance(written, io.StringIO)
    return written.getvalue()


def test_csv_is_rfc_4180_with_a_stable_header(capfd: pytest.CaptureFixture[str]) -> None:
    query = Query("session-hours")
    cost_csv(filled(query, value('a "quoted", one'), value("=cmd|'/c calc'!A1"), value("\x1b[31mred")), NOW)
    written = capfd.readouterr().out
    assert "\x1b" not in written
    rows = list(csv.DictReader(io.StringIO(written, newline="")))
    assert list(rows[0]) == csv_header(query)
    assert {one["session_id"] for one in rows} == {'a "quoted", one', "'=cmd|'/c calc'!A1", "\\x1b[31mred"}
    assert rows[0]["cost_usd"] == "1234.567890123456"
    assert (rows[0]["team"], rows[0]["user"], rows[0]["version"], rows[0]["final"]) == ("payments", "", "0:41", "false")


def test_csv_header_does_not_depend_on_the_rows(capfd: pytest.CaptureFixture[str]) -> None:
    query = Query("models", by=("provider",))
    cost_csv(filled(query), NOW)
    assert capfd.readouterr().out == ",".join(csv_header(query)) + "\r\n"
    assert csv_header(query)[0] == "provider"


@pytest.mark.parametrize("values", [(), (value(),), (value("a"), value("b"))])
def test_json_output_is_one_document(values: tuple[bytes, ...], capfd: pytest.CaptureFixture[str]) -> None:
    cost_json(filled(Query("sessions"), *values), NOW, complete=True)
    document = json.loads(capfd.readouterr().out)
    assert document["complete"] is True
    assert document["as_of"] == hour_iso(500_000)
    assert len(document["rows"]) == len(values)


def test_json_escapes_control_characters_in_hostile_text(capfd: pytest.CaptureFixture[str]) -> None:
    cost_json(filled(Query("sessions"), value("\x9b2Jx\x7f\x1b")), NOW, complete=True)
    written = capfd.readouterr().out
    assert not {"\x9b", "\x7f", "\x1b"} & set(written)
    assert json.loads(written)["rows"][0]["session_id"] == "\x9b2Jx\x7f\x1b"


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("view", ["sessions", "session-hours", "hours", "models"])
def test_table_fits_the_terminal(view: str, width: int) -> None:
    text = shown(Query(view), value(), value("other"), width=width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "gpt-5-codex" in text
    assert "24,691,356" in text
    assert "$2,469.14" in text


def test_table_shortens_ids_unless_wide() -> None:
    assert "0199a213…beef" in shown(Query("sessions"), value())
    wide = shown(Query("sessions"), value(), wide=True, width=80)
    assert "0199a213-81c0-7800-8aa1-00000000beef" in wide
    assert "payments" in wide


def test_table_names_hidden_columns_and_rows() -> None:
    text = shown(Query("sessions"), value("a"), value("b"), value("c"), limit=1)
    assert "2 more rows" in text
    assert "3 rows" in text


def test_unpriced_models_are_listed_with_a_next_step() -> None:
    text = shown(
        Query("sessions"), value("a", cost_usd=None, unpriced_requests=1_234, model="house-9"), value("b"), width=120
    )
    assert "no price" in text
    assert "house-9 of openai: 1,234 requests" in text
    assert "docs/pricing.md" in text
    assert "$1,234.57 *" in text


def test_hostile_names_cannot_control_the_terminal() -> None:
    text = shown(Query("models"), value(model=HOSTILE, cost_usd=None, unpriced_requests=1))
    assert "\x1b" not in text
    assert r"\x1b[2J=boom" in text


def test_markup_in_names_is_shown_as_text() -> None:
    assert "[bold]x[/bold]" in shown(Query("models"), value(model="[bold]x[/bold]"))


def test_groups_without_a_value_are_shown() -> None:
    text = shown(Query("sessions", by=("team",)), value("a"), value("b", attribution={}))
    assert "payments" in text
    assert "(none)" in text


def test_empty_table_explains_the_next_steps() -> None:
    assert "connections create codex" in shown(Query("sessions"))
    assert "No rows match" in shown(Query("sessions", connection="codex-ffff"))
