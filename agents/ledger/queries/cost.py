"""The cost tables from the ledger: the same rows, in the same order, as `cost_query.Table` returns from the topic.

The database filters and adds up, and a `Table` does the rest, so that the format of a row is defined in one place. When
only the first of many rows are shown, the database also sorts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tallystream.agents.cost_query import PLAN, Query, Table, TablePage
from tallystream.agents.cost_sums import CostPart
from tallystream.agents.ledger.records import unpack_version
from tallystream.agents.ledger.schema import COLUMN, MONEY
from tallystream.agents.ledger.staging import join_money
from tallystream.agents.ledger.store.database import Database, Row, pairs
from tallystream.schemas.hours import hour_iso, last_final_hour
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.schemas.usage import ATTRIBUTION_KEYS

_LINE = ("connection_id", "client", "provider", "model", "service_tier", "book")
_SUMS = ", ".join([f"sum(b.{name})" for name in SUM_COUNTS] + [f"sum(b.{name})" for name in MONEY])
_WIDTH = len(SUM_COUNTS)
Members = Collection[tuple[str, str]]
"""(connection_id, session_id) of sessions."""


def cost_table(database: Database, query: Query) -> Table:
    """Return the complete table of a query; call it within `reading`."""
    table = Table(query)
    # a row may include sessions that the filter does not name: the table itself selects them
    asked = query if query.tree is None else replace(query, session=None, tree=None)
    for part in _parts(database, asked, table.dimensions):
        table.add_part(part)
    among = table.members() if query.tree is not None and query.session is not None else None
    table.unpriced = _unpriced(database, asked, among)
    table.plan = plan_cost(database, asked, among)
    table.skipped = _skipped(database)
    return table


class SortedTable:
    """The first rows of a table, sorted by the database; for views with one row per session.

    Made within `reading`; `limit` above 0.
    """

    def __init__(self, database: Database, query: Query, limit: int, now_ns: int) -> None:
        self.query = query
        self.unpriced = _unpriced(database, query)
        self.plan = plan_cost(database, query)
        self.skipped = _skipped(database)
        self._page, self._totals = _page(database, query, limit, now_ns)

    def page(self, now_ns: int, limit: int) -> TablePage:  # noqa: ARG002 - both were given before
        """Return the rows to show."""
        return self._page

    def totals(self, now_ns: int) -> dict[str, Any]:  # noqa: ARG002
        """Return the sums over all rows."""
        return self._totals


def can_sort(query: Query) -> bool:
    """Tell whether `SortedTable` knows the query: the narrow tables of sessions and of hours, without filters."""
    from tallystream.agents.cost_query import VIEWS

    narrow = tuple(name for name in VIEWS[query.view] if name not in (*ATTRIBUTION_KEYS, "book"))
    filtered = any(one is not None for one in (query.connection, query.session, query.since, query.until))
    many = query.view in ("sessions", "session-hours", "hours")
    return many and query.tree is None and not query.by and query.coarse == narrow and not filtered


def _parts(database: Database, query: Query, dimensions: Sequence[str]) -> Iterator[CostPart]:
    small = query.session is None and not query.by and not _needs_bucket(dimensions)
    if small:
        yield from _from_hours(database, query, dimensions)
        return
    joins, where, parameters = _bucket_filter(query)
    names = [_column(name) for name in dimensions]
    # Group by ids first, which is cheap, and look up names only for the result.
    sessions = "count(DISTINCT b.session)" if query.by else "0"
    known = ["max(b.hour)", "max(b.version)", "count(b.cost_hi)", "count(b.reported_hi)", sessions]
    sql = f"SELECT {', '.join([*names, *known])}, {_SUMS} FROM bucket b {joins}{where}" + (
        f" GROUP BY {', '.join(str(place + 1) for place in range(len(names)))}" if names else ""
    )
    yield from _read(database, sql, parameters, dimensions)


def _from_hours(database: Database, query: Query, dimensions: Sequence[str]) -> Iterator[CostPart]:
    where, parameters = _range(query, "t.hour")
    if query.connection is not None:
        where.append("t.line IN (SELECT id FROM line WHERE connection_id = ?)")
        parameters.append(query.connection)
    names = [_column(name) for name in dimensions]
    known = ["max(b.hour)", "max(b.version)", "sum(b.priced)", "sum(b.reports)", "0"]
    # Group by ids first, which is cheap, and compare names only for the result.
    inner = " GROUP BY t.line, t.hour" if "hour" in dimensions else " GROUP BY t.line" if names else ""
    hour = "t.hour" if "hour" in dimensions else "max(t.hour)"
    line = "t.line" if names else "min(t.line)"
    sums = ", ".join(f"sum(t.{name}) AS {name}" for name in ("priced", "reports", *SUM_COUNTS, *MONEY))
    sql = (
        f"SELECT {', '.join([*names, *known])}, {_SUMS} FROM (SELECT {line} AS line, {hour} AS hour,"
        f" max(t.version) AS version, {sums} FROM hour_total t"
        + (" WHERE " + " AND ".join(where) if where else "")
        + f"{inner}) b JOIN line l ON l.id = b.line"
        + (f" GROUP BY {', '.join(str(place + 1) for place in range(len(names)))}" if names else "")
    )
    yield from _read(database, sql, parameters, dimensions)


def _read(database: Database, sql: str, parameters: Sequence[object], dimensions: Sequence[str]) -> Iterator[CostPart]:
    width = len(dimensions)
    hours = [place for place, name in enumerate(dimensions) if name == "hour"]
    for row in database.stream(sql, parameters):
        hour, version, priced, reports, sessions = row[width : width + 5]
        if hour is None:
            continue  # sums over nothing at all
        key = list(row[:width])
        for place in hours:
            key[place] = hour_iso(int(key[place]))
        counts, money = _sums(row, width + 5, priced=bool(priced), reports=bool(reports))
        yield CostPart(
            tuple(key), counts, *money, hour_iso(int(hour)), unpack_version(int(version)),
            int(sessions) if sessions is not None else 0,
        )  # fmt: skip


def _sums(
    row: Row, first: int, *, priced: bool, reports: bool
) -> tuple[tuple[int, ...], tuple[int | None, int | None]]:
    counts = tuple(map(int, row[first : first + _WIDTH]))
    cost_hi, cost_lo, reported_hi, reported_lo = row[first + _WIDTH : first + _WIDTH + 4]
    cost = join_money(cost_hi, cost_lo) if priced else None
    return counts, (cost, join_money(reported_hi, reported_lo) if reports else None)


def _needs_bucket(dimensions: Sequence[str]) -> bool:
    return any(name in COLUMN or name == "session_id" for name in dimensions)


def _column(name: str) -> str:
    if name in COLUMN:
        return f"a.{COLUMN[name]}"
    if name == "session_id":
        return "s.session_id"
    return "b.hour" if name == "hour" else f"l.{name}"


def _range(query: Query, column: str) -> tuple[list[str], list[Any]]:
    where, parameters = [], []
    if query.since is not None:
        where.append(f"{column} >= ?")
        parameters.append(query.since)
    if query.until is not None:
        where.append(f"{column} < ?")
        parameters.append(query.until)
    return where, parameters


def _bucket_filter(query: Query, among: Members | None = None) -> tuple[str, str, list[Any]]:
    """Return (joins, where, parameters) of a query on buckets `b`."""
    where, parameters = _range(query, "b.hour")
    if query.connection is not None:
        where.append("l.connection_id = ?")
        parameters.append(query.connection)
    if among is not None:
        where.append(f"(s.connection_id, s.session_id) IN ({pairs(len(among))})")
        parameters += [name for pair in sorted(among) for name in pair]
    if query.session is not None:
        head, mark, tail = query.session.partition("…")
        if mark:
            where.append("length(s.session_id) >= ? AND substr(s.session_id, 1, ?) = ?")
            parameters += [max(len(head), len(tail)), len(head), head]
            where.append("substr(s.session_id, length(s.session_id) - ? + 1) = ?")
            parameters += [len(tail), tail]
        else:
            where.append("s.session_id = ?")
            parameters.append(query.session)
    joins = "JOIN line l ON l.id = b.line JOIN attribution a ON a.id = b.attribution JOIN session s ON s.id = b.session"
    return joins, " WHERE " + " AND ".join(where) if where else "", parameters


def _unpriced(database: Database, query: Query, among: Members | None = None) -> dict[tuple[str, str, str | None], int]:
    if query.session is not None or among is not None:
        joins, where, parameters = _bucket_filter(query, among)
        source, found = f"bucket b {joins}", [where.removeprefix(" WHERE ")]
    else:
        found, parameters = _range(query, "b.hour")
        if query.connection is not None:
            found.append("l.connection_id = ?")
            parameters.append(query.connection)
        source = "hour_total b JOIN line l ON l.id = b.line"
    # Most rows do not have any, so they are excluded before sorting.
    where = " AND ".join([*found, "b.unpriced_requests > 0"])
    rows = database.rows(
        f"SELECT l.provider, l.model, l.service_tier, sum(b.unpriced_requests) FROM {source} WHERE {where}"
        " GROUP BY l.provider, l.model, l.service_tier",
        parameters,
    )
    return {(provider, model, tier): int(requests) for provider, model, tier, requests in rows}


def plan_cost(database: Database, query: Query, among: Members | None = None) -> int:
    """Return the part of a query's costs, in pico-dollars, that a plan pays for; `among`: only of these sessions."""
    if not database.rows("SELECT 1 FROM attribution WHERE billing = ? LIMIT 1", (PLAN,)):
        return 0
    joins, where, parameters = _bucket_filter(query, among)
    where += " AND a.billing = ?" if where else " WHERE a.billing = ?"
    rows = database.rows(f"SELECT sum(b.cost_hi), sum(b.cost_lo) FROM bucket b {joins}{where}", (*parameters, PLAN))
    return join_money(*rows[0]) or 0


