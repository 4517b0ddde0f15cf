"""The console's queries for sessions: lists, one session with its buckets, what they are attributed to.

Money is in pico-dollars, None when nothing has a price. Lists are paginated by key, so that page 10,000
costs as much as page 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tallystream.agents.ledger.amounts import join_money
from tallystream.agents.ledger.schema import COLUMN, MONEY
from tallystream.agents.ledger.store.database import Database, Row
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.schemas.usage import ATTRIBUTION_KEYS

Sort = Literal["cost", "recent", "tokens"]


_ORDER: Mapping[str, tuple[str, ...]] = {
    "cost": ("s.cost_hi", "s.cost_lo", "s.id"),
    "recent": ("s.last_hour", "s.id"),
    "tokens": ("s.total_tokens", "s.id"),
}


@dataclass(frozen=True)
class SessionFilter:
    """Selects sessions. `since` is the first hour included, `until` the first one excluded. Texts match exactly,
    `search` is the beginning of an id.
    """

    search: str | None = None
    connection: str | None = None
    client: str | None = None
    model: str | None = None
    since: int | None = None
    until: int | None = None
    attribution: Mapping[str, str] | None = None
    without: str | None = None
    """Of which attribution key some usage has no value."""


@dataclass(frozen=True)
class SessionSummary:
    """One session in sums."""

    connection_id: str
    session_id: str
    client: str | None
    first_hour: int
    last_hour: int
    duplicates: int
    counts: Mapping[str, int]
    cost: int | None
    reported: int | None
    cursor: str
    """The cursor of the page after it."""
    key: int

    @property
    def name(self) -> tuple[str, str]:
        """Return (connection_id, session_id)."""
        return self.connection_id, self.session_id


@dataclass(frozen=True)
class BucketRow:
    """One bucket of a session's hour."""

    hour: int
    provider: str
    model: str
    service_tier: str | None
    speed: str | None
    book: str
    attribution: Mapping[str, str]
    counts: Mapping[str, int]
    cost: int | None
    reported: int | None
    version: int


def sessions(
    database: Database, wanted: SessionFilter, sort: Sort, limit: int, after: str | None = None
) -> list[SessionSummary]:
    """Return a page of sessions, the largest first; `after` is the cursor of the last one of the page before.

    Raises:
        ValueError: `after` is not a cursor of this sort.

    """
    where, parameters = _where(wanted)
    order = _ORDER[sort]
    if after is not None:
        where.append(_behind(order, _cursor(after, len(order)), parameters))
    by = ", ".join(f"{column} DESC{{nulls_last}}" if column != "s.id" else "s.id DESC" for column in order)
    rows = database.rows(
        f"SELECT {_SESSION} FROM session s WHERE {' AND '.join(where)} ORDER BY {by} LIMIT ?", (*parameters, limit)
    )
    place = {"cost": (7 + len(SUM_COUNTS), 8 + len(SUM_COUNTS), 0), "recent": (5, 0), "tokens": (7 + _TOKENS, 0)}[sort]
    return [_session(row, place) for row in rows]


def count_sessions(database: Database, wanted: SessionFilter, most: int) -> int:
    """Return how many sessions match, but at most `most`, because an exact large number is not worth a full scan."""
    where, parameters = _where(wanted)
    return int(
        database.rows(
            f"SELECT count(*) FROM (SELECT 1 FROM session s WHERE {' AND '.join(where)} LIMIT ?) q",
            (*parameters, most),
        )[0][0]
    )


def session(database: Database, connection_id: str, session_id: str) -> SessionSummary | None:
    """Return a session, None when it does not exist."""
    rows = database.rows(
        f"SELECT {_SESSION} FROM session s WHERE s.connection_id = ? AND s.session_id = ? AND s.first_hour IS NOT NULL",
        (connection_id, session_id),
    )
    return _session(rows[0], (0,)) if rows else None


def buckets(database: Database, key: int, limit: int) -> list[BucketRow]:
    """Return a session's buckets by hour, `limit` at most."""
    names = ["b.hour", "l.provider", "l.model", "l.service_tier", "l.speed", "l.book", "b.version"]
    names += [f"a.{COLUMN[name]}" for name in ATTRIBUTION_KEYS]
    names += [f"b.{name}" for name in (*SUM_COUNTS, *MONEY)]
    rows = database.rows(
        f"SELECT {', '.join(names)} FROM bucket b JOIN line l ON l.id = b.line"
        " JOIN attribution a ON a.id = b.attribution WHERE b.session = ?"
        " ORDER BY b.hour, l.model, l.service_tier, b.line, b.attribution LIMIT ?",
        (key, limit),
    )
    first = 7 + len(ATTRIBUTION_KEYS)
    found = []
    for row in rows:
        money = row[first + len(SUM_COUNTS) :]
        found.append(
            BucketRow(
                int(row[0]),
                row[1],
                row[2],
                row[3],
                row[4],
                row[5],
                {k: v for k, v in zip(ATTRIBUTION_KEYS, row[7:first], strict=True) if v is not None},
                dict(zip(SUM_COUNTS, map(int, row[first : first + len(SUM_COUNTS)]), strict=True)),
                join_money(money[0], money[1]),
                join_money(money[2], money[3]),
                int(row[6]),
            )
        )
    return found


