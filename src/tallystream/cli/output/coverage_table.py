"""Coverage for programs (rows), spreadsheets (CSV) and people (a table)."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from tallystream.agents.coverage import NO_SESSION, SOURCES, CoverageAxis, CoverageRow
from tallystream.cli.output.text import count, csv_text, short_id, visible
from tallystream.schemas.hours import hour_iso

FIELDS = (
    "connection_id", "client", "session_id", "hour", "counted_tokens", "counted_input", "counted_output", "witness",
    "witnessed_tokens", "witnessed_input", "witnessed_output", "missing_tokens", "seen_share", "spans_tokens",
    "metrics_tokens", "client_versions",
)  # fmt: skip
_NOTHING = (
    "Nothing was counted or witnessed in this time. `tallystream cost sessions` shows all sessions, and"
    " `tallystream connections list` what was received."
)


def row_document(row: CoverageRow) -> dict[str, Any]:
    """Return a row as JSON has it."""
    return {
        "connection_id": row.connection_id,
        "client": row.client,
        "session_id": row.session_id,
        "hour": None if row.hour is None else hour_iso(row.hour),
        "counted_tokens": row.counted.total,
        "counted_input": row.counted.input,
        "counted_output": row.counted.output,
        "witness": row.witness,
        "witnessed_tokens": row.witnessed.total,
        "witnessed_input": row.witnessed.input,
        "witnessed_output": row.witnessed.output,
        "missing_tokens": row.missing,
        "seen_share": None if row.seen is None else str(row.seen),
        **{f"{source}_tokens": row.by_source.get(source, 0) for source in SOURCES},
        "client_versions": list(row.versions),
    }


def show_csv(rows: Sequence[CoverageRow]) -> None:
    """Print CSV (RFC 4180) on stdout; absent values are empty."""
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(FIELDS)
    for row in rows:
        document = row_document(row)
        writer.writerow([_cell(document[name]) for name in FIELDS])
    sys.stdout.flush()


def show_table(rows: Sequence[CoverageRow], by: CoverageAxis, limit: int, console: Console) -> None:
    """Print the table for people, with sums below."""
    if not rows:
        console.print(_NOTHING)
        return
    grid = Grid(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
    shown = rows[:limit] if limit else rows
    names = {"connection": ("Connection", "Client"), "session": ("Session", "Connection")}.get(
        by, ("Hour (UTC)", "Session")
    )
    for place, name in enumerate(names):
        footer = f"{count(len(rows))} row{'s' * (len(rows) != 1)}" if place == 0 else ""
        grid.add_column(name, Text(footer, style="bold"), overflow="fold")
    sums = [sum(row.counted.total for row in rows), sum(row.witnessed.total for row in rows)]
    sums.append(sum(row.missing for row in rows))
    for name, total in zip(("Counted", "Witnessed", "Missing"), sums, strict=True):
        grid.add_column(name, Text(count(total), style="bold"), justify="right", no_wrap=True)
    grid.add_column("Seen", justify="right", no_wrap=True)
    grid.add_column("Witness", no_wrap=True)
    for row in shown:
        grid.add_row(
            *(Text(visible(name)) for name in _names(row, by)),
            count(row.counted.total),
            count(row.witnessed.total),
            Text(count(row.missing), style="bold red" if row.missing else ""),
            "-" if row.seen is None else f"{row.seen:.2%}",
            row.witness or "none",
        )
    console.print(grid)
    if len(shown) < len(rows):
        console.print(Text(f"… and {count(len(rows) - len(shown))} more rows: --limit 0 shows all."))
    if sums[2]:
        console.print(
            Text("Missing: a witness saw these tokens, and no log was counted for them. See docs/coverage.md."),
            style="yellow",
        )
    console.print(Text("Seen is counted / (counted + missing). Witnesses never add to a cost.", style="dim"))


def _names(row: CoverageRow, by: CoverageAxis) -> tuple[str, str]:
    if by == "connection":
        return row.connection_id, row.client
    session = "(unknown)" if row.session_id == NO_SESSION else short_id(row.session_id or "")
    if by == "session":
        return session, row.connection_id
    return hour_iso(row.hour or 0)[:16].replace("T", " "), session


def _cell(value: object) -> str | int:
    if value is None:
        return ""
    if isinstance(value, int):
        return value
    return csv_text(" ".join(value) if isinstance(value, list) else str(value))
