"""The rows of the largest tables as pieces of text that the database puts together: a million rows in a few seconds.

They are the rows of `cost.cost_table`, in the same order, for the views that have a row for each session or hour. The
database filters, adds up, sorts and writes the numbers; only names are left to the caller, who looks each one up once.
Rows are read one after the other, so the first is there before the last, and memory does not grow with their number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tallystream.agents.cost_query import Query
from tallystream.agents.ledger.amounts import OFFSETS
from tallystream.agents.ledger.queries.cost_sources import SUMS, CostSource, in_hours, in_range, sources
from tallystream.agents.ledger.rollups import COUNTED, EXACT
from tallystream.agents.ledger.schema import COLUMN, columns
from tallystream.agents.ledger.store.database import Database, Row
from tallystream.schemas.hours import last_final_hour
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.schemas.usage import ATTRIBUTION_KEYS

VIEWS = ("sessions", "session-hours", "hours")
OF_LINE = ("connection_id", "client", "model", "service_tier", "book")
"""The dimensions of these views that a line has."""
MOST_SHARED = 100
"""Lines that are told apart one by one in SQL; there are more only where tiers or prices change all the time."""
_FIELD = re.compile(r"\{(\w+)\}")
_RANK = ("cost_hi", "cost_lo", "total_tokens")


@dataclass(frozen=True)
class LineForm:
    """How numbers are written. Each text between two names has the names of numbers in braces: counts, `cost_usd`,
    `reported_cost_usd`, `final`, `generation` and `offset`.
    """

    texts: Sequence[str]
    absent: str
    """Instead of dollars when nothing has a price."""
    quote: str
    """Around dollars."""
    minus: str


class CostLines:
    """The rows of a query. Use it within `reading`; `suits` tells first whether it can be used."""

    def __init__(self, database: Database, query: Query, now_ns: int) -> None:
        self._database = database
        self.query = query
        self._final = last_final_hour(now_ns)
        self._hourly = "hour" in query.dimensions
        self.lines: dict[int, tuple[Any, ...]] = {
            number: tuple(names)
            for number, *names in database.rows(f"SELECT id, {', '.join(OF_LINE)} FROM line ORDER BY id")
        }
        """The names OF_LINE of each line."""
        first: dict[tuple[Any, ...], int] = {}
        same: defaultdict[int, list[int]] = defaultdict(list)
        for number, names in self.lines.items():
            same[first.setdefault(names, number)].append(number)
        self._shared = {number: one for one, numbers in same.items() if len(numbers) > 1 for number in numbers}

    @property
    def suits(self) -> bool:
        """Whether these are the rows of the query."""
        query = self.query
        plain = query.view in VIEWS and not query.by and query.tree is None and query.coarse is None
        return plain and len(self._shared) <= MOST_SHARED

    def attributions(self) -> dict[int, tuple[Any, ...]]:
        """Return the values of ATTRIBUTION_KEYS of each attribution; 0 stands for none."""
        names = ", ".join(COLUMN[name] for name in ATTRIBUTION_KEYS)
        found = self._database.stream(f"SELECT id, {names} FROM attribution")
        return {number: tuple(values) for number, *values in found} | {0: (None,) * len(ATTRIBUTION_KEYS)}

    def sessions(self) -> dict[int, str]:
        """Return the session id of each session that a row may be of."""
        sql, query = "SELECT s.id, s.session_id FROM session s", self.query
        if query.view == "hours":
            return {}
        if query.connection is None and query.session is None:
            return dict(self._database.stream(sql))
        wanted = sources(query, hourly=self._hourly)
        which = " UNION ".join(f"SELECT b.session {one.joined()}" for one in wanted)
        parameters = [value for one in wanted for value in one.parameters]
        return dict(self._database.stream(f"{sql} WHERE s.id IN ({which})", parameters))

    def rows(self, form: LineForm, names: Callable[[Row], Any]) -> Iterator[Row]:
        """Yield the rows in their order: ids of line, attribution and session, the newest hour, three values that rank
        them, and the texts of the form. `names` returns what decides between rows of equal rank.
        """
        begin, end = 3 if self._hourly else 4, 4 + len(_RANK)
        known: Row | None = None
        equal: list[Row] = []
        for row in self._stream(form):
            rank = row[begin:end]
            if rank != known:
                if len(equal) > 1:
                    equal.sort(key=names)
                yield from equal
                equal, known = [], rank
            equal.append(row)
        equal.sort(key=names)
        yield from equal

    def _stream(self, form: LineForm) -> Iterator[Row]:
        parts, parameters = list[str](), list[object]()
        for part, own in self._parts():
            parts.append(part)
            parameters += own
        texts = ", ".join(self._text(text, form) for text in form.texts)
        order = ["q.hour"] * self._hourly
        order += ["q.cost_hi IS NULL", "q.cost_hi DESC", "q.cost_lo DESC", "q.total_tokens DESC"]
        return self._database.stream(
            f"SELECT q.line, q.attribution, q.session, q.hour, {columns(_RANK, 'q.')}, {texts}"
            f" FROM ({' UNION ALL '.join(parts)}) q ORDER BY {', '.join(order)}",
            parameters,
        )

    def _parts(self) -> Iterator[tuple[str, Sequence[object]]]:
        """Yield SELECTs that together have each row once."""
        query = self.query
        if in_hours(query, query.dimensions):
            yield self._of_hours()
            return
        shared = f"({', '.join(map(str, self._shared))})"
        for source in sources(query, hourly=self._hourly):
            if query.view == "hours" or (not self._hourly and source.tables != "part b"):
                yield self._added_up(source)
            elif self._shared:
                yield self._as_is(replace(source, where=(*source.where, f"b.line NOT IN {shared}")))
                yield self._added_up(replace(source, where=(*source.where, f"b.line IN {shared}")))
            else:
                yield self._as_is(source)

    def _as_is(self, source: CostSource) -> tuple[str, Sequence[object]]:
        return (
            f"SELECT b.line AS line, b.attribution AS attribution, b.session AS session, {source.hour} AS hour,"
            f" b.version AS version, {columns(SUMS, 'b.')} {source.joined()}"
        ), source.parameters

    def _added_up(self, source: CostSource) -> tuple[str, Sequence[object]]:
        """Return sums by session, unless the view has none, and by lines that are the same to these views."""
        single = self.query.view != "hours"
        attribution, session = ("b.attribution", "b.session") if single else ("0", "0")
        by = [self._line, *([attribution, session] * single), *(["b.hour"] * self._hourly)]
        return (
            f"SELECT {self._line} AS line, {attribution} AS attribution, {session} AS session,"
            f" max({source.hour}) AS hour, max(b.version) AS version, {COUNTED}, {EXACT}"
            f" {source.joined()} GROUP BY {', '.join(by)}"
        ), source.parameters

    def _of_hours(self) -> tuple[str, Sequence[object]]:
        """Return the sums of hours, whose money is 0 where nothing has a price."""
        where, parameters = in_range(self.query, "b.hour")
        if self.query.connection is not None:
            where.append("b.line IN (SELECT id FROM line WHERE connection_id = ?)")
            parameters.append(self.query.connection)
        source = CostSource("hour_total b", "b.hour", tuple(where), tuple(parameters))
        money = ", ".join(
            f"CASE WHEN h.{known} > 0 THEN h.{money}_{half} END AS {money}_{half}"
            for money, known in (("cost", "priced"), ("reported", "reports"))
            for half in ("hi", "lo")
        )
        return (
            f"SELECT {columns(('line', 'attribution', 'session', 'hour', 'version', *SUM_COUNTS), 'h.')}, {money} FROM"
            f" (SELECT {self._line} AS line, 0 AS attribution, 0 AS session, b.hour AS hour, max(b.version) AS version,"
            f" sum(b.priced) AS priced, sum(b.reports) AS reports, {COUNTED}, {EXACT} {source.joined()}"
            f" GROUP BY b.hour, {self._line}) h"
        ), source.parameters

    @property
    def _line(self) -> str:
        if not self._shared:
            return "b.line"
        return f"CASE b.line {' '.join(f'WHEN {one} THEN {to}' for one, to in self._shared.items())} ELSE b.line END"

    def _text(self, text: str, form: LineForm) -> str:
        """Return the SQL that puts a text together."""
        literal = _FIELD.sub("%s", text.replace("%", "%%")).replace("'", "''")
        return f"{{printf}}('{literal}', {', '.join(self._field(name, form) for name in _FIELD.findall(text))})"

    def _field(self, name: str, form: LineForm) -> str:
        match name:
            case "cost_usd" | "reported_cost_usd":
                hi, lo = ("q.cost_hi", "q.cost_lo") if name == "cost_usd" else ("q.reported_hi", "q.reported_lo")
                usd = self._database.dialect.words["usd"].replace("$hi", hi).replace("$lo", lo)
                minus = f"CASE WHEN {hi} < 0 THEN {_quoted(form.quote + form.minus)} ELSE {_quoted(form.quote)} END"
                return (
                    f"CASE WHEN {hi} IS NULL THEN {_quoted(form.absent)} ELSE {minus} || {usd} ||"
                    f" {_quoted(form.quote)} END"
                )
            case "final":
                return f"CASE WHEN q.hour <= {self._final} THEN 'true' ELSE 'false' END"
            case "generation":
                return f"q.version / {OFFSETS}"
            case "offset":
                return f"q.version % {OFFSETS}"
            case _:
                return f"q.{name}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
