"""Writes rows of `cost.session-hours` in bulk: they are staged in temporary tables, then merged by set operations in
SQL.

The sums beside the buckets are `rollups.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable

from tallystream.agents.ledger.amounts import split_money
from tallystream.agents.ledger.names import Names
from tallystream.agents.ledger.records import SessionHourRow
from tallystream.agents.ledger.rollups import GROWN, NUMBERS, change_hours, newest_of_lost, sum_sessions
from tallystream.agents.ledger.schema import MONEY, columns
from tallystream.agents.ledger.store.database import Database
from tallystream.schemas.rows import SUM_COUNTS

_COUNTS = ", ".join(f"{name} {{int}} NOT NULL" for name in SUM_COUNTS)
_MONEY = ", ".join(f"{name} {{int}}" for name in MONEY)
_TEMPORARY = (
    "staged (n {int} PRIMARY KEY, connection_id {text}, session_id {text}, client {text}, hour {int}, version {int},"
    " gone {int}, reset {int}, duplicates {int}, partition {int}, record_offset {int}, changed_at {int},"
    " session {int})",
    f"fresh (n {{int}}, line {{int}}, attribution {{int}}, {_COUNTS}, {_MONEY}, PRIMARY KEY (n, line, attribution))",
    "lost (hour {int}, line {int}, crew {int}, PRIMARY KEY (hour, line, crew))",
    "touched (session {int} PRIMARY KEY)",
    GROWN,
    "staged_witness (connection_id {text}, session_id {text}, source {text}, id {text}, hour {int}, client {text},"
    " version {text}, cumulative {int}, input_tokens {int}, output_tokens {int}, partition {int}, record_offset {int})",
    "staged_key (a {text}, b {text}, c {text})",
)
STAGED = (
    "n", "connection_id", "session_id", "client", "hour", "version", "gone", "reset", "duplicates", "partition",
    "record_offset", "changed_at",
)  # fmt: skip


def prepare(database: Database) -> None:
    """Create the temporary tables, which exist as long as the connection."""
    for table in _TEMPORARY:
        database.execute(f"CREATE {{temporary}} TABLE IF NOT EXISTS {table}")


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
    change_hours(database)
    run("DELETE FROM bucket WHERE (session, hour) IN (SELECT session, hour FROM staged)")
    run(
        f"INSERT INTO bucket (session, hour, line, attribution, version, {NUMBERS})"
        f" SELECT s.session, s.hour, f.line, f.attribution, s.version, {columns((*SUM_COUNTS, *MONEY), 'f.')}"
        " FROM staged s CROSS JOIN fresh f WHERE f.n = s.n"
    )
    run("DELETE FROM session_hour WHERE (session, hour) IN (SELECT session, hour FROM staged WHERE gone = 1)")
    run(
        "INSERT INTO session_hour (session, hour, version, duplicates, partition, record_offset, changed_at)"
        " SELECT session, hour, version, duplicates, partition, record_offset, changed_at FROM staged WHERE gone = 0"
        " ON CONFLICT (session, hour) DO UPDATE SET version = excluded.version, duplicates = excluded.duplicates,"
        " partition = excluded.partition, record_offset = excluded.record_offset, changed_at = excluded.changed_at"
    )
    newest_of_lost(database)
    sum_sessions(database)
    return int(database.rows("SELECT count(*) FROM staged")[0][0])
