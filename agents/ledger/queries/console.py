"""The console's queries for totals, connections, dead letters and OpenAI's days; `sessions.py` has those for sessions.

Money is in pico-dollars, None when nothing has a price. All results are bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tallystream.agents.ledger.amounts import join_money
from tallystream.agents.ledger.store.database import Database, Row

Dimension = Literal["model", "team", "agent", "connection", "client"]
_DIMENSIONS: Mapping[str, str] = {
    "model": "l.model",
    "team": "m.team",
    "agent": "m.agent",
    "connection": "l.connection_id",
    "client": "l.client",
}
_TOTAL = "sum(t.requests), sum(t.total_tokens), sum(t.unpriced_requests), sum(t.priced), sum(t.cost_hi), sum(t.cost_lo)"


@dataclass(frozen=True)
class LedgerTotals:
    """Sums over hours."""

    requests: int = 0
    tokens: int = 0
    unpriced: int = 0
    cost: int | None = None


def changed(database: Database) -> dict[str, int]:
    """Return a number by topic that grows with every record."""
    return {
        str(t): int(n) for t, n in database.rows("SELECT topic, sum(next_offset) FROM ledger_position GROUP BY topic")
    }


def totals(database: Database, first: int, last: int) -> LedgerTotals:
    """Return the sums of the hours from `first` to `last`, inclusive."""
    row = database.rows(f"SELECT {_TOTAL} FROM hour_total t WHERE t.hour BETWEEN ? AND ?", (first, last))[0]
    return _totals(row)


def by_hour(database: Database, first: int, last: int) -> dict[int, LedgerTotals]:
    """Return the sums of each hour that is not empty."""
    rows = database.rows(
        f"SELECT t.hour, {_TOTAL} FROM hour_total t WHERE t.hour BETWEEN ? AND ? GROUP BY t.hour", (first, last)
    )
    return {int(row[0]): _totals(row[1:]) for row in rows}


def by_dimension(database: Database, name: Dimension, first: int, last: int) -> list[tuple[str | None, LedgerTotals]]:
    """Return the sums of each model, team, agent, connection or client, the most expensive first."""
    column = _DIMENSIONS[name]
    rows = database.rows(
        f"SELECT {column}, {_TOTAL} FROM hour_total t JOIN line l ON l.id = t.line JOIN crew m ON m.id = t.crew"
        f" WHERE t.hour BETWEEN ? AND ? GROUP BY {column}",
        (first, last),
    )
    found = [(row[0], _totals(row[1:])) for row in rows]
    return sorted(found, key=lambda item: (-(item[1].cost or 0), -item[1].tokens, item[0] or ""))


def _totals(row: Row) -> LedgerTotals:
    requests, tokens, unpriced, priced, hi, lo = row
    if requests is None:
        return LedgerTotals()
    return LedgerTotals(int(requests), int(tokens), int(unpriced), join_money(hi, lo) if priced else None)


# -- connections, dead letters, OpenAI


def connections(database: Database) -> list[dict[str, Any]]:
    """Return all connections, the newest first."""
    names = ("connection_id", "provider", "name", "created_at", "revoked_at", "old_until", "bearer")
    rows = database.rows(f"SELECT {', '.join(names)} FROM connection ORDER BY created_at DESC, connection_id")
    return [dict(zip(names, row, strict=True)) for row in rows]


def synced(database: Database) -> dict[str, dict[str, tuple[str, int, int]]]:
    """Return, by connection and signal, the time of the newest request, and the numbers of requests and records."""
    found: dict[str, dict[str, tuple[str, int, int]]] = {}
    for connection, signal, at, requests, records in database.rows(
        "SELECT connection_id, signal, max(last_synced_at), sum(requests), sum(records) FROM activity"
        " GROUP BY connection_id, signal"
    ):
        found.setdefault(connection, {})[signal] = (at, int(requests), int(records))
    return found


def cost_by_connection(database: Database, first: int, last: int) -> dict[str, LedgerTotals]:
    """Return the sums of each connection."""
    return {name or "": sums for name, sums in by_dimension(database, "connection", first, last)}


def dead_letter_reasons(database: Database) -> list[tuple[str, int, str]]:
    """Return (reason, letters, time of the newest), the most frequent first."""
    rows = database.rows("SELECT reason, count(*), max(at) FROM dead_letter GROUP BY reason ORDER BY 2 DESC, 1")
    return [(reason, int(number), newest) for reason, number, newest in rows]


def dead_letters(
    database: Database,
    limit: int,
    *,
    reason: str | None = None,
    session_id: str | None = None,
    connection: str | None = None,
    after: tuple[str, str] | None = None,
) -> list[str]:
    """Return documents (JSON), the newest first; `after` is (at, source) of the last one of the page before."""
    where, parameters = ["1 = 1"], list[Any]()
    for column, value in (("reason", reason), ("session_id", session_id), ("connection_id", connection)):
        if value is not None:
            where.append(f"{column} = ?")
            parameters.append(value[:300])
    if after is not None:
        where.append("(at < ? OR (at = ? AND source > ?))")
        parameters += [after[0], after[0], after[1]]
    rows = database.rows(
        f"SELECT document FROM dead_letter WHERE {' AND '.join(where)} ORDER BY at DESC, source LIMIT ?",
        (*parameters, limit),
    )
    return [document for (document,) in rows]


def dead_letter(database: Database, source: str) -> str | None:
    """Return a dead letter as a document (JSON)."""
    rows = database.rows("SELECT document FROM dead_letter WHERE source = ?", (source,))
    return rows[0][0] if rows else None


def bills_synced(database: Database) -> dict[str, str]:
    """Return when the newest numbers of each provider's own were fetched."""
    found = {}
    for (at,) in database.rows(
        "SELECT max(polled_at) FROM (SELECT max(polled_at) AS polled_at FROM openai_billed"
        " UNION ALL SELECT max(polled_at) FROM openai_used) q"
    ):
        if at is not None:
            found["openai"] = str(at)
    for provider, at in database.rows("SELECT provider, max(as_of) FROM reconciled GROUP BY provider"):
        if at is not None:
            found[provider] = max(found.get(provider, ""), str(at))
    return found


