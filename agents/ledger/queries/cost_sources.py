"""Where the sums of a cost table come from: the smallest of the ledger's tables that knows what is asked.

- `hour_total` (hour, line, crew) knows no sessions and only those attribution keys that have few values.
- `part` (attribution, line, session) knows no hours but the first and the last. A part whose hours all lie within a
  range is taken whole; of one that the range cuts, the buckets are taken.
- `bucket` (session, hour, line, attribution) knows everything and is the largest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tallystream.agents.cost_query import Query
from tallystream.agents.cost_sums import CostPart
from tallystream.agents.ledger.amounts import join_money, unpack_version
from tallystream.agents.ledger.schema import COLUMN, CREW, MONEY
from tallystream.agents.ledger.store.database import Database, Row, pairs
from tallystream.schemas.hours import hour_iso
from tallystream.schemas.rows import SUM_COUNTS

SUMS = (*SUM_COUNTS, *MONEY)
_WIDTH = len(SUM_COUNTS)
Members = Collection[tuple[str, str]]
"""(connection_id, session_id) of sessions."""


@dataclass(frozen=True)
class CostSource:
    """Rows `b` with session, line, attribution, version and sums. `hour` is the column of their newest hour."""

    tables: str
    hour: str
    where: tuple[str, ...]
    parameters: tuple[object, ...]

    def joined(self, *joins: str, where: Sequence[str] = ()) -> str:
        """Return FROM and WHERE."""
        conditions = [*self.where, *where]
        return " ".join([f"FROM {self.tables}", *joins]) + (f" WHERE {' AND '.join(conditions)}" if conditions else "")


@dataclass(frozen=True)
class Chosen:
    """Some of the rows: of sessions by (connection_id, session_id), or of sessions or attributions by their keys."""

    members: Members | None = None
    keys: Collection[int] | None = None
    attributions: Collection[int] | None = None


ALL = Chosen()


def sources(query: Query, *, hourly: bool, chosen: Chosen = ALL) -> list[CostSource]:
    """Return the rows that are asked for, each hour's own if `hourly`."""
    of, parameters = _of_session(query, chosen)
    if query.connection is not None:
        of.append("b.line IN (SELECT id FROM line WHERE connection_id = ?)")
        parameters.append(query.connection)
    within, hours = in_range(query, "b.hour")
    if hourly:
        return [CostSource("bucket b", "b.hour", (*within, *of), (*hours, *parameters))]
    if not within:
        return [CostSource("part b", "b.last_hour", tuple(of), tuple(parameters))]
    whole, overlaps = list[str](), list[str]()
    if query.since is not None:
        whole.append("b.first_hour >= ?")
        overlaps.append("e.last_hour >= ?")
    if query.until is not None:
        whole.append("b.last_hour < ?")
        overlaps.append("e.first_hour < ?")
    cut = " AND ".join(one.replace("b.", "e.") for one in whole)
    same = "b.session = e.session AND b.line = e.line AND b.attribution = e.attribution"
    return [
        CostSource("part b", "b.last_hour", (*whole, *of), (*hours, *parameters)),
        CostSource(
            "part e CROSS JOIN bucket b", "b.hour", (*overlaps, f"NOT ({cut})", same, *within, *of),
            (*hours, *hours, *hours, *parameters),
        ),
    ]  # fmt: skip


def in_range(query: Query, column: str) -> tuple[list[str], list[Any]]:
    """Return the conditions on the hours, and their parameters."""
    where, parameters = [], []
    if query.since is not None:
        where.append(f"{column} >= ?")
        parameters.append(query.since)
    if query.until is not None:
        where.append(f"{column} < ?")
        parameters.append(query.until)
    return where, parameters


def _of_session(query: Query, chosen: Chosen) -> tuple[list[str], list[Any]]:
    where, parameters = [], list[Any]()
    if chosen.members is not None:
        where.append(
            f"b.session IN (SELECT id FROM session WHERE (connection_id, session_id) IN ({pairs(len(chosen.members))}))"
        )
        parameters += [name for pair in sorted(chosen.members) for name in pair]
    for column, keys in (("session", chosen.keys), ("attribution", chosen.attributions)):
        if keys is not None:
            where.append(f"b.{column} IN ({', '.join(map(str, sorted(keys))) or 'NULL'})")
    if query.session is not None:
        head, mark, tail = query.session.partition("…")
        if mark:
            same = (
                "length(session_id) >= ? AND substr(session_id, 1, ?) = ?"
                " AND substr(session_id, length(session_id) - ? + 1) = ?"
            )
            parameters += [max(len(head), len(tail)), len(head), head, len(tail), tail]
        else:
            same = "session_id = ?"
            parameters.append(query.session)
        where.append(f"b.session IN (SELECT id FROM session WHERE {same})")
    return where, parameters


def in_hours(query: Query, dimensions: Sequence[str]) -> bool:
    """Tell whether the sums of hours know these dimensions."""
    return query.session is None and not any(
        name == "session_id" or (name in COLUMN and name not in CREW) for name in dimensions
    )


