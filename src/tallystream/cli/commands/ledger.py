"""`tallystream sql` and `tallystream export`: query the ledger, and write it to files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tallystream.cli.options import DataDir, KafkaOption, console, emit_json, err_console, settings_from
from tallystream.schemas.errors import UsageError

TABLE_ROWS = 1000
"""The table for people has at most this many rows; --json and --csv print all."""


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print {columns, rows}; exact decimals are strings.")] = False,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV (RFC 4180), safe to open in a spreadsheet.")] = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Query the ledger in SQL, read-only.

    The views are sessions, session_hours, hours, models, teams, connections, synced, dead_letters,
    dead_letter_reasons, openai_billed_days and openai_used_days; docs/ledger.md describes them. In SQLite cost_usd is
    exact text, which this command compares, sorts and adds up as a number. cost_pico is in whole pico-dollars.

        tallystream sql "select team, cost_usd, requests from teams order by cost_usd desc"
    """
    from tallystream.agents.ledger.queries.sql import query as ask

    if json and csv:
        raise UsageError("--json and --csv cannot be used together", "take one")
    place = settings_from(data_dir, kafka).ledger_place()
    with ask(place, query) as result:
        if json:
            rows = [dict(zip(result.columns, map(_plain, row), strict=True)) for row in result.rows]
            emit_json({"columns": list(result.columns), "rows": rows})
        elif csv:
            _print_csv(result.columns, result.rows)
        else:
            _print_table(result.columns, result.rows)


def export(
    form: Annotated[Literal["parquet", "csv"], typer.Option("--format", help="Format of the files.")] = "parquet",
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="T", help="From the UTC day of this time on: 2026-11-21, 30d (ago)."),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="T", help="Up to the UTC day of the moment before this time.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the files.")] = Path(
        "tallystream-export"
    ),
    json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON document.")] = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Write the ledger's session-hours to files, one folder for each UTC day, with exact decimal dollars.

    The files are named like OUT/day=2026-11-21/session-hours.parquet. A day is always written completely and replaces
    the earlier file of that day, so you can run this as often as you like.
    """
    from tallystream.agents.ledger.queries.export import export as write
    from tallystream.agents.ledger.store.open import open_database
    from tallystream.cli.output.text import csv_text
    from tallystream.cli.output.times import parse_when
    from tallystream.schemas.hours import HOUR_NS, hour_of
    from tallystream.streams.service.clock import SystemClock

    now = SystemClock().now_ns()
    first = None if since is None else hour_of(parse_when(since, now, "--since"))
    last = None if until is None else -(-parse_when(until, now, "--until") // HOUR_NS)
    database = open_database(settings_from(data_dir, kafka).ledger_place(), read_only=True)
    try:
        with err_console.status("writing"), database.reading():
            done = write(database, out, form, since=first, until=last, cell=csv_text)
    finally:
        database.close()
    if json:
        emit_json({"out": str(out), "days": done.days, "rows": done.rows, "removed": done.removed})
    else:
        console.print(f"wrote {done.rows:,} rows of {done.days:,} days to {out}", markup=False, soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("sql")(sql)
    app.command("export")(export)


def _plain(value: Any) -> Any:
    """Return a value for JSON. Exact decimals and types that JSON does not have become strings."""
    from datetime import UTC, datetime
    from decimal import Decimal

    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, bytes):
        return value.hex()
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _print_csv(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    import csv
    import sys

    from tallystream.cli.output.text import csv_text

    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow([csv_text(column) for column in columns])
    for row in rows:
        cells = map(_plain, row)
        writer.writerow(["" if one is None else csv_text(one) if _is_text(one) else one for one in cells])
    sys.stdout.flush()


def _is_text(value: Any) -> bool:
    """Return whether a cell is text, and not a number written as text, which may begin with a minus."""
    return isinstance(value, str) and not value.removeprefix("-").replace(".", "", 1).isdecimal()


def _print_table(columns: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    from itertools import islice

    from rich import box
    from rich.table import Table
    from rich.text import Text

    from tallystream.cli.output.text import visible

    shown = [list(map(_plain, row)) for row in islice(rows, TABLE_ROWS + 1)]
    more, shown = len(shown) > TABLE_ROWS, shown[:TABLE_ROWS]
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        numbers = all(row[place] is None or not _is_text(row[place]) for row in shown)
        grid.add_column(Text(visible(column)), justify="right" if numbers else "left", overflow="fold")
    for row in shown:
        grid.add_row(*(Text("" if one is None else visible(str(one))) for one in row))
    console.print(grid)
    if more:
        console.print(f"Only the first {TABLE_ROWS:,} rows are shown; --json and --csv print all.", style="dim")
