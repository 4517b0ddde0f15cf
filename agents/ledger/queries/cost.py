"""The cost tables from the ledger: the same rows, in the same order, as `cost_query.Table` returns from the topic.

The database filters and adds up, and a `Table` does the rest, so that the format of a row is defined in one place.
`first_rows.py` has the tables of which only the first rows are shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from tallystream.agents.cost_query import Query
from tallystream.agents.cost_table import PLAN, Table
from tallystream.agents.ledger.amounts import join_money
from tallystream.agents.ledger.queries.cost_sources import ALL, Chosen, cost_parts, in_range, named, sources
from tallystream.agents.ledger.queries.coverage import seen_sessions
from tallystream.agents.ledger.schema import COLUMN
from tallystream.agents.ledger.store.database import Database
from tallystream.schemas.hours import hour_iso


def cost_table(database: Database, query: Query, grouping: Grouping | None = None) -> Table:
    """Return the complete table of a query; call it within `reading`. `grouping`: of its dimensions, if it is there."""
    table = Table(query)
    # a row may include sessions that the filter does not name: the table itself selects them
    asked = query if query.tree is None else replace(query, session=None, tree=None)
    parts: Counter[tuple[Any, ...]] | None = Counter()
    for part in cost_parts(database, asked, table.dimensions):
        table.add_part(part)
        if part.rows is None or parts is None:
            parts = None
        else:
            parts[part.key] += part.rows
    if query.by:
        table.count_sessions(_number_of_sessions(database, asked, table.dimensions, parts, grouping))
    if query.shares:
        table.seen = seen_sessions(database, None if not query.filtered else table.members())
    members = table.members() if query.tree is not None and query.session is not None else None
    add_notes(database, table, asked, ALL if members is None else Chosen(members))
    return table


def add_notes(database: Database, table: Table, query: Query, chosen: Chosen = ALL) -> None:
    """Set what is shown below a table."""
    table.unpriced = _unpriced(database, query, chosen)
    table.plan = plan_cost(database, query, chosen)
    table.skipped = skipped_records(database)


def skipped_records(database: Database) -> int:
    """Return how many records are not cost rows."""
    return int(database.rows("SELECT count(*) FROM unreadable WHERE reason = 'skipped'")[0][0])


class Grouping:
    """Gives equal values of some dimensions the same number, so that rows can be told apart by their ids alone.

    With `crews`, ids of crews take the place of those of attributions.
    """

    def __init__(self, database: Database, dimensions: Sequence[str], *, crews: bool = False) -> None:
        self._of_line = [name for name in dimensions if name not in (*COLUMN, "hour", "session_id")]
        self.lines, self._lines = _numbered(database, "line", self._of_line)
        self._of_attribution = [name for name in COLUMN if name in dimensions]
        columns = [COLUMN[name] for name in self._of_attribution]
        self.attributions, self._attributions = _numbered(database, "crew" if crews else "attribution", columns)
        self._dimensions = dimensions

    @property
    def one_line(self) -> bool:
        """Whether no dimension is of lines."""
        return not self._lines

    @property
    def all_equal(self) -> bool:
        """Whether no dimension is of lines or attributions."""
        return not self._lines and not self._attributions

    @property
    def all_differ(self) -> bool:
        """Whether each line and each attribution has values of its own."""
        return all(len(set(one.values())) == len(one) for one in (self.lines, self.attributions))

    def key(self, line: int, attribution: int, session_id: str | None, hour: int | None) -> tuple[Any, ...]:
        """Return the names of numbers, in the order of a table's dimensions."""
        names = dict(zip(self._of_line, self._lines.get(line, ()), strict=False))
        names.update(zip(self._of_attribution, self._attributions.get(attribution, ()), strict=False))
        if hour is not None:
            names["hour"] = hour_iso(hour)
        names["session_id"] = session_id
        return tuple(names[name] for name in self._dimensions)

    def connections(self, lines: Iterable[int]) -> int:
        """Return how many connections the rows of these lines name; one that names none counts as one."""
        if "connection_id" not in self._of_line:
            return min(len(set(lines)), 1)
        place = self._of_line.index("connection_id")
        return len({self._lines[self.lines[line]][place] for line in lines})


