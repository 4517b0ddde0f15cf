"""The first rows of a table with very many rows: the same rows, sums and facts as the complete table's, in less time.

Tables by hour are read hour by hour until there are enough rows. Of tables with a row for each session or person, a
pass over ids and costs tells which have the first rows, and only those are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from heapq import nsmallest
from itertools import groupby
from operator import add, itemgetter
from typing import Any

from tallystream.agents.cost_query import Query
from tallystream.agents.cost_sums import CostPart
from tallystream.agents.cost_table import Table, TablePage
from tallystream.agents.ledger.amounts import join_money, unpack_version
from tallystream.agents.ledger.queries.cost import Grouping, add_notes, cost_table, sessions_by
from tallystream.agents.ledger.queries.cost_sources import (
    ALL,
    SUMS,
    Chosen,
    cost_parts,
    in_hours,
    in_range,
    named,
    sources,
    sums_of,
)  # fmt: skip
from tallystream.agents.ledger.queries.coverage import seen_sessions
from tallystream.agents.ledger.schema import columns
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.session_tree import SessionKey
from tallystream.schemas.hours import hour_iso, last_final_hour

MOST = 2_000
"""Maximum number of sessions or attributions that are read one by one; beyond it, the complete table is."""
FEW = 2_000
"""Up to so many groups of attributions the complete table takes no longer than its first rows."""
_SESSIONS = ("connection_id", "client", "session_id", "model", "service_tier")
_SESSION_HOURS = ("connection_id", "client", "session_id", "hour", "model", "service_tier")


@dataclass
class FirstRows:
    """Shown like a `cost_query.Table`."""

    query: Query
    skipped: int
    unpriced: dict[tuple[str, str, str | None], int]
    plan: int
    _page: TablePage
    _totals: dict[str, Any]

    def page(self, now_ns: int, limit: int) -> TablePage:  # noqa: ARG002 - both were given before
        """Return the rows to show."""
        return self._page

    def totals(self, now_ns: int) -> dict[str, Any]:  # noqa: ARG002
        """Return the sums over all rows."""
        return self._totals


def first_rows(
    database: Database, query: Query, limit: int, now_ns: int, *, few: int = FEW
) -> FirstRows | Table | None:
    """Return the first `limit` (above 0) rows, or the complete table; None when that is the better way. A table by
    attributions is read completely if they make at most `few` groups.

    Call it within `reading`. Sessions that a filter names are few, and so are the rows of models, teams and the like.
    """
    if query.session is not None:
        return None
    if "hour" in query.dimensions:
        page: TablePage | Table | None = _by_hour(database, query, limit, now_ns)
    else:
        page = _by_cost(database, query, limit, now_ns, few)
    if page is None or isinstance(page, Table):
        return page
    asked = replace(query, tree=None)
    whole = Table(Query("models", coarse=()))
    for part in cost_parts(database, asked, ()):
        whole.add_part(part)
    add_notes(database, whole, asked)
    return FirstRows(query, whole.skipped, whole.unpriced, whole.plan, page, whole.totals(now_ns))


def _table(database: Database, query: Query, chosen: Chosen, grouping: Grouping | None = None) -> Table:
    table = Table(query)
    asked = replace(query, tree=None)
    for part in cost_parts(database, asked, table.dimensions, chosen):
        table.add_part(part)
    if query.by:
        table.count_sessions(sessions_by(database, asked, table.dimensions, chosen, grouping))
    if query.shares:
        table.seen = seen_sessions(database, table.members())
    return table


# -- by hour


@dataclass
class _Facts:
    """About all rows: how many there are, how many can still grow, of how many connections they are."""

    total: int = 0
    still: int = 0
    connections: int = 0
    until: int | None = None
    """The hour after the first ones that have enough rows; None: all are needed."""


def _by_hour(database: Database, query: Query, limit: int, now_ns: int) -> TablePage | None:
    final = last_final_hour(now_ns)
    if not query.by and query.dimensions == _SESSION_HOURS and not query.filtered:
        facts = _of_all_session_hours(database, final)
        facts.until = _look(database, query, final, limit, whole=False).until
    else:
        facts = _look(database, query, final, limit, whole=True)
    asked = query if facts.until is None else replace(query, until=facts.until)
    page = _table(database, asked, ALL).page(now_ns, limit)
    return TablePage(page.rows, facts.total, facts.still, facts.connections)


def _look(database: Database, query: Query, final: int, limit: int, *, whole: bool) -> _Facts:
    """Go through the hours; unless the `whole` is asked for, until there are enough rows."""
    wanted, facts = query.dimensions, _Facts()
    crews = in_hours(query, wanted)
    where, parameters = in_range(query, "b.hour")
    if query.connection is not None:
        where.append("b.line IN (SELECT id FROM line WHERE connection_id = ?)")
        parameters.append(query.connection)
    condition = f" WHERE {' AND '.join(where)}" if where else ""
    table = "hour_total" if crews else "bucket"
    if whole and database.dialect.name == "postgresql" and "session_id" not in wanted:
        return _look_in_sql(database, query, final, limit, f"{table} b", condition, parameters)
    grouping = Grouping(database, wanted, crews=crews)
    used = set[int]()
    if "session_id" in wanted:
        counted = _sessions_each_hour(database, query, grouping, condition, parameters, used)
    else:
        counted = _groups_each_hour(database, grouping, f"{table} b{condition}", crews, parameters, used)
    for hour, number in counted:
        facts.total += number
        facts.still += number * (hour > final)
        if facts.until is None and facts.total >= limit:
            facts.until = int(hour) + 1
            if not whole:
                break
    facts.connections = grouping.connections(used)
    return facts


def _groups_each_hour(
    database: Database, grouping: Grouping, table: str, crews: bool, parameters: list[Any], used: set[int]
) -> Iterator[tuple[int, int]]:
    """Yield each hour and its number of different groups; `used` gets the lines. Only ids that matter are read."""
    lines, attributions = grouping.lines, grouping.attributions
    names, hour_of = "b.crew" if crews else "b.attribution", itemgetter(0)
    if grouping.one_line:
        used.update(int(line) for (line,) in database.rows(f"SELECT b.line FROM {table} LIMIT 1", parameters))
        rows = database.stream(f"SELECT b.hour, {names} FROM {table} ORDER BY b.hour", parameters)
        for hour, of_hour in groupby(rows, hour_of):
            yield hour, len({attributions[attribution] for _, attribution in of_hour})
        return
    rows = database.stream(f"SELECT b.hour, b.line, {names} FROM {table} ORDER BY b.hour", parameters)
    for hour, of_hour in groupby(rows, hour_of):
        pairs = set(map(itemgetter(1, 2), of_hour))
        used.update(line for line, _ in pairs)
        yield hour, len({(lines[line], attributions[attribution]) for line, attribution in pairs})


def _sessions_each_hour(
    database: Database, query: Query, grouping: Grouping, condition: str, parameters: list[Any], used: set[int]
) -> Iterator[tuple[int, int]]:
    """Yield each hour and its number of rows with a session; the database counts where ids alone tell rows apart."""
    heads, table = _Heads(database, query).heads, f"FROM bucket b{condition}"
    lines, attributions = grouping.lines, grouping.attributions
    if not heads and grouping.all_differ:
        counted = database.stream(f"SELECT b.hour, b.line, count(*) {table} GROUP BY b.hour, b.line", parameters)
        numbers = Counter[int]()
        for hour, line, number in counted:
            numbers[hour] += number
            used.add(line)
        yield from sorted(numbers.items())
        return
    if not heads and grouping.all_equal:
        used.update(int(line) for (line,) in database.rows(f"SELECT b.line {table} LIMIT 1", parameters))
        sql = f"SELECT b.hour, count(DISTINCT b.session) {table} GROUP BY b.hour ORDER BY b.hour"
        yield from database.stream(sql, parameters)
        return
    sql = f"SELECT b.hour, b.line, b.attribution, b.session {table} ORDER BY b.hour"
    for hour, of_hour in groupby(database.stream(sql, parameters), itemgetter(0)):
        here = list(of_hour)
        used.update(row[1] for row in here)
        yield hour, len({(heads.get(row[3], row[3]), lines[row[1]], attributions[row[2]]) for row in here})


def _look_in_sql(
    database: Database, query: Query, final: int, limit: int, table: str, condition: str, parameters: list[Any]
) -> _Facts:
    """Count in the database, which can do it without sorting and is slow to send rows."""
    wanted, facts = query.dimensions, _Facts()
    names, joins = named(wanted, crews=table.startswith("hour_total"))
    columns = ", ".join(f"{column} AS c{place}" for place, column in enumerate(names))
    hour = f"c{wanted.index('hour')}"
    for at, number in database.rows(
        f"SELECT {hour}, count(*) FROM (SELECT DISTINCT {columns} FROM {table} {' '.join(joins)}{condition}) q"
        f" GROUP BY {hour} ORDER BY {hour}",
        parameters,
    ):
        facts.total += int(number)
        facts.still += int(number) * (at > final)
        if facts.until is None and facts.total >= limit:
            facts.until = int(at) + 1
    facts.connections = min(facts.total, 1)
    if "connection_id" in wanted:
        used = f"SELECT DISTINCT b.line FROM {table}{condition}"
        counted = f"SELECT count(DISTINCT connection_id) FROM line WHERE id IN ({used})"
        facts.connections = int(database.rows(counted, parameters)[0][0])
    return facts


def _of_all_session_hours(database: Database, final: int) -> _Facts:
    """Return the facts of the narrow table of all sessions and hours, whose rows are counted already."""
    total = database.rows("SELECT coalesce(sum(hours), 0) FROM session_model")[0][0]
    still = database.rows(
        "SELECT count(*) FROM (SELECT DISTINCT b.session, b.hour, l.kind FROM bucket b JOIN line l ON l.id = b.line"
        " WHERE b.hour > ?) q",
        (final,),
    )[0][0]
    return _Facts(int(total), int(still), _connections(database))


def _connections(database: Database) -> int:
    """Return how many connections have usage."""
    used = "EXISTS (SELECT 1 FROM session s WHERE s.connection_id = l.connection_id AND s.first_hour IS NOT NULL)"
    return int(database.rows(f"SELECT count(DISTINCT l.connection_id) FROM line l WHERE {used}")[0][0])


# -- by cost


class _Heads:
    """Tells which session's row a session is added to: its own, or with a tree that of the session at the top."""

    def __init__(self, database: Database, query: Query) -> None:
        self.heads: dict[int, object] = {}
        """What sessions of the same row have in common, of sessions that are not alone in their row."""
        tree, named = query.tree, "connection_id" in query.dimensions
        if tree is None and named:
            return
        for key, connection, session in _namesakes(database) if tree is None else _sessions(database, tree.linked()):
            top = session if tree is None else tree.root(connection, session)
            self.heads[key] = (connection, top) if named else top

    def among(self, heads: set[object]) -> list[int]:
        """Return the sessions of these rows."""
        own = [head for head in heads if isinstance(head, int)]
        return own + [session for session, head in self.heads.items() if head in heads]