def _skipped(database: Database) -> int:
    return int(database.rows("SELECT count(*) FROM unreadable WHERE reason = 'skipped'")[0][0])


# -- the first rows of many

_MODEL_SUMS = ", ".join(f"m.{name}" for name in (*SUM_COUNTS, *MONEY))


def _page(database: Database, query: Query, limit: int, now_ns: int) -> tuple[TablePage, dict[str, Any]]:
    final = last_final_hour(now_ns)
    whole = Table(query)
    everything = Query(query.view, coarse=())
    for part in _from_hours(database, everything, ()):
        whole.add_part(part._replace(key=("",) * len(whole.dimensions)))
    totals = whole.totals(now_ns)
    connections = int(
        database.rows("SELECT count(DISTINCT connection_id) FROM session WHERE first_hour IS NOT NULL")[0][0]
    )
    if query.view == "sessions":
        count, still = database.rows(
            "SELECT count(*), (SELECT count(*) FROM session_model WHERE last_hour > ?) FROM session_model", (final,)
        )[0]
        rows = database.rows(
            "SELECT s.connection_id, k.client, s.session_id, k.model, k.service_tier, m.last_hour, m.version,"
            f" {_MODEL_SUMS} FROM session_model m JOIN session s ON s.id = m.session JOIN kind k ON k.id = m.kind"
            " ORDER BY m.cost_hi DESC{nulls_last}, m.cost_lo DESC{nulls_last}, m.total_tokens DESC, s.connection_id,"
            " k.client, s.session_id, k.model, k.service_tier IS NOT NULL, k.service_tier"
            " LIMIT ?",
            (limit,),
        )
        shown = [_row(row[:5], None, row[5:]) for row in rows]
    elif query.view == "hours":
        groups = "SELECT DISTINCT t.hour, l.connection_id, l.kind FROM hour_total t JOIN line l ON l.id = t.line"
        count = database.rows(f"SELECT count(*) FROM ({groups}) q")[0][0]
        still = database.rows(f"SELECT count(*) FROM ({groups} WHERE t.hour > ?) q", (final,))[0][0]
        shown = _first_of_hours(database, query, limit)
    else:
        count = int(database.rows("SELECT coalesce(sum(hours), 0) FROM session_model")[0][0])
        still = database.rows(
            "SELECT count(*) FROM (SELECT DISTINCT b.session, b.hour, l.kind FROM bucket b JOIN line l ON l.id = b.line"
            " WHERE b.hour > ?) q",
            (final,),
        )[0][0]
        shown = _first_hours(database, limit)
    table = Table(query)
    for part in shown:
        table.add_part(part)
    return TablePage(list(table.rows(now_ns))[:limit], int(count), int(still), connections), totals