def _numbered(
    database: Database, table: str, columns: Sequence[str]
) -> tuple[dict[int, int], dict[int, tuple[Any, ...]]]:
    """Return the number of each id, and the values of each number. Without columns, all ids have the number 0."""
    if not columns:
        return dict.fromkeys((int(number) for (number,) in database.stream(f"SELECT id FROM {table}")), 0), {}
    found, known = dict[int, int](), dict[tuple[Any, ...], int]()
    for number, *values in database.stream(f"SELECT id, {', '.join(columns)} FROM {table}"):
        found[number] = known.setdefault(tuple(values), number)
    return found, {number: values for values, number in known.items()}


def _number_of_sessions(
    database: Database,
    query: Query,
    dimensions: Sequence[str],
    parts: Mapping[tuple[Any, ...], int] | None,
    grouping: Grouping | None,
) -> Mapping[tuple[Any, ...], int]:
    """Return the number of different sessions of each key. `parts`: how many sums of one session each a key has."""
    single = len(sources(query, hourly="hour" in dimensions)) == 1
    if parts is None or not single or database.dialect.name == "postgresql":
        return sessions_by(database, query, dimensions, grouping=grouping)
    numbers = dict(parts)
    rows = _SessionRows(database, query, dimensions, ALL, grouping)
    # Only a session with several parts can have several sums in a key.
    for hour, sessions in rows.read("b.session IN (SELECT session FROM part GROUP BY session HAVING count(*) > 1)"):
        for one, number in Counter(sessions).items():
            if number > 1:
                numbers[rows.key(hour, one)] -= number - 1
    return numbers


def sessions_by(
    database: Database,
    query: Query,
    dimensions: Sequence[str],
    chosen: Chosen = ALL,
    grouping: Grouping | None = None,
) -> Mapping[tuple[Any, ...], int]:
    """Return the number of different sessions of each key."""
    if database.dialect.name == "postgresql":
        return _sessions_in_sql(database, query, dimensions, chosen)
    # SQLite would sort all rows for this.
    rows = _SessionRows(database, query, dimensions, chosen, grouping)
    seen: dict[int | None, set[int]] = {}
    for hour, sessions in rows.read():
        seen.setdefault(hour, set()).update(sessions)
    found = Counter[tuple[Any, ...]]()
    for hour, different in seen.items():
        # Many of them are in one key, unless it names the session.
        groups = Counter(different) if rows.named else Counter(map(rows.of_both.__rmod__, different))
        for one, number in groups.items():
            found[rows.key(hour, one)] += number
    return found


class _SessionRows:
    """The rows of a query as numbers that tell sessions and groups apart.

    They are small enough to be quick: a set of tuples takes several times as long.
    """

    def __init__(
        self, database: Database, query: Query, dimensions: Sequence[str], chosen: Chosen, grouping: Grouping | None
    ) -> None:
        self._database = database
        self._grouping = Grouping(database, dimensions) if grouping is None else grouping
        self._hourly, self.named = "hour" in dimensions, "session_id" in dimensions
        self._sources = sources(query, hourly=self._hourly, chosen=chosen)
        self._of_lines = max(self._grouping.lines, default=0) + 1
        self.of_both = self._of_lines * (max(self._grouping.attributions, default=0) + 1)
        """How many groups there may be: a row's number modulo this is its group."""
        self._names: dict[int, str] = {}
        if self.named:
            sql = "SELECT id, session_id FROM session"
            if chosen.keys is not None:
                sql += f" WHERE id IN ({', '.join(map(str, chosen.keys)) or 'NULL'})"
            self._names = {int(key): name for key, name in database.stream(sql)}

    def read(self, *where: str) -> Iterator[tuple[int | None, list[int]]]:
        """Yield each hour, None if hours are not asked for, and the numbers of its rows; `where` adds conditions."""
        lines, of_both = self._grouping.lines, self.of_both
        attributions = {number: group * self._of_lines for number, group in self._grouping.attributions.items()}
        columns = "b.session, b.line, b.attribution"
        for source in self._sources:
            # No join: an index has all of it.
            if self._hourly:
                sql = f"SELECT {columns}, b.hour {source.joined(where=where)} ORDER BY b.hour"
                rows = self._database.stream(sql, source.parameters)
                for hour, of_hour in groupby(rows, itemgetter(3)):
                    yield hour, [s * of_both + lines[line] + attributions[group] for s, line, group, _ in of_hour]
            else:
                rows = self._database.stream(f"SELECT {columns} {source.joined(where=where)}", source.parameters)
                yield None, [s * of_both + lines[line] + attributions[group] for s, line, group in rows]

    def key(self, hour: int | None, number: int) -> tuple[Any, ...]:
        """Return the key of a row's number."""
        session, both = divmod(number, self.of_both)
        attribution, line = divmod(both, self._of_lines)
        return self._grouping.key(line, attribution, self._names.get(session), hour)