def _namesakes(database: Database) -> Iterator[tuple[int, str, str]]:
    """Yield (key, connection_id, session_id) of the few sessions of several connections that have the same id."""
    yield from database.stream(
        "SELECT id, connection_id, session_id FROM session WHERE session_id IN"
        " (SELECT session_id FROM session GROUP BY session_id HAVING count(*) > 1)"
    )


def _sessions(database: Database, wanted: Collection[SessionKey]) -> Iterator[tuple[int, str, str]]:
    """Yield (key, connection_id, session_id) of these sessions, as far as they exist, or at choice of all."""
    sql = "SELECT id, connection_id, session_id FROM session"
    if len(wanted) > MOST:
        yield from database.stream(sql)
        return
    for name in wanted:
        yield from database.rows(f"{sql} WHERE connection_id = ? AND session_id = ?", name)


def _of_all_sessions(database: Database, query: Query, limit: int, now_ns: int) -> TablePage:
    """Return the page of the narrow table of all sessions, whose sums are kept by its dimensions."""
    final = last_final_hour(now_ns)
    total, still = database.rows(
        "SELECT count(*), (SELECT count(*) FROM session_model WHERE last_hour > ?) FROM session_model", (final,)
    )[0]
    names = "s.connection_id, k.client, s.session_id, k.model, k.service_tier"
    table = Table(query)
    for row in database.rows(
        f"SELECT {names}, m.last_hour, m.version, {columns(SUMS, 'm.')} FROM session_model m"
        " JOIN session s ON s.id = m.session JOIN kind k ON k.id = m.kind"
        " ORDER BY m.cost_hi DESC{nulls_last}, m.cost_lo DESC{nulls_last}, m.total_tokens DESC, s.connection_id,"
        " k.client, s.session_id, k.model, k.service_tier IS NOT NULL, k.service_tier LIMIT ?",
        (limit,),
    ):
        counts, money = sums_of(row, 7, priced=row[-4] is not None, reports=row[-2] is not None)
        table.add_part(CostPart(row[:5], counts, *money, hour_iso(int(row[5])), unpack_version(int(row[6]))))
    table.seen = seen_sessions(database, table.members())
    return TablePage(list(table.rows(now_ns)), int(total), int(still), _connections(database))


