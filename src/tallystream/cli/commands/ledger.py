"""`tallystream sql` and `tallystream export`: query the ledger, and write it to files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import typer

from tallystream.cli.options import DataDir, KafkaOption, emit_json, settings_from
from tallystream.cli.output.consoles import console, err_console
from tallystream.schemas.errors import UsageError

if TYPE_CHECKING:
    from tallystream.agents.focus.columns import Version
    from tallystream.agents.focus.export import Basis, FocusExport
    from tallystream.agents.ledger.store.database import Database
    from tallystream.schemas.billing.accounts import AccountLink
    from tallystream.settings.settings import Settings

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
    dead_letter_reasons, openai_billed_days, openai_used_days, reconciled_days and reconciled_causes; docs/ledger.md
    describes them. In SQLite cost_usd is exact text, which this command compares, sorts and adds up as a number.
    cost_pico is in whole pico-dollars.

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
    form: Annotated[
        Literal["parquet", "csv", "focus", "focus-csv"],
        typer.Option("--format", help="Format; focus: FOCUS as CSV and as Parquet, focus-csv: as CSV alone."),
    ] = "parquet",
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
    focus: Annotated[Literal["1.4", "1.2"], typer.Option("--focus", help="Version of FOCUS.")] = "1.4",
    basis: Annotated[
        Literal["reconciled", "estimate"],
        typer.Option(
            "--basis",
            help="FOCUS only. reconciled: the provider's bill where it is complete, else the estimate;"
            " estimate: the cost tables alone.",
        ),
    ] = "reconciled",
    json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON document.")] = False,
    data_dir: DataDir = None,
    kafka: KafkaOption = None,
) -> None:
    """Write the ledger's session-hours to files, one folder for each UTC day, with exact decimal dollars.

    The files are named like OUT/day=2026-11-21/session-hours.parquet. FOCUS files are focus.csv and focus.parquet in
    the same folders. A day is always written completely and replaces the earlier files of that day, so you can run
    this as often as you like.
    """
    from tallystream.agents.ledger.queries.export import export as write
    from tallystream.agents.ledger.queries.export import session_hour_files
    from tallystream.agents.ledger.store.open import open_database
    from tallystream.cli.output.text import csv_text
    from tallystream.cli.output.times import parse_when
    from tallystream.schemas.hours import HOUR_NS, hour_of
    from tallystream.streams.service.clock import SystemClock

    now = SystemClock().now_ns()
    first = None if since is None else hour_of(parse_when(since, now, "--since"))
    last = None if until is None else -(-parse_when(until, now, "--until") // HOUR_NS)
    settings = settings_from(data_dir, kafka)
    bills = _Bills.read(settings) if form.startswith("focus") else None
    database = open_database(settings.ledger_place(), read_only=True)
    try:
        with err_console.status("writing"), database.reading():
            if bills is None:
                files, further = (
                    session_hour_files(database, "csv" if form == "csv" else "parquet", csv_text),
                    set[int](),
                )
            else:
                found = bills.export_of(settings, database, basis, focus)
                files, further = found.files(csv_alone=form == "focus-csv"), found.billed_days
            done = write(database, out, files, since=first, until=last, further=further)
    finally:
        database.close()
    if json:
        emit_json({"out": str(out), "days": done.days, "rows": done.rows, "removed": done.removed})
    else:
        console.print(f"wrote {done.rows:,} rows of {done.days:,} days to {out}", markup=False, soft_wrap=True)


@dataclass(frozen=True)
class _Bills:
    """What Kafka knows of bills and of who pays them."""

    statements: list[dict[str, Any]]
    links: list[AccountLink]

    @classmethod
    def read(cls, settings: Settings) -> Self:
        from tallystream.cli.commands.reconcile import collect
        from tallystream.cli.options import cluster
        from tallystream.cli.output.progress import run
        from tallystream.streams.connections.accounts import Accounts

        statements, _ = run(collect(settings))
        return cls(statements, list(run(Accounts(cluster(settings), settings.topics()).all())))

    def export_of(self, settings: Settings, database: Database, basis: Basis, version: Version) -> FocusExport:
        from tallystream.agents.focus.export import FocusExport
        from tallystream.cli.commands.prices import book_of

        book = book_of(settings)
        return FocusExport(database, self.statements, book, links=self.links, basis=basis, version=version)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("sql")(sql)
    app.command("export")(export)


def _plain(value: object) -> Any:
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


def _print_csv(columns: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
    import csv
    import sys

    from tallystream.cli.output.text import csv_text

    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow([csv_text(column) for column in columns])
    for row in rows:
        cells = map(_plain, row)
        writer.writerow(["" if one is None else csv_text(one) if _is_text(one) else one for one in cells])
    sys.stdout.flush()


def _is_text(value: object) -> bool:
    """Return whether a cell is text, and not a number written as text, which may begin with a minus."""
    return isinstance(value, str) and not value.removeprefix("-").replace(".", "", 1).isdecimal()


def _print_table(columns: Sequence[str], rows: Iterator[Sequence[object]]) -> None:
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