def _sessions_in_sql(
    database: Database, query: Query, dimensions: Sequence[str], chosen: Chosen
) -> dict[tuple[Any, ...], int]:
    hourly = "hour" in dimensions
    rows = sources(query, hourly=hourly, chosen=chosen)
    union = " UNION ALL ".join(
        f"SELECT b.session, b.line, b.attribution, {one.hour if hourly else '0'} AS hour {one.joined()}" for one in rows
    )
    names, joins = named(dimensions)
    by = ", ".join(str(place + 1) for place in range(len(names)))
    found = {}
    for *key, number in database.stream(
        f"SELECT {', '.join(names)}, count(DISTINCT b.session) FROM ({union}) b {' '.join(joins)} GROUP BY {by}",
        [value for one in rows for value in one.parameters],
    ):
        if hourly:
            at = dimensions.index("hour")
            key[at] = hour_iso(int(key[at]))
        found[tuple(key)] = int(number)
    return found


def _unpriced(database: Database, query: Query, chosen: Chosen) -> dict[tuple[str, str, str | None], int]:
    if query.session is not None or chosen != ALL:
        found = [
            (one.joined("JOIN line l ON l.id = b.line", where=["b.unpriced_requests > 0"]), one.parameters)
            for one in sources(query, hourly=False, chosen=chosen)
        ]
    else:
        where, parameters = in_range(query, "b.hour")
        if query.connection is not None:
            where.append("l.connection_id = ?")
            parameters.append(query.connection)
        # Most rows do not have any, so they are excluded before sorting.
        where.append("b.unpriced_requests > 0")
        tables = f"FROM hour_total b JOIN line l ON l.id = b.line WHERE {' AND '.join(where)}"
        found = [(tables, tuple(parameters))]
    requests = Counter[tuple[str, str, str | None]]()
    for tables, values in found:
        for provider, model, tier, number in database.rows(
            f"SELECT l.provider, l.model, l.service_tier, sum(b.unpriced_requests) {tables}"
            " GROUP BY l.provider, l.model, l.service_tier",
            values,
        ):
            requests[provider, model, tier] += int(number)
    return dict(requests)


def plan_cost(database: Database, query: Query, chosen: Chosen = ALL) -> int:
    """Return the part of a query's costs, in pico-dollars, that a plan pays for."""
    crews = [str(crew) for (crew,) in database.rows("SELECT id FROM crew WHERE billing = ?", (PLAN,))]
    if not crews:
        return 0
    if query.session is None and chosen == ALL:
        where, parameters = in_range(query, "b.hour")
        where.append(f"b.crew IN ({', '.join(crews)})")
        if query.connection is not None:
            where.append("b.line IN (SELECT id FROM line WHERE connection_id = ?)")
            parameters.append(query.connection)
        found = [(f"FROM hour_total b WHERE {' AND '.join(where)}", tuple(parameters))]
    else:
        join = f"JOIN attribution a ON a.id = b.attribution AND a.crew IN ({', '.join(crews)})"
        found = [(one.joined(join), one.parameters) for one in sources(query, hourly=False, chosen=chosen)]
    sums = (database.rows(f"SELECT sum(b.cost_hi), sum(b.cost_lo) {tables}", values)[0] for tables, values in found)
    return sum(join_money(hi, lo) or 0 for hi, lo in sums)
