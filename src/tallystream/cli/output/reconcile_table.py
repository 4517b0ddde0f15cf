"""Reconciliation for programs (rows), spreadsheets (CSV) and people (a table)."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid
from rich.text import Text

from tallystream.agents.reconciliation import report
from tallystream.agents.reconciliation.split import CAUSES
from tallystream.cli.output.text import count, csv_text, visible

Statement = Mapping[str, Any]
Axis = Literal["day", "model"]
DAY_FIELDS = (
    "provider", "scope", "day", "state", "as_of", "telemetry_as_of", "bill_usd", "estimate_usd", "difference_usd",
    "causes", "seen_tokens", "billed_tokens", "discount_ratio", "reason", "restated", "other_currencies",
    "connections", "projects", "api_keys", "version",
)  # fmt: skip
DAY_COLUMNS = ("provider", "scope", "day", "state", "as_of", "bill_usd", "estimate_usd", "difference_usd", *CAUSES,
               "seen_tokens", "billed_tokens", "reason")  # fmt: skip
MODEL_COLUMNS = ("provider", "model", "bill_usd", "estimate_usd", "difference_usd", *CAUSES, "seen_tokens",
                 "billed_tokens", "as_of")  # fmt: skip
SHORT = {
    "tier_unknown": "tier unknown",
    "kind_moved": "kind moved",
    "no_token_line": "no tokens",
    "book_price": "book price",
}


def rows_of(statements: Sequence[Statement], by: Axis, *, cells: bool) -> list[dict[str, Any]]:
    """Return the rows of the JSON document: money as exact decimal strings."""
    if by == "model":
        found = report.by_model(statements)
        ordered = sorted(found.items(), key=lambda item: (-item[1].bill, item[0]))
        out = []
        for (provider, model), sums in ordered:
            document = sums.document()
            del document["without_bill_usd"]
            out.append({"provider": provider, "model": model} | document)
        return out
    names = (*DAY_FIELDS, "cells") if cells else DAY_FIELDS
    return [{name: one[name] for name in names} for one in statements]


def show_csv(rows: Sequence[Mapping[str, Any]], by: Axis) -> None:
    """Print CSV (RFC 4180) on stdout; absent values are empty."""
    columns = MODEL_COLUMNS if by == "model" else DAY_COLUMNS
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        flat = {**row, **(row["causes"] or {})}
        writer.writerow([_cell(name, flat.get(name)) for name in columns])
    sys.stdout.flush()


def _cell(name: str, value: object) -> str | int:
    if value is None:
        return ""
    if isinstance(value, int):
        return value
    # A negative amount is a number, not a formula.
    return str(value) if name.endswith("_usd") or name in CAUSES else csv_text(str(value))


def show_table(statements: Sequence[Statement], by: Axis, console: Console) -> None:
    """Print the table for people. Empty causes are left out. If the terminal is too narrow for all causes, the smallest
    are added up as `Other`, and named below; without room for any there is no such column, for it would repeat the
    difference.
    """
    sums = report.total(statements)
    causes = [name for name in CAUSES if any(_part(one, name) for one in statements)]
    causes.sort(key=lambda name: (-abs(sums.causes[name]), CAUSES.index(name)))
    for shown in range(len(causes), -1, -1):
        # `Other` must stand for at least two causes.
        if shown == len(causes) - 1:
            continue
        grid = _grid(statements, by, sums, causes[:shown], causes[shown:] if shown else ())
        if Measurement.get(console, console.options.update(width=10_000), grid).maximum <= console.width:
            break
    console.print(grid)
    if others := [name for name in causes[shown:] if sums.causes[name]]:
        parts = ", ".join(f"{SHORT.get(name, name)} {_money(sums.causes[name], signed=True)}" for name in others)
        console.print(Text(f"{'Other' if shown else 'By cause'}: {parts}."))
    for line in _below(statements, sums):
        console.print(Text(line, style="dim"))


def _grid(
    statements: Sequence[Statement], by: Axis, sums: report.ReportTotals, causes: Sequence[str], others: Sequence[str]
) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
    fields = ("model",) if by == "model" else _told_apart(statements)
    for place, name in enumerate(fields):
        grid.add_column(name.capitalize(), "total" if place == 0 else "", no_wrap=True)
    heads = [SHORT.get(name, name).capitalize() for name in causes] + (["Other"] if others else [])
    for head, value in zip(("Bill", "Estimate", "Difference", *heads), _amounts(sums, causes, others), strict=True):
        grid.add_column(head, value, justify="right", no_wrap=True)
    if by == "model":
        for (_, model), one in sorted(report.by_model(statements).items(), key=lambda item: (-item[1].bill, item[0])):
            grid.add_row(Text(visible(model)), *_amounts(one, causes, others))
        return grid
    for statement in statements:
        names = [Text(visible(str(statement[name]))) for name in fields]
        if statement["causes"] is not None:
            grid.add_row(*names, *_amounts(report.total([statement]), causes, others))
        else:
            grid.add_row(*names, "-", _money(Fraction(statement["estimate_usd"]), signed=False))
    return grid


def _told_apart(statements: Sequence[Statement]) -> tuple[str, ...]:
    """Return the fields that identify statements. A provider or scope that all of them share is left out."""
    several = [name for name in ("provider", "scope") if len({one[name] for one in statements}) > 1]
    return ("day", *several, "state")


def _below(statements: Sequence[Statement], sums: report.ReportTotals) -> list[str]:
    seen = f"{count(sums.seen)} tokens seen, {count(sums.billed)} billed. " if sums.billed else ""
    lines = [f"{seen}The parts add up to the difference exactly; `--explain` explains them. As of {sums.as_of or '-'}."]
    reasons = {one["reason"] for one in statements if one["reason"] and one["state"] == "partial"}
    return [*lines, *(f"partial: {visible(reason)}" for reason in sorted(reasons)[:3])]


def _part(one: Statement, name: str) -> bool:
    return one["causes"] is not None and one["causes"][name] != "0"


def _amounts(one: report.ReportTotals, causes: Sequence[str], others: Sequence[str]) -> list[str]:
    shown = [_money(one.bill, signed=False), _money(one.estimate, signed=False)]
    shown.append(_money(one.bill - one.estimate, signed=True))
    shown += [_money(one.causes[name], signed=True) for name in causes]
    rest = sum((one.causes[name] for name in others), Fraction(0))
    return [*shown, *([_money(rest, signed=True)] if others else [])]


def _money(value: Fraction, *, signed: bool) -> str:
    if not value:
        return "-" if signed else "$0.00"
    return report.dollars_signed(value) if signed else report.dollars(value)