def cost_parts(database: Database, query: Query, dimensions: Sequence[str], chosen: Chosen = ALL) -> Iterator[CostPart]:
    """Return sums by these dimensions. Several may have the same key, and are then to be added."""
    if chosen == ALL and in_hours(query, dimensions):
        each = _of_each_hour if "hour" in dimensions else _of_hours
        yield from each(database, query, dimensions)
        return
    names = [_column(name) for name in dimensions]
    attributed = any(name in COLUMN for name in dimensions)
    lines = any(name not in COLUMN and name not in ("session_id", "hour") for name in dimensions)
    single = "session_id" in dimensions
    for source in sources(query, hourly="hour" in dimensions, chosen=chosen):
        joins = ["JOIN line l ON l.id = b.line"] if lines else []
        joins += ["JOIN attribution a ON a.id = b.attribution"] if attributed else []
        joins += ["JOIN session s ON s.id = b.session"] if single else []
        if attributed and not lines and not single and source.tables == "part b":
            # Parts are stored by attribution, so adding up by it needs no sorting, and few names are looked up.
            sums = ", ".join(f"sum(b.{name}) AS {name}" for name in SUMS)
            tables = (
                "FROM (SELECT b.attribution, max(b.last_hour) AS last_hour, max(b.version) AS version,"
                " count(*) AS parts, count(b.cost_hi) AS priced, count(b.reported_hi) AS reports,"
                f" {sums} {source.joined()} GROUP BY b.attribution) b JOIN attribution a ON a.id = b.attribution"
            )
            known = "max(b.last_hour), max(b.version), sum(b.parts), sum(b.priced), sum(b.reports)"
        else:
            if attributed and source.tables == "part b" and chosen == ALL and query.session is None:
                # Attribution by attribution, as parts are stored.
                by_attribution = replace(source, tables="attribution a CROSS JOIN part b")
                joins = [one for one in joins if not one.startswith("JOIN attribution")]
                tables = by_attribution.joined(*joins, where=["b.attribution = a.id"])
            else:
                tables = source.joined(*joins)
            known = f"max({source.hour}), max(b.version), count(*), count(b.cost_hi), count(b.reported_hi)"
        if single and source.tables == "part b":
            # Next to no two parts have the same names.
            known = "b.last_hour, b.version, 1, b.cost_hi IS NOT NULL, b.reported_hi IS NOT NULL"
            sql = f"SELECT {', '.join([*names, known, *(f'b.{name}' for name in SUMS)])} {tables}"
        else:
            sql = f"SELECT {', '.join([*names, known, *(f'sum(b.{name})' for name in SUMS)])} {tables}"
            sql += f" GROUP BY {', '.join(str(place + 1) for place in range(len(names)))}" if names else ""
        yield from _read(database, sql, source.parameters, dimensions)


def _of_each_hour(database: Database, query: Query, dimensions: Sequence[str]) -> Iterator[CostPart]:
    """Return the sums of each hour. Where each line has a name of its own they are read in the order in which they are
    stored, which needs no sorting; otherwise the database adds them up, because passing on a row costs more.
    """
    crews = any(name in CREW for name in dimensions)
    lines = [name for name in dimensions if name not in COLUMN and name != "hour"]
    of_line = _names(database, "line", lines)
    # A bucket is one session's in its hour.
    sums = ", ".join(f"sum(t.{name})" for name in ("buckets", "priced", "reports", *SUMS))
    if crews or not lines or len(set(of_line.values())) < len(of_line):
        names = [_column(name, "m", "t") for name in dimensions]
        joins = ["JOIN line l ON l.id = t.line"] * bool(lines) + ["JOIN crew m ON m.id = t.crew"] * crews
        by = ", ".join(str(place + 1) for place in range(len(names)))
        for tables, _, parameters in totals(query, hourly=True):
            sql = f"SELECT {', '.join(names)}, max(t.hour), max(t.version), {sums} FROM (SELECT t.* {tables}) t"
            yield from _read(database, f"{sql} {' '.join(joins)} GROUP BY {by}", parameters, dimensions)
        return
    said = (*lines, "hour")
    pick = [said.index(name) for name in dimensions]
    for tables, _, parameters in totals(query, hourly=True):
        for row in database.stream(
            f"SELECT t.hour, t.line, max(t.version), {sums} {tables} GROUP BY t.hour, t.line", parameters
        ):
            hour, line, version, buckets, priced, reports = row[:6]
            at = hour_iso(hour)
            values = (*of_line[line], at)
            counts, money = sums_of(row, 6, priced=bool(priced), reports=bool(reports))
            key = tuple(values[place] for place in pick)
            yield CostPart(key, counts, *money, at, unpack_version(version), int(buckets))


def _names(database: Database, table: str, columns: Sequence[str]) -> dict[int, tuple[Any, ...]]:
    """Return the values of these columns by id."""
    if not columns:
        return {}
    return {number: tuple(values) for number, *values in database.rows(f"SELECT id, {', '.join(columns)} FROM {table}")}