def _by_cost(database: Database, query: Query, limit: int, now_ns: int, few: int) -> TablePage | Table | None:
    if not query.by and query.tree is None and query.dimensions == _SESSIONS and not query.filtered:
        return _of_all_sessions(database, query, limit, now_ns)
    final = last_final_hour(now_ns)
    single = "session_id" in query.dimensions
    grouping = Grouping(database, Table(query).dimensions)
    lines, attributions = grouping.lines, grouping.attributions
    if not single and len(set(attributions.values())) <= few:
        return cost_table(database, query, grouping)
    heads = _Heads(database, query) if single else None
    if heads is not None and not heads.heads and (page := _ranked(database, query, grouping, limit, now_ns)):
        return page
    top = None if heads is None else heads.heads.get
    found: dict[tuple[object, int, int], list[int]] = {}
    used = set[int]()
    for source in sources(query, hourly=False):
        if top is None:
            # Parts are stored by attribution and line, so adding up by them needs no sorting.
            line, by = ("min(b.line)", "") if grouping.one_line else ("b.line", ", b.line")
            sql = (
                f"SELECT 0, {line}, b.attribution, max({source.hour}), count(b.cost_hi), coalesce(sum(b.cost_hi), 0),"
                f" coalesce(sum(b.cost_lo), 0), sum(b.total_tokens) {source.joined()} GROUP BY b.attribution{by}"
            )
        else:
            sql = (
                f"SELECT b.session, b.line, b.attribution, {source.hour}, b.cost_hi IS NOT NULL,"
                f" coalesce(b.cost_hi, 0), coalesce(b.cost_lo, 0), b.total_tokens {source.joined()}"
            )
        for session, line, attribution, *sums in database.stream(sql, source.parameters):
            used.add(line)
            key = 0 if top is None else top(session, session), lines[line], attributions[attribution]
            have = found.get(key)
            if have is None:
                found[key] = sums
            else:
                found[key] = [max(have[0], sums[0]), have[1] or sums[1], *map(add, have[2:], sums[2:])]
    ranked = {key: _rank(sums) for key, sums in found.items()}
    first = nsmallest(limit, ranked.values())
    wanted = [key for key, rank in ranked.items() if rank <= first[-1]] if first else []
    if heads is not None:
        keys = heads.among({head for head, _, _ in wanted})
        chosen = Chosen(keys=keys)
    else:
        numbers = {attribution for _, _, attribution in wanted}
        keys = [attribution for attribution, number in attributions.items() if number in numbers]
        chosen = Chosen(attributions=keys)
    if len(keys) > MOST:
        return None
    page = _table(database, query, chosen, grouping).page(now_ns, limit)
    still = sum(sums[0] > final for sums in found.values())
    return TablePage(page.rows, len(found), still, grouping.connections(used))


