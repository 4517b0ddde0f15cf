"""Cost tables for programs: one JSON document, or CSV.

There may be a million rows, so a row is never a dict here: its text is filled into a template, and the text of names,
which repeat from row to row, is kept.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any

import orjson

from tallystream.agents.cost_query import FIELDS, Query
from tallystream.agents.cost_table import Table
from tallystream.cli.output.text import csv_text, escape_json, stamp
from tallystream.schemas.usage import ATTRIBUTION_KEYS
from tallystream.streams.service.clock import utc

ROWS_AT_ONCE = 500
"""Rows that are written together."""
_MOST_KEPT = 10_000


class _Kept(dict[Any, str]):
    """The text of values by value; beyond _MOST_KEPT it is made anew each time."""

    def __init__(self, text_of: Callable[[Any], str]) -> None:
        super().__init__()
        self._text_of = text_of

    def __missing__(self, value: Any) -> str:
        text = self._text_of(value)
        if len(self) < _MOST_KEPT:
            self[value] = text
        return text


def cost_json(table: Table, now_ns: int, *, complete: bool) -> None:
    """Print {as_of, complete, rows} on stdout, a row a line. The text of all rows is never in memory at once."""
    out = sys.stdout
    out.write(json_head(now_ns, complete=complete))
    lines, before = json_rows(table, now_ns), "\n"
    while some := list(islice(lines, ROWS_AT_ONCE)):
        out.write(before)
        out.write(escape_json(",\n".join(some)))
        before = ",\n"
    out.write("\n]}\n")
    out.flush()


def json_head(now_ns: int, *, complete: bool) -> str:
    """Return what stands before the rows."""
    return f'{{"as_of": "{stamp(utc(now_ns))}", "complete": {"true" if complete else "false"}, "rows": ['


def json_rows(table: Table, now_ns: int) -> Iterator[str]:
    """Return the rows of `Table.rows` as JSON, not yet escaped for a terminal."""
    names = table.query.fields
    filled = ("{{" + ",".join(f"{_json(name)}:{{}}" for name in names) + "}}").format
    pick = itemgetter(*table.places(names))
    texts, attributions = _Kept(_json), _Kept(lambda named: _json(_attribution(table, named)))
    text, attribution = texts.__getitem__, "null"
    own = len(table.dimensions) - (0 if table.query.by else len(table.attributed_by))
    """Dimensions with a field of their own; the others are in the attribution."""
    for key, *counts, cost, reported, final, version, sessions, share, children in table.known(now_ns):
        if table.attributed_by:
            attribution = attributions[table.attributed(key)]
        yield filled(
            *pick(
                (
                    *map(text, key[:own]),
                    *key[own:],
                    *counts,
                    "null" if cost is None else f'"{cost}"',
                    "null" if reported is None else f'"{reported}"',
                    "true" if final else "false",
                    f"[{version[0]},{version[1]}]",
                    "null" if sessions is None else sessions,
                    "null" if share is None else f'"{share}"',
                    "null" if children is None else _json(children),
                    attribution,
                    "null",
                )
            )
        )


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _attribution(table: Table, named: tuple[Any, ...]) -> dict[str, Any]:
    return {name: value for name, value in zip(table.attributed_by, named, strict=True) if value is not None}


def csv_header(query: Query) -> list[str]:
    """Return the columns, which are always the same for a view. The attribution becomes one column for each key."""
    own = [name for name in FIELDS if name != "hour" or "hour" in query.fields]
    at = own.index("attribution")
    columns = [*own[:at], *ATTRIBUTION_KEYS, *own[at + 1 :]]
    return [
        *(name for name in query.by if name not in columns),
        *columns,
        *(["seen_share"] if query.shares else []),
        *(["sessions"] if query.by else []),
        *(["children"] if query.tree is not None else []),
    ]


def cost_csv(table: Table, now_ns: int) -> None:
    """Print CSV (RFC 4180) on stdout. Absent values are empty; the version is written as `generation:offset`."""
    header = csv_header(table.query)
    writer = csv.writer(sys.stdout, lineterminator="\r\n")
    writer.writerow(header)
    pick = itemgetter(*table.places(header))
    cell = _Kept(lambda value: "" if value is None else csv_text(value)).__getitem__
    rows = (
        pick(
            (
                *map(cell, key),
                *counts,
                _amount(cost),
                _amount(reported),
                "true" if final else "false",
                f"{version[0]}:{version[1]}",
                sessions,
                share,
                None if children is None else csv_text(" ".join(children)),
                None,
                None,
            )
        )
        for key, *counts, cost, reported, final, version, sessions, share, children in table.known(now_ns)
    )
    writer.writerows(rows)
    sys.stdout.flush()


def _amount(usd: str | None) -> str | None:
    """Return a cell of dollars; a sign might begin a formula."""
    return csv_text(usd) if usd is not None and usd.startswith("-") else usd
