"""Writes rows of `cost.session-hours` in bulk: they are staged in temporary tables, then merged by set operations in
SQL.

The cost of a batch depends on its size, not on the ledger's size: totals of hours change by the batch's difference, and
totals of sessions are recomputed from the session's own buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

import orjson

from tallystream.agents.ledger.records import SessionHourRow
from tallystream.agents.ledger.schema import COLUMN, LO, MONEY
from tallystream.agents.ledger.store.database import Database
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.schemas.usage import ATTRIBUTION_KEYS

_TEAM = ATTRIBUTION_KEYS.index("team")
_COUNTS = ", ".join(f"{name} {{int}} NOT NULL" for name in SUM_COUNTS)
_MONEY = ", ".join(f"{name} {{int}}" for name in MONEY)
_TEMPORARY = (
    "staged (n {int} PRIMARY KEY, connection_id {text}, session_id {text}, client {text}, hour {int}, version {int},"
    " gone {int}, reset {int}, duplicates {int}, partition {int}, record_offset {int}, changed_at {int},"
    " session {int})",
    f"fresh (n {{int}}, line {{int}}, attribution {{int}}, {_COUNTS}, {_MONEY}, PRIMARY KEY (n, line, attribution))",
    "lost (hour {int}, line {int}, team {int}, PRIMARY KEY (hour, line, team))",
    "touched (session {int} PRIMARY KEY)",
    "staged_witness (connection_id {text}, session_id {text}, source {text}, id {text}, hour {int}, client {text},"
    " version {text}, cumulative {int}, input_tokens {int}, output_tokens {int}, partition {int}, record_offset {int})",
    "staged_key (a {text}, b {text}, c {text})",
)
STAGED = (
    "n", "connection_id", "session_id", "client", "hour", "version", "gone", "reset", "duplicates", "partition",
    "record_offset", "changed_at",
)  # fmt: skip
_NUMBERS = ", ".join((*SUM_COUNTS, *MONEY))


def split_money(pico: int | None) -> tuple[int | None, int | None]:
    """Return pico-dollars as (hi, lo)."""
    return (None, None) if pico is None else divmod(pico, LO)


def join_money(hi: Any, lo: Any) -> int | None:
    """Return (hi, lo), or sums of them, as pico-dollars."""
    return None if hi is None else int(hi) * LO + int(lo)


def prepare(database: Database) -> None:
    """Create the temporary tables, which exist as long as the connection."""
    for table in _TEMPORARY:
        database.execute(f"CREATE {{temporary}} TABLE IF NOT EXISTS {table}")


class Names:
    """The ids of repeated names: lines, kinds, teams, attributions. Only the active writer may add ids.

    Known ids are cached; call `forget` when a transaction fails.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._ids: dict[str, dict[str, int]] = {}
        self._new: dict[str, list[tuple[Any, ...]]] = {}

    def forget(self) -> None:
        """Discard the cache; ids are read again on the next use."""
        self._ids.clear()
        self._new.clear()

    def line(self, connection_id: str, client: str, line: Sequence[str | None]) -> int:
        """Return the id of a line: who used which model, at which tier and price."""
        provider, model, tier, speed, book = line
        kind = self._id("kind", (client, model, tier))
        return self._id("line", (connection_id, client, provider, model, tier, speed, book), kind)

    def attribution(self, values: Sequence[str | None]) -> int:
        """Return the id of an attribution."""
        return self._id("attribution", tuple(values), self._id("team", (values[_TEAM],)))

    def store(self) -> None:
        """Write new ids within the transaction that uses them."""
        fields = {
            "kind": ("client", "model", "service_tier"),
            "line": ("connection_id", "client", "provider", "model", "service_tier", "speed", "book", "kind"),
            "team": ("name",),
            "attribution": (*COLUMN.values(), "team_id"),
        }
        for table, names in fields.items():
            if rows := self._new.pop(table, None):
                self._database.load(table, ("id", *names, "key"), rows)

    def _id(self, table: str, values: tuple[object, ...], *others: int) -> int:
        ids = self._ids.get(table)
        if ids is None:
            ids = self._ids[table] = {str(k): int(i) for i, k in self._database.rows(f"SELECT id, key FROM {table}")}
        # A hash, because the names may be longer than a database can index.
        key = sha256(orjson.dumps(values)).hexdigest()[:40]
        found = ids.get(key)
        if found is None:
            found = ids[key] = len(ids) + 1
            self._new.setdefault(table, []).append((found, *values, *others, key))
        return found


