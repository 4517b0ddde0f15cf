"""The sums that the ledger keeps beside the buckets, changed in the transaction that changes the buckets.

Hours and days (`hour_total`, `day_total`) change by the difference between new buckets and those they replace. Sessions
(`session`, `session_model`, `part`) are recomputed from their own buckets. So a batch costs as much as it changes,
whatever the ledger's size.
"""

from __future__ import annotations

from tallystream.agents.ledger.schema import LO, MONEY
from tallystream.agents.ledger.store.database import Database
from tallystream.schemas.rows import SUM_COUNTS

NUMBERS = ", ".join((*SUM_COUNTS, *MONEY))
_TOTALS = ("buckets", "priced", "reports", *SUM_COUNTS, *MONEY)
_HOUR = ", ".join(("hour", "line", "crew", "version", *_TOTALS))
GROWN = f"grown ({', '.join(f'{name} {{int}}' for name in _HOUR.split(', '))})"
"""The temporary table of what a batch adds to hours."""
COUNTED = ", ".join(f"sum(b.{name}) AS {name}" for name in SUM_COUNTS)
EXACT = ", ".join(
    f"sum(b.{one}_hi) + CAST(sum(b.{one}_lo) AS {{int}}) / {LO} AS {one}_hi,"
    f" CAST(sum(b.{one}_lo) AS {{int}}) % {LO} AS {one}_lo"
    for one in ("cost", "reported")
)
"""Sums of the buckets `b`: counts, and money."""
_PART = (
    f"INSERT INTO part (attribution, line, session, first_hour, last_hour, version, {NUMBERS})"
    f" SELECT b.attribution, b.line, b.session, min(b.hour), max(b.hour), max(b.version), {COUNTED}, {EXACT}"
)


def _one(alias: str, sign: str = "") -> str:
    """Return what a bucket adds to `_TOTALS`, or with `sign` takes away; absent money is 0."""
    whether = ", ".join(
        f"CASE WHEN {alias}.{money}_hi IS NULL THEN 0 ELSE {sign}1 END AS {name}"
        for money, name in (("cost", "priced"), ("reported", "reports"))
    )
    counts = ", ".join(f"{sign}{alias}.{name} AS {name}" for name in SUM_COUNTS)
    money = ", ".join(f"{sign}coalesce({alias}.{name}, 0) AS {name}" for name in MONEY)
    return f"{sign}1 AS buckets, {whether}, {counts}, {money}"


def change_hours(database: Database) -> None:
    """Change the sums of hours and days by the difference between the new buckets and those they replace."""
    database.execute(
        "INSERT INTO lost SELECT DISTINCT b.hour, b.line, a.crew FROM staged s CROSS JOIN bucket b"
        " CROSS JOIN attribution a WHERE b.session = s.session AND b.hour = s.hour AND a.id = b.attribution"
        " AND (s.reset = 1 OR NOT EXISTS (SELECT 1 FROM fresh f CROSS JOIN attribution x WHERE f.n = s.n"
        " AND f.line = b.line AND x.id = f.attribution AND x.crew = a.crew))"
    )
    database.execute("{empty} grown")
    database.execute(
        _hours(
            "grown",
            f"SELECT s.hour AS hour, f.line AS line, a.crew AS crew, s.version AS version, {_one('f')}"
            " FROM staged s CROSS JOIN fresh f CROSS JOIN attribution a WHERE f.n = s.n AND a.id = f.attribution"
            f" UNION ALL SELECT b.hour, b.line, a.crew, b.version, {_one('b', '-')}"
            " FROM staged s CROSS JOIN bucket b CROSS JOIN attribution a"
            " WHERE b.session = s.session AND b.hour = s.hour AND a.id = b.attribution",
        )
    )
    more = ", ".join(f"{name} = hour_total.{name} + excluded.{name}" for name in _TOTALS)
    database.execute(
        f"INSERT INTO hour_total ({_HOUR}) SELECT {_HOUR} FROM grown WHERE true"
        " ON CONFLICT (hour, line, crew) DO UPDATE SET"
        f" version = {{greatest}}(hour_total.version, excluded.version), {more}"
    )
    highest = ", ".join(
        f"{name} = {{greatest}}(day_total.{name}, excluded.{name})" for name in ("version", "last_hour")
    )
    more = more.replace("hour_total", "day_total")
    database.execute(f"{_days('grown')} ON CONFLICT (day, line, crew) DO UPDATE SET {highest}, {more}")


def _hours(table: str, buckets: str) -> str:
    sums = ", ".join(f"sum({name})" for name in _TOTALS)
    return (
        f"INSERT INTO {table} (hour, line, crew, version, {', '.join(_TOTALS)})"
        f" SELECT hour, line, crew, max(version), {sums} FROM ({buckets}) q GROUP BY hour, line, crew"
    )