def _of_hours(database: Database, query: Query, dimensions: Sequence[str]) -> Iterator[CostPart]:
    names = [_column(name, "m") for name in dimensions]
    crews = any(name in CREW for name in dimensions)
    # Group by ids first, which is cheap, and compare names only for the result.
    by = ["t.line"] * bool(names) + ["t.crew"] * crews
    line, crew = "t.line" if names else "min(t.line)", "t.crew" if crews else "0"
    sums = ", ".join(f"sum(t.{name}) AS {name}" for name in ("priced", "reports", *SUMS))
    known = ["max(b.hour)", "max(b.version)", "NULL", "sum(b.priced)", "sum(b.reports)"]
    known += [f"sum(b.{name})" for name in SUMS]
    for tables, hour, parameters in totals(query):
        sql = (
            f"SELECT {', '.join([*names, *known])} FROM (SELECT {line} AS line, {crew} AS crew,"
            f" max({hour}) AS hour, max(t.version) AS version, {sums} {tables}"
            + (f" GROUP BY {', '.join(by)}" if by else "")
            + ") b JOIN line l ON l.id = b.line"
            + (" JOIN crew m ON m.id = b.crew" if crews else "")
            + (f" GROUP BY {', '.join(str(place + 1) for place in range(len(names)))}" if names else "")
        )
        yield from _read(database, sql, parameters, dimensions)


def totals(query: Query, *, hourly: bool = False) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield FROM and WHERE of the sums `t` of hours, the column of their hour, and parameters.

    Unless each hour is asked for, whole days within the range are taken as they are, so only its ends are read by hour.
    """
    since, until = query.since, query.until
    of, more = list[str](), list[Any]()
    if query.connection is not None:
        of, more = ["t.line IN (SELECT id FROM line WHERE connection_id = ?)"], [query.connection]
    first = None if since is None else -(-since // 24)
    last = None if until is None else until // 24

    def rows(table: str, column: str, low: int | None, high: int | None) -> tuple[str, list[Any]]:
        bounds = [(f"{column} >= ?", low), (f"{column} < ?", high)]
        where = [condition for condition, bound in bounds if bound is not None] + of
        joined = f" WHERE {' AND '.join(where)}" if where else ""
        return f"FROM {table} t{joined}", [bound for _, bound in bounds if bound is not None] + more

    if hourly or (first is not None and last is not None and first >= last):
        tables, parameters = rows("hour_total", "t.hour", since, until)
        yield tables, "t.hour", parameters
        return
    if since is not None and first is not None and since < first * 24:
        tables, parameters = rows("hour_total", "t.hour", since, first * 24)
        yield tables, "t.hour", parameters
    tables, parameters = rows("day_total", "t.day", first, last)
    yield tables, "t.last_hour", parameters
    if until is not None and last is not None and last * 24 < until:
        tables, parameters = rows("hour_total", "t.hour", last * 24, until)
        yield tables, "t.hour", parameters


def named(dimensions: Sequence[str], *, crews: bool = False) -> tuple[list[str], list[str]]:
    """Return the columns of dimensions, and the joins to rows `b` that they need."""
    attribution = "JOIN crew a ON a.id = b.crew" if crews else "JOIN attribution a ON a.id = b.attribution"
    joins = [
        join
        for join, wanted in (
            ("JOIN line l ON l.id = b.line", set(dimensions) - set(COLUMN) - {"session_id", "hour"}),
            (attribution, set(dimensions) & set(COLUMN)),
            ("JOIN session s ON s.id = b.session", set(dimensions) & {"session_id"}),
        )
        if wanted
    ]
    return [_column(name) for name in dimensions], joins


def _read(database: Database, sql: str, parameters: Sequence[object], dimensions: Sequence[str]) -> Iterator[CostPart]:
    width = len(dimensions)
    at = dimensions.index("hour") if "hour" in dimensions else None
    for row in database.stream(sql, parameters):
        hour, version, rows, priced, reports = row[width : width + 5]
        if hour is None:
            continue  # sums over nothing at all
        key = row[:width]
        if at is not None:
            key = (*key[:at], hour_iso(int(key[at])), *key[at + 1 :])
        counts, money = sums_of(row, width + 5, priced=bool(priced), reports=bool(reports))
        number = None if rows is None else int(rows)
        yield CostPart(key, counts, *money, hour_iso(int(hour)), unpack_version(int(version)), number)


def sums_of(
    row: Row, first: int, *, priced: bool, reports: bool
) -> tuple[tuple[int, ...], tuple[int | None, int | None]]:
    """Return counts and (cost, reported cost) out of the columns `SUMS`, which begin at `first`."""
    counts = tuple(map(int, row[first : first + _WIDTH]))
    cost_hi, cost_lo, reported_hi, reported_lo = row[first + _WIDTH : first + _WIDTH + 4]
    cost = join_money(cost_hi, cost_lo) if priced else None
    return counts, (cost, join_money(reported_hi, reported_lo) if reports else None)


def _column(name: str, attribution: str = "a", rows: str = "b") -> str:
    if name in COLUMN:
        return f"{attribution}.{COLUMN[name]}"
    if name == "session_id":
        return "s.session_id"
    return f"{rows}.hour" if name == "hour" else f"l.{name}"