def stage(database: Database, names: Names, rows: Iterable[tuple[SessionHourRow, bool, bool, int, int, int]]) -> None:
    """Fill the temporary tables. Each row has (gone, reset, partition, offset, timestamp).

    `gone`: it is removed, whatever its version. `reset`: it replaces the stored row unconditionally, because its key
    was removed before.
    """
    for table in ("staged", "fresh", "lost", "touched"):
        database.execute(f"{{empty}} {table}")
    staged, fresh = [], []
    for n, (row, gone, reset, partition, offset, timestamp) in enumerate(rows):
        staged.append(
            (
                n,
                row.connection_id,
                row.session_id,
                row.client,
                row.hour,
                row.version,
                int(gone),
                int(reset),
                row.duplicates,
                partition,
                offset,
                timestamp,
            )
        )
        for bucket in row.buckets:
            line = names.line(row.connection_id, row.client, bucket.line)
            attribution = names.attribution(bucket.attribution)
            money = (*split_money(bucket.cost), *split_money(bucket.reported))
            fresh.append((n, line, attribution, *bucket.counts, *money))
    names.store()
    database.load("staged", STAGED, staged)
    database.load("fresh", ("n", "line", "attribution", *SUM_COUNTS, *MONEY), fresh)


def merge(database: Database) -> int:
    """Merge the staged rows into the tables, within a transaction; return how many were not older than the stored
    ones.
    """
    run = database.execute
    run(
        "INSERT INTO session (connection_id, session_id) SELECT DISTINCT connection_id, session_id FROM staged"
        " WHERE gone = 0 ON CONFLICT DO NOTHING"
    )
    run(
        "UPDATE staged SET session = (SELECT s.id FROM session s WHERE s.connection_id = staged.connection_id"
        " AND s.session_id = staged.session_id) WHERE session IS NULL"
    )
    run(
        "DELETE FROM staged WHERE session IS NULL OR (gone = 0 AND reset = 0 AND EXISTS (SELECT 1 FROM session_hour h"
        " WHERE h.session = staged.session AND h.hour = staged.hour AND h.version > staged.version))"
    )
    run("DELETE FROM fresh WHERE NOT EXISTS (SELECT 1 FROM staged s WHERE s.n = fresh.n)")
    if database.dialect.name == "postgresql":
        run("ANALYZE staged")
        run("ANALYZE fresh")
    return merge_staged(database)


def merge_staged(database: Database) -> int:
    """Merge staged rows that have session ids and are known to be the newest."""
    run = database.execute
    run("INSERT INTO touched SELECT DISTINCT session FROM staged")
    _hours(database)
    run("DELETE FROM bucket WHERE (session, hour) IN (SELECT session, hour FROM staged)")
    run(
        f"INSERT INTO bucket (session, hour, line, attribution, version, {_NUMBERS})"
        f" SELECT s.session, s.hour, f.line, f.attribution, s.version, {_list('f.')}"
        " FROM staged s CROSS JOIN fresh f WHERE f.n = s.n"
    )
    run("DELETE FROM session_hour WHERE (session, hour) IN (SELECT session, hour FROM staged WHERE gone = 1)")
    run(
        "INSERT INTO session_hour (session, hour, version, duplicates, partition, record_offset, changed_at)"
        " SELECT session, hour, version, duplicates, partition, record_offset, changed_at FROM staged WHERE gone = 0"
        " ON CONFLICT (session, hour) DO UPDATE SET version = excluded.version, duplicates = excluded.duplicates,"
        " partition = excluded.partition, record_offset = excluded.record_offset, changed_at = excluded.changed_at"
    )
    _newest_of_lost(database)
    _sessions(database)
    return int(database.rows("SELECT count(*) FROM staged")[0][0])


def _list(alias: str) -> str:
    return ", ".join(alias + name for name in (*SUM_COUNTS, *MONEY))