def _days(hours: str) -> str:
    sums = ", ".join(f"sum({name})" for name in _TOTALS)
    return (
        f"INSERT INTO day_total (day, line, crew, version, last_hour, {', '.join(_TOTALS)})"
        f" SELECT hour / 24, line, crew, max(version), max(hour), {sums} FROM {hours} WHERE true"
        " GROUP BY hour / 24, line, crew"
    )


def newest_of_lost(database: Database) -> None:
    """Recompute the newest version where a bucket was removed, because it may have been the bucket's."""
    if not database.rows("SELECT 1 FROM lost LIMIT 1"):
        return
    database.execute(
        "UPDATE hour_total SET version = coalesce((SELECT max(b.version) FROM bucket b JOIN attribution a"
        " ON a.id = b.attribution WHERE b.hour = hour_total.hour AND b.line = hour_total.line"
        " AND a.crew = hour_total.crew), 0) WHERE (hour, line, crew) IN (SELECT hour, line, crew FROM lost)"
    )
    database.execute(
        "DELETE FROM hour_total WHERE buckets = 0 AND (hour, line, crew) IN (SELECT hour, line, crew FROM lost)"
    )
    of_day = (
        "FROM hour_total h WHERE h.hour >= d.day * 24 AND h.hour < d.day * 24 + 24"
        " AND h.line = d.line AND h.crew = d.crew"
    )
    database.execute(
        f"UPDATE day_total AS d SET version = coalesce((SELECT max(h.version) {of_day}), 0),"
        f" last_hour = coalesce((SELECT max(h.hour) {of_day}), 0)"
        " WHERE (day, line, crew) IN (SELECT hour / 24, line, crew FROM lost)"
    )
    database.execute(
        "DELETE FROM day_total WHERE buckets = 0 AND (day, line, crew) IN (SELECT hour / 24, line, crew FROM lost)"
    )


def sum_sessions(database: Database) -> None:
    """Recompute the sums of changed sessions."""
    run = database.execute
    run("DELETE FROM session_model WHERE session IN (SELECT session FROM touched)")
    run(
        f"INSERT INTO session_model (session, kind, hours, last_hour, version, {NUMBERS})"
        f" SELECT b.session, l.kind, count(DISTINCT b.hour), max(b.hour), max(b.version), {COUNTED}, {EXACT}"
        " FROM touched t CROSS JOIN bucket b CROSS JOIN line l WHERE b.session = t.session AND l.id = b.line"
        " GROUP BY b.session, l.kind"
    )
    run("DELETE FROM part WHERE session IN (SELECT session FROM touched)")
    run(
        f"{_PART} FROM touched t CROSS JOIN bucket b WHERE b.session = t.session"
        " GROUP BY b.session, b.line, b.attribution"
    )
    taken = ", ".join(f"{name} = q.{name}" for name in ("version", *SUM_COUNTS, *MONEY))
    run(
        f"UPDATE session SET first_hour = q.first_hour, last_hour = q.last_hour, {taken} FROM ("
        "SELECT b.session AS session, min(b.first_hour) AS first_hour, max(b.last_hour) AS last_hour,"
        f" max(b.version) AS version, {COUNTED}, {EXACT} FROM touched t CROSS JOIN part b"
        " WHERE b.session = t.session GROUP BY b.session) q WHERE session.id = q.session"
    )
    run(
        "UPDATE session SET duplicates = q.duplicates, changed_at = q.changed_at FROM (SELECT h.session AS session,"
        " sum(h.duplicates) AS duplicates, max(h.changed_at) AS changed_at FROM touched t CROSS JOIN session_hour h"
        " WHERE h.session = t.session GROUP BY h.session) q WHERE session.id = q.session"
    )
    run(
        "UPDATE session SET client = q.client FROM (SELECT session, max(client) AS client FROM staged"
        " WHERE client <> '' GROUP BY session) q WHERE session.id = q.session"
        " AND (session.client IS NULL OR session.client <> q.client)"
    )
    zero = ", ".join([f"{name} = 0" for name in SUM_COUNTS] + [f"{name} = NULL" for name in MONEY])
    run(
        f"UPDATE session SET first_hour = NULL, last_hour = NULL, version = NULL, {zero}"
        " WHERE id IN (SELECT session FROM touched)"
        " AND NOT EXISTS (SELECT 1 FROM part p WHERE p.session = session.id)"
    )
    run(
        "DELETE FROM session WHERE id IN (SELECT session FROM touched)"
        " AND NOT EXISTS (SELECT 1 FROM session_hour h WHERE h.session = session.id)"
    )


def fill(database: Database) -> None:
    """Fill empty `hour_total`, `day_total` and `part` from all buckets."""
    database.execute(
        _hours(
            "hour_total",
            f"SELECT b.hour AS hour, b.line AS line, a.crew AS crew, b.version AS version, {_one('b')}"
            " FROM bucket b JOIN attribution a ON a.id = b.attribution",
        )
    )
    database.execute(_days("hour_total"))
    database.execute(f"{_PART} FROM bucket b GROUP BY b.attribution, b.line, b.session")
