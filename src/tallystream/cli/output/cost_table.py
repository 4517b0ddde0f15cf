"""Cost tables for people; `cost_text` has them for programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol

from rich import box
from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from tallystream.agents.cost_query import GROUPINGS, VIEWS, Query
from tallystream.agents.cost_table import TablePage
from tallystream.cli.output.text import count, dollars, short_id, stamp, visible
from tallystream.schemas.money import to_usd
from tallystream.schemas.usage import ATTRIBUTION_KEYS
from tallystream.streams.service.clock import utc

Row = Mapping[str, Any]
COARSE = (*ATTRIBUTION_KEYS, "book")
"""Dimensions that the table for people leaves out unless it is wide; their rows are added up."""


def people(query: Query) -> Query:
    """Return the query for the narrow table, which groups by the view's dimensions without attribution and book."""
    return replace(query, coarse=tuple(name for name in VIEWS[query.view] if name not in COARSE))


class Shown(Protocol):
    """A table that is shown by its first rows: a `cost_query.Table`, or its equivalent in the ledger."""

    query: Query
    skipped: int
    unpriced: dict[tuple[str, str, str | None], int]
    plan: int
    """The part of the costs, in pico-dollars, that a plan pays for."""

    def page(self, now_ns: int, limit: int) -> TablePage:
        """Return the first rows, and a summary of all rows."""
        ...

    def totals(self, now_ns: int) -> dict[str, Any]:
        """Return the sums over all rows."""
        ...


def cost_table(table: Shown, now_ns: int, *, limit: int, wide: bool, console: Console, notes: bool = True) -> None:
    """Print the table for people, with totals below, and a note on requests without a price.

    A wide table ignores the width of the terminal, for use with `less -S` and the like. `notes=False` leaves out the
    notes below the table.
    """
    page = table.page(now_ns, limit)
    if not page.total:
        console.print(_nothing(table.query))
        return
    shown = page.rows
    total = table.totals(now_ns)
    wanted = [*_names(table.query, page, wide=wide), *_numbers(total)]
    if any(row.get("seen_share") is not None for row in shown):
        wanted.insert(-1, _Column("seen", "Seen", _seen))
    columns, hidden = [_Filled(column, shown, total) for column in wanted], list[str]()
    columns[0].footer = f"{count(page.total)} row{'s' * (page.total != 1)}"
    # What the rows are grouped by is never dropped, because they could not be told apart.
    for name in () if wide else (one for one in _DROP if not (table.query.by and one in table.query.dimensions)):
        if _width(columns) <= console.width:
            break
        hidden += [one.column.head for one in columns if one.column.name == name]
        columns = [one for one in columns if one.column.name != name]
    below = _notes(table, page, now_ns)
    if hidden:
        below.append(Text(f"Not shown at this width: {', '.join(hidden)}.", style="dim"))
    paper = console
    if wide:
        paper = Console(file=console.file, width=max(console.width, _width(columns)), highlight=False)
    paper.print(_grid(columns))
    if notes:
        console.print(*below, sep="\n")


@dataclass(frozen=True)
class _Column:
    """`cell` renders a row, and the totals when it is a number."""

    name: str
    head: str
    cell: Callable[[Row], str]
    number: bool = False


class _Filled:
    """A column with its text: rendered and measured only once, because many cells take as long as all else."""

    def __init__(self, column: _Column, rows: Sequence[Row], total: Row) -> None:
        self.column = column
        self.cells = [column.cell(row) for row in rows]
        self.footer = column.cell(total) if column.number else ""
        self._widest = max(map(cell_len, (column.head, *self.cells)))

    @property
    def width(self) -> int:
        """The width at which nothing is wrapped."""
        return max(self._widest, cell_len(self.footer))


def _width(columns: Sequence[_Filled]) -> int:
    """Return the width at which no cell is wrapped: of the text, two edges, and two spaces between two columns."""
    return sum(one.width for one in columns) + 2 * len(columns)


_DROP = ("reported", "total_tokens", "tool", "cache_write", "seen", "requests", "connection_id", "cached")
"""Columns that are dropped, in this order, until the table fits the terminal."""
_HEADS = {"connection_id": "Connection", "session_id": "Session", "hour": "Hour (UTC)", "service_tier": "Tier"}


def _names(query: Query, page: TablePage, *, wide: bool) -> list[_Column]:
    """Return the columns that identify a row."""
    if query.by:
        names = list(dict.fromkeys((*query.dimensions, *(["sessions"] if "session" not in query.by else []))))
    elif wide:
        present = {name for row in page.rows for name in row["attribution"] or ()}
        names = [name for name in query.dimensions if name not in ATTRIBUTION_KEYS or name in present]
    else:
        names = [name for name in query.dimensions if name not in ("client", "service_tier")]
    if query.tree is not None:
        names.append("children")
    if "hour" in names:
        names = ["hour", *(name for name in names if name != "hour")]
    elif query.view == "models" and not query.by:
        names = ["model", *(name for name in names if name != "model")]
    elif "session_id" in names and not query.by:
        names = ["session_id", *(name for name in names if name != "session_id")]
    if "connection_id" in names and not wide and not query.by and page.connections == 1:
        names.remove("connection_id")
    alias = {dimension: name for name, dimension in GROUPINGS.items() if name in query.by}
    return [
        _Column(name, _HEADS.get(name, name.replace("_", " ").capitalize()), _namer(alias.get(name, name), query, wide))
        for name in names
    ]