def _hours(database: Database) -> None:
    """Change the hours' totals by the difference between the new buckets and those they replace."""
    database.execute(
        "INSERT INTO lost SELECT DISTINCT b.hour, b.line, a.team_id FROM staged s CROSS JOIN bucket b"
        " CROSS JOIN attribution a WHERE b.session = s.session AND b.hour = s.hour AND a.id = b.attribution"
        " AND NOT EXISTS (SELECT 1 FROM fresh f CROSS JOIN attribution x WHERE f.n = s.n AND f.line = b.line"
        " AND x.id = f.attribution AND x.team_id = a.team_id)"
    )
    plus = ", ".join(
        [f"f.{name} AS {name}" for name in SUM_COUNTS] + [f"coalesce(f.{name}, 0) AS {name}" for name in MONEY]
    )
    minus = ", ".join([f"-b.{name}" for name in SUM_COUNTS] + [f"-coalesce(b.{name}, 0)" for name in MONEY])
    sums = ", ".join(f"sum({name})" for name in ("buckets", "priced", "reports", *SUM_COUNTS, *MONEY))
    grown = ", ".join(
        f"{name} = hour_total.{name} + excluded.{name}"
        for name in ("buckets", "priced", "reports", *SUM_COUNTS, *MONEY)
    )

    def whether(alias: str, sign: str) -> str:
        return (
            f"{sign}1 AS buckets, CASE WHEN {alias}.cost_hi IS NULL THEN 0 ELSE {sign}1 END AS priced,"
            f" CASE WHEN {alias}.reported_hi IS NULL THEN 0 ELSE {sign}1 END AS reports"
        )

    database.execute(
        f"INSERT INTO hour_total (hour, line, team, version, buckets, priced, reports, {_NUMBERS})"
        f" SELECT hour, line, team, max(version), {sums} FROM ("
        f" SELECT s.hour AS hour, f.line AS line, a.team_id AS team, s.version AS version, {whether('f', '')}, {plus}"
        " FROM staged s CROSS JOIN fresh f CROSS JOIN attribution a WHERE f.n = s.n AND a.id = f.attribution"
        f" UNION ALL SELECT b.hour, b.line, a.team_id, b.version, {whether('b', '-')}, {minus}"
        " FROM staged s CROSS JOIN bucket b CROSS JOIN attribution a"
        " WHERE b.session = s.session AND b.hour = s.hour AND a.id = b.attribution"
        " ) q GROUP BY hour, line, team ON CONFLICT (hour, line, team) DO UPDATE SET"
        f" version = {{greatest}}(hour_total.version, excluded.version), {grown}"
    )


def _newest_of_lost(database: Database) -> None:
    """Recompute the newest version where a bucket was removed, because it may have been the bucket's."""
    if not database.rows("SELECT 1 FROM lost LIMIT 1"):
        return
    database.execute(
        "UPDATE hour_total SET version = coalesce((SELECT max(b.version) FROM bucket b JOIN attribution a"
        " ON a.id = b.attribution WHERE b.hour = hour_total.hour AND b.line = hour_total.line"
        " AND a.team_id = hour_total.team), 0) WHERE (hour, line, team) IN (SELECT hour, line, team FROM lost)"
    )
    database.execute(
        "DELETE FROM hour_total WHERE buckets = 0 AND (hour, line, team) IN (SELECT hour, line, team FROM lost)"
    )


def _sessions(database: Database) -> None:
    """Recompute the sums of changed sessions."""
    run = database.execute
    sums = ", ".join(f"sum(b.{name}) AS {name}" for name in SUM_COUNTS)
    money = ", ".join(
        f"sum(b.{one}_hi) + CAST(sum(b.{one}_lo) AS {{int}}) / {LO} AS {one}_hi,"
        f" CAST(sum(b.{one}_lo) AS {{int}}) % {LO} AS {one}_lo"
        for one in ("cost", "reported")
    )
    run("DELETE FROM session_model WHERE session IN (SELECT session FROM touched)")
    run(
        f"INSERT INTO session_model (session, kind, hours, last_hour, version, {_NUMBERS})"
        f" SELECT b.session, l.kind, count(DISTINCT b.hour), max(b.hour), max(b.version), {sums}, {money}"
        " FROM touched t CROSS JOIN bucket b CROSS JOIN line l WHERE b.session = t.session AND l.id = b.line"
        " GROUP BY b.session, l.kind"
    )
    run("DELETE FROM session_attribution WHERE session IN (SELECT session FROM touched)")
    run(
        "INSERT INTO session_attribution (session, attribution) SELECT DISTINCT b.session, b.attribution"
        " FROM touched t CROSS JOIN bucket b WHERE b.session = t.session"
    )
    taken = ", ".join(f"{name} = q.{name}" for name in ("version", *SUM_COUNTS, *MONEY))
    run(
        f"UPDATE session SET first_hour = q.first_hour, last_hour = q.last_hour, {taken} FROM ("
        f"SELECT b.session AS session, min(b.hour) AS first_hour, max(b.hour) AS last_hour, max(b.version) AS version,"
        f" {sums}, {money} FROM touched t CROSS JOIN bucket b WHERE b.session = t.session GROUP BY b.session) q"
        " WHERE session.id = q.session"
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
        " AND NOT EXISTS (SELECT 1 FROM bucket b WHERE b.session = session.id)"
    )
    run(
        "DELETE FROM session WHERE id IN (SELECT session FROM touched)"
        " AND NOT EXISTS (SELECT 1 FROM session_hour h WHERE h.session = session.id)"
    )