def attributions(database: Database, keys: Sequence[int]) -> dict[int, dict[str, list[str]]]:
    """Return the attribution values of sessions, by their key and name."""
    if not keys:
        return {}
    marks = ", ".join("?" * len(keys))
    rows = database.rows(
        f"SELECT x.session, {', '.join('a.' + COLUMN[name] for name in ATTRIBUTION_KEYS)} FROM part x"
        f" JOIN attribution a ON a.id = x.attribution WHERE x.session IN ({marks})",
        tuple(keys),
    )
    found: dict[int, dict[str, list[str]]] = {}
    for row in rows:
        mine = found.setdefault(int(row[0]), {})
        for name, value in zip(ATTRIBUTION_KEYS, row[1:], strict=True):
            if value is not None and value not in mine.setdefault(name, []):
                mine[name].append(value)
    return found


def models_of(database: Database, keys: Sequence[int]) -> dict[int, list[str]]:
    """Return the models of sessions, by their key."""
    if not keys:
        return {}
    rows = database.rows(
        "SELECT DISTINCT x.session, k.model FROM session_model x JOIN kind k ON k.id = x.kind"
        f" WHERE x.session IN ({', '.join('?' * len(keys))}) ORDER BY 2",
        tuple(keys),
    )
    found: dict[int, list[str]] = {}
    for key, model in rows:
        found.setdefault(int(key), []).append(model)
    return found


_TOKENS = SUM_COUNTS.index("total_tokens")


_SESSION = "s.id, s.connection_id, s.session_id, s.client, s.first_hour, s.last_hour, s.duplicates, " + ", ".join(
    f"s.{name}" for name in (*SUM_COUNTS, *MONEY)
)


def _session(row: Row, place: Sequence[int]) -> SessionSummary:
    money = row[7 + len(SUM_COUNTS) :]
    return SessionSummary(
        row[1], row[2], row[3], int(row[4]), int(row[5]), int(row[6]),
        dict(zip(SUM_COUNTS, map(int, row[7 : 7 + len(SUM_COUNTS)]), strict=True)),
        join_money(money[0], money[1]), join_money(money[2], money[3]),
        "_".join("n" if row[at] is None else str(int(row[at])) for at in place), int(row[0]),
    )  # fmt: skip


def _cursor(text: str, width: int) -> list[int | None]:
    parts = text.split("_")
    if len(parts) != width or not all(part == "n" or part.removeprefix("-").isdecimal() for part in parts):
        raise ValueError("not a cursor")
    return [None if part == "n" else int(part) for part in parts]


def _behind(order: Sequence[str], at: Sequence[int | None], parameters: list[Any]) -> str:
    """Return the SQL condition for rows after a cursor, in descending order with NULLs last."""
    terms, equal = [], list[str]()
    same: list[Any] = []
    for column, value in zip(order, at, strict=True):
        if value is not None:
            lower = f"({column} < ? OR {column} IS NULL)" if column.endswith(("_hi", "_lo")) else f"{column} < ?"
            terms.append(" AND ".join([*equal, lower]))
            parameters += [*same, value]
            equal.append(f"{column} = ?")
            same.append(value)
        else:
            equal.append(f"{column} IS NULL")
    return "(" + " OR ".join(f"({term})" for term in terms) + ")" if terms else "1 = 0"


def _where(wanted: SessionFilter) -> tuple[list[str], list[Any]]:
    where, parameters = ["s.first_hour IS NOT NULL"], list[Any]()

    def add(condition: str, *values: object) -> None:
        where.append(condition)
        parameters.extend(values)

    if wanted.search:
        # A range instead of LIKE, because it can use an index and does not interpret `%`.
        add("s.session_id >= ? AND s.session_id < ?", wanted.search, wanted.search + "\U0010ffff")
    if wanted.connection:
        add("s.connection_id = ?", wanted.connection)
    if wanted.client:
        add("s.client = ?", wanted.client)
    if wanted.since is not None:
        add("s.last_hour >= ?", wanted.since)
    if wanted.until is not None:
        add("s.first_hour < ?", wanted.until)
    if wanted.model:
        add(
            "EXISTS (SELECT 1 FROM session_model x JOIN kind k ON k.id = x.kind"
            " WHERE x.session = s.id AND k.model = ?)",
            wanted.model,
        )
    given = {name: value for name, value in (wanted.attribution or {}).items() if value}
    if given or wanted.without:
        same = " AND ".join(
            [f"a.{COLUMN[name]} = ?" for name in given]
            + ([f"a.{COLUMN[wanted.without]} IS NULL"] if wanted.without else [])
        )
        add(
            "EXISTS (SELECT 1 FROM part x JOIN attribution a ON a.id = x.attribution"
            f" WHERE x.session = s.id AND {same})",
            *given.values(),
        )
    return where, parameters