def _first_of_hours(database: Database, query: Query, limit: int) -> list[CostPart]:
    """Return the rows of the first hours that together have at least `limit` rows."""
    reach, dimensions = limit, Table(query).dimensions
    while True:
        reach *= 4
        last = database.rows("SELECT hour FROM hour_total ORDER BY hour LIMIT 1 OFFSET ?", (reach,))
        until = int(last[0][0]) + 1 if last else None
        found = list(_from_hours(database, Query(query.view, coarse=query.coarse, until=until), dimensions))
        if len(found) >= limit or not last:
            return found


def _first_hours(database: Database, limit: int) -> list[CostPart]:
    """Return the rows of the first hours, `limit` of them at least where there are as many."""
    found: list[CostPart] = []
    reach = limit
    while True:
        reach *= 4
        last = database.rows("SELECT hour FROM bucket ORDER BY hour LIMIT 1 OFFSET ?", (reach,))
        where = " WHERE b.hour <= ?" if last else ""
        rows = database.rows(
            "SELECT s.connection_id, l.client, s.session_id, l.model, l.service_tier, b.hour, max(b.version),"
            f" {_SUMS} FROM bucket b JOIN line l ON l.id = b.line JOIN session s ON s.id = b.session{where}"
            " GROUP BY 1, 2, 3, 4, 5, 6",
            last[0] if last else (),
        )
        found = [_row(row[:3], row[5], (row[5], *row[6:]), row[3:5]) for row in rows]
        if len(found) >= limit or not last:
            return found


def _row(names: Row, hour: int | None, rest: Row, more: Row = ()) -> CostPart:
    """Return a part out of names, hour where the view has hours, and (last hour, version, sums)."""
    counts, money = _sums(rest, 2, priced=rest[2 + _WIDTH] is not None, reports=rest[4 + _WIDTH] is not None)
    middle = names[:3] if hour is None else (*names[:3], hour_iso(int(hour)))
    key = (*middle, *(names[3:] or more))
    return CostPart(key, counts, *money, hour_iso(int(rest[0])), unpack_version(int(rest[1])), 0)