def _namer(name: str, query: Query, wide: bool) -> Callable[[Row], str]:
    """Return the function that renders one of a row's names."""
    if name in ATTRIBUTION_KEYS and not query.by:
        return lambda row: visible(row["attribution"].get(name) or "")
    if name == "sessions":
        return lambda row: count(row["sessions"])
    if name == "children":
        return lambda row: count(len(row["children"]))
    if name == "hour":
        return lambda row: row["hour"][:16].replace("T", " ")
    if name in ("session_id", "session") and not wide:
        return lambda row: short_id(row["session_id"])
    if name == "model" and not wide and not query.by:
        return lambda row: visible(row["model"]) + (f" ({visible(row['service_tier'])})" if row["service_tier"] else "")
    return lambda row: "(none)" if row[name] is None else visible(row[name])


def _numbers(total: Row) -> list[_Column]:
    """Return the columns of counts and dollars, without the empty ones."""
    columns = [
        _Column("requests", "Requests", lambda row: count(row["requests"]), True),
        _Column("input", "Input", lambda row: count(row["input_uncached"]), True),
        _Column("cached", "Cached", lambda row: count(row["cache_read"]), True),
    ]
    if total["cache_write_5m"] or total["cache_write_1h"]:
        written = _Column(
            "cache_write", "Written", lambda row: count(row["cache_write_5m"] + row["cache_write_1h"]), True
        )
        columns.append(written)
    columns.append(_Column("output", "Output", lambda row: count(row["output"]), True))
    if total["tool"]:
        columns.append(_Column("tool", "Tool", lambda row: count(row["tool"]), True))
    columns.append(_Column("total_tokens", "Tokens", lambda row: count(row["total_tokens"]), True))
    if total["reported_cost_usd"] is not None:
        columns.append(_Column("reported", "Reported", lambda row: dollars(row["reported_cost_usd"]), True))
    columns.append(_Column("cost", "Cost", _cost, True))
    return columns


def _seen(row: Row) -> str:
    """Return the share of the session's known tokens that was counted; empty without a witness."""
    share = row["seen_share"]
    return "" if share is None else f"{Decimal(share):.2%}"


def _cost(row: Row) -> str:
    """Return the cost, marked when some requests are left out of it."""
    if row["cost_usd"] is None:
        return "no price"
    return dollars(row["cost_usd"]) + (" *" if row["unpriced_requests"] else "")


def _grid(columns: Sequence[_Filled]) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
    for one in columns:
        name = one.column.name
        right = one.column.number or name in ("sessions", "children", "seen")
        grid.add_column(
            one.column.head,
            Text(one.footer, style="bold"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right or name in ("hour", "session_id"),
        )
    for cells in zip(*(one.cells for one in columns), strict=True):
        grid.add_row(*map(Text, cells))
    return grid


def _notes(table: Shown, page: TablePage, now_ns: int) -> list[Text]:
    """Return the notes below the table."""
    notes = []
    if len(page.rows) < page.total:
        notes.append(
            Text(f"… and {count(page.total - len(page.rows))} more rows: --limit 0 shows all. Totals are of all rows.")
        )
    if table.unpriced:
        what = ", ".join(
            visible(f"{model}{f' ({tier})' if tier else ''} of {provider}: {count(requests)} requests")
            for (provider, model, tier), requests in sorted(table.unpriced.items(), key=lambda item: -item[1])
        )
        notes.append(Text(f"* no price is known for {what}", style="yellow"))
        notes.append(
            Text("  Their tokens are counted, but not their cost: docs/pricing.md explains how to add prices.")
        )
    if table.plan:
        part = dollars(to_usd(table.plan))
        notes.append(
            Text(f"{part} of it is paid for by a plan: this is what the API would charge, and part of no bill.")
        )
    moving = f"; {count(page.still)} of the rows can still grow (hour not over for 1 h)" if page.still else ""
    notes.append(
        Text(f"As of {stamp(utc(now_ns))}{moving}. Input is uncached; output includes reasoning.", style="dim")
    )
    return notes


def _nothing(query: Query) -> RenderableType:
    """Explain why a table may be empty, and what to do."""
    if query.connection or query.session or query.since is not None or query.until is not None:
        return Text("No rows match these filters. `tallystream cost sessions` without filters shows all sessions.")
    return Group(
        Text("No rows yet: no usage has been counted on this Kafka. Either"),
        Text("  tallystream connections create codex   then run Codex with what it prints, or"),
        Text("  tallystream demo                       for a demonstration without an agent."),
        Text("`tallystream connections list` shows what was received, `tallystream deadletters list` what failed."),
    )