def _ranked(database: Database, query: Query, grouping: Grouping, limit: int, now_ns: int) -> TablePage | None:
    """Return the page as the database ranks the rows, None where it cannot: each part must be a row of its own, or each
    session, and no two rows of equal rank may be on both sides of the page's end.
    """
    wanted = sources(query, hourly=False)
    if grouping.all_differ and len(wanted) == 1:
        table, session, line = wanted[0].joined(), "b.session", "b.line"
    elif grouping.all_equal and not query.filtered:
        table, session, line = "FROM session b WHERE b.first_hour IS NOT NULL", "b.id", "1"
    else:
        return None
    parameters = wanted[0].parameters
    top = database.rows(
        f"SELECT {session}, b.cost_hi, b.cost_lo, b.total_tokens {table} ORDER BY b.cost_hi DESC{{nulls_last}},"
        f" b.cost_lo DESC{{nulls_last}}, b.total_tokens DESC LIMIT ?",
        (*parameters, limit + 1),
    )
    if limit > MOST or (len(top) > limit and top[limit][1:] == top[limit - 1][1:]):
        return None
    page = _table(database, query, Chosen(keys={int(row[0]) for row in top[:limit]}), grouping).page(now_ns, limit)
    total, still, used = 0, 0, set[int]()
    for number, rows, growing in database.rows(
        f"SELECT {line}, count(*), sum(CASE WHEN b.last_hour > ? THEN 1 ELSE 0 END) {table} GROUP BY 1",
        (last_final_hour(now_ns), *parameters),
    ):
        total, still = total + int(rows), still + int(growing)
        used.add(int(number))
    return TablePage(page.rows, total, still, grouping.connections(used) if line != "1" else min(total, 1))


def _rank(sums: list[int]) -> tuple[bool, int, int]:
    """Return a row's place in the order of tables, without its names."""
    _, priced, hi, lo, tokens = sums
    return not priced, -(join_money(hi, lo) or 0), -tokens