def openai_days(database: Database, since: str) -> tuple[list[Row], list[Row]]:
    """Return (day, model, project, resource, usd) billed, and (day, model, project, resource, name, amount) used."""
    billed = database.rows(
        "SELECT day, model, project_id, resource, usd FROM openai_billed WHERE day >= ? ORDER BY day DESC, model,"
        " project_id, resource",
        (since,),
    )
    used = database.rows(
        "SELECT day, model, project_id, resource, name, amount FROM openai_used WHERE day >= ?"
        " ORDER BY day DESC, model, project_id, resource, name",
        (since,),
    )
    return billed, used


def statements(database: Database, since: str, limit: int) -> list[str]:
    """Return the newest statements of bills as documents (JSON), of days from `since` (YYYY-MM-DD) on."""
    rows = database.rows(
        "SELECT document FROM reconciled WHERE day >= ? AND (as_of IS NOT NULL OR seen_tokens > 0 OR state = 'partial')"
        " ORDER BY day DESC, provider, scope LIMIT ?",
        (since, limit),
    )
    return [document for (document,) in rows]


def seen_by_day(database: Database, provider: str, first: int, last: int) -> dict[int, int | None]:
    """Return the telemetry's sums for a provider's models, by day since 1970."""
    rows = database.rows(
        "SELECT t.hour / 24, sum(t.priced), sum(t.cost_hi), sum(t.cost_lo) FROM hour_total t JOIN line l"
        " ON l.id = t.line WHERE l.provider = ? AND t.hour BETWEEN ? AND ? GROUP BY t.hour / 24",
        (provider, first, last),
    )
    return {int(day): join_money(hi, lo) if priced else None for day, priced, hi, lo in rows}
