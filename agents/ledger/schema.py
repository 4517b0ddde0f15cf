"""The ledger's tables and views, and the migrations from older versions.

Tables are named in the singular and are internal; views are named in the plural and are the public interface. Hours are
whole hours since 1970 in tables. Money is two integers in tables, so that both databases add it exactly, however large
it is: `*_hi` counts thousandths of a dollar, `*_lo` the pico-dollars below one; NULL without a price.
"""

from __future__ import annotations

from collections.abc import Iterable

from tallystream.agents.ledger.store.database import Dialect
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.schemas.usage import ATTRIBUTION_KEYS

VERSION = 5
"""Of the tables. A database with a higher one belongs to a newer release."""
LO = 10**9
"""Pico-dollars of one unit of `*_hi`."""
MONEY = ("cost_hi", "cost_lo", "reported_hi", "reported_lo")
COLUMN = {name: f"{name}_name" if name == "user" else name for name in ATTRIBUTION_KEYS}
"""Attribution keys and their columns: `user` is a word of SQL's own."""
CREW = ("team", "agent", "billing")
"""Attribution keys with few values: the sums of hours are kept by them, because there are few combinations of them."""
_LATER_KEYS = ("billing", "account")
"""Attribution keys that the tables got later than in their first version."""
_LATER = ("inconsistent",)
"""Sums that the tables got later than in their first version."""
_COUNTS = ", ".join(f"{name} {{int}} NOT NULL DEFAULT 0" for name in SUM_COUNTS if name not in _LATER)
_INCONSISTENT = "inconsistent {int} NOT NULL DEFAULT 0"
_MONEY = ", ".join(f"{name} {{int}}" for name in MONEY)
_ATTRIBUTION = ", ".join(f"{column} {{text}}" for name, column in COLUMN.items() if name not in _LATER_KEYS)

_FIRST = (
    "CREATE TABLE ledger_position (topic {text} NOT NULL, partition {int} NOT NULL, next_offset {int} NOT NULL,"
    " timestamp {int} NOT NULL, PRIMARY KEY (topic, partition))",
    "CREATE TABLE unreadable (topic {text} NOT NULL, record_key {blob} NOT NULL, reason {text} NOT NULL,"
    " detail {text} NOT NULL, version {int}, partition {int} NOT NULL, record_offset {int} NOT NULL,"
    " PRIMARY KEY (topic, record_key))",
    "CREATE TABLE kind (id {id}, client {text}, model {text}, service_tier {text}, key {text} NOT NULL UNIQUE)",
    "CREATE TABLE line (id {id}, connection_id {text}, client {text}, provider {text}, model {text},"
    " service_tier {text}, speed {text}, book {text}, kind {int} NOT NULL, key {text} NOT NULL UNIQUE)",
    "CREATE TABLE team (id {id}, name {text}, key {text} NOT NULL UNIQUE)",
    f"CREATE TABLE attribution (id {{id}}, {_ATTRIBUTION}, team_id {{int}} NOT NULL, key {{text}} NOT NULL UNIQUE)",
    f"CREATE TABLE session (id {{id}}, connection_id {{text}} NOT NULL, session_id {{text}} NOT NULL, client {{text}},"
    f" first_hour {{int}}, last_hour {{int}}, version {{int}}, duplicates {{int}} NOT NULL DEFAULT 0,"
    f" changed_at {{int}} NOT NULL DEFAULT 0, {_COUNTS}, {_MONEY}, UNIQUE (connection_id, session_id))",
    "CREATE INDEX session_by_cost ON session (cost_hi DESC{nulls_last}, cost_lo DESC{nulls_last}, id DESC)",
    "CREATE INDEX session_by_hour ON session (last_hour DESC{nulls_last}, id DESC)",
    "CREATE INDEX session_by_change ON session (changed_at DESC, id DESC)",
    "CREATE INDEX session_by_tokens ON session (total_tokens DESC, id DESC)",
    "CREATE INDEX session_by_id ON session (session_id)",
    "CREATE TABLE session_hour (session {int} NOT NULL, hour {int} NOT NULL, version {int} NOT NULL,"
    " duplicates {int} NOT NULL, partition {int} NOT NULL, record_offset {int} NOT NULL, changed_at {int} NOT NULL,"
    " PRIMARY KEY (session, hour)){clustered}",
    f"CREATE TABLE bucket (session {{int}} NOT NULL, hour {{int}} NOT NULL, line {{int}} NOT NULL,"
    f" attribution {{int}} NOT NULL, version {{int}} NOT NULL, {_COUNTS}, {_MONEY},"
    " PRIMARY KEY (session, hour, line, attribution)){clustered}",
    "CREATE INDEX bucket_by_hour ON bucket (hour, line)",
    f"CREATE TABLE session_model (session {{int}} NOT NULL, kind {{int}} NOT NULL, hours {{int}} NOT NULL,"
    f" last_hour {{int}} NOT NULL, version {{int}} NOT NULL, {_COUNTS}, {_MONEY}, PRIMARY KEY (session, kind))"
    "{clustered}",
    "CREATE INDEX session_model_by_cost ON session_model"
    " (cost_hi DESC{nulls_last}, cost_lo DESC{nulls_last}, total_tokens DESC)",
    "CREATE INDEX session_model_by_hour ON session_model (last_hour)",
    "CREATE TABLE session_attribution (session {int} NOT NULL, attribution {int} NOT NULL,"
    " PRIMARY KEY (session, attribution)){clustered}",
    "CREATE INDEX session_attribution_by_attribution ON session_attribution (attribution, session)",
    f"CREATE TABLE hour_total (hour {{int}} NOT NULL, line {{int}} NOT NULL, team {{int}} NOT NULL,"
    f" version {{int}} NOT NULL, buckets {{int}} NOT NULL, priced {{int}} NOT NULL, reports {{int}} NOT NULL,"
    f" {_COUNTS}, {', '.join(f'{name} {{int}} NOT NULL' for name in MONEY)}, PRIMARY KEY (hour, line, team))"
    "{clustered}",
    "CREATE TABLE connection (connection_id {text} PRIMARY KEY, provider {text} NOT NULL, name {text} NOT NULL,"
    " created_at {text} NOT NULL, revoked_at {text}, old_until {text}, bearer {int} NOT NULL)",
    "CREATE TABLE activity (connection_id {text} NOT NULL, signal {text} NOT NULL, gateway {text} NOT NULL,"
    " last_synced_at {text} NOT NULL, requests {int} NOT NULL, records {int} NOT NULL,"
    " PRIMARY KEY (connection_id, signal, gateway))",
    "CREATE TABLE dead_letter (source {text} PRIMARY KEY, reason {text} NOT NULL, detail {text} NOT NULL,"
    " at {text} NOT NULL, connection_id {text}, client {text}, session_id {text}, document {text} NOT NULL,"
    " partition {int} NOT NULL, record_offset {int} NOT NULL)",
    "CREATE INDEX dead_letter_by_time ON dead_letter (at DESC, source)",
    "CREATE INDEX dead_letter_by_session ON dead_letter (session_id)",
    "CREATE TABLE openai_day (day {text} NOT NULL, model {text} NOT NULL, project_id {text} NOT NULL,"
    " version {int} NOT NULL, PRIMARY KEY (day, model, project_id))",
    "CREATE TABLE openai_billed (day {text} NOT NULL, model {text} NOT NULL, project_id {text} NOT NULL,"
    " resource {text} NOT NULL, usd {amount} NOT NULL, polled_at {text} NOT NULL)",
    "CREATE INDEX openai_billed_by_day ON openai_billed (day, model, project_id)",
    "CREATE TABLE openai_used (day {text} NOT NULL, model {text} NOT NULL, project_id {text} NOT NULL,"
    " resource {text} NOT NULL, name {text} NOT NULL, amount {int} NOT NULL, polled_at {text} NOT NULL)",
    "CREATE INDEX openai_used_by_day ON openai_used (day, model, project_id)",
)
_SECOND = tuple(
    f"ALTER TABLE {table} ADD COLUMN inconsistent {{int}} NOT NULL DEFAULT 0"
    for table in ("session", "bucket", "session_model", "hour_total")
)
_THIRD = (
    "CREATE TABLE reconciled (provider {text} NOT NULL, scope {text} NOT NULL, day {text} NOT NULL,"
    " version {int} NOT NULL, state {text} NOT NULL, reason {text}, as_of {text}, telemetry_as_of {text},"
    " bill {amount}, estimate {amount} NOT NULL, difference {amount}, seen_tokens {int} NOT NULL, billed_tokens {int},"
    " document {text} NOT NULL, PRIMARY KEY (provider, scope, day))",
    "CREATE INDEX reconciled_by_day ON reconciled (day DESC)",
    "CREATE TABLE reconciled_cause (provider {text} NOT NULL, scope {text} NOT NULL, day {text} NOT NULL,"
    " cause {text} NOT NULL, usd {amount} NOT NULL, PRIMARY KEY (provider, scope, day, cause))",
    *(f"ALTER TABLE attribution ADD COLUMN {name} {{text}}" for name in _LATER_KEYS),
    "CREATE TABLE session_link (connection_id {text} NOT NULL, session_id {text} NOT NULL,"
    " parent_session_id {text} NOT NULL, PRIMARY KEY (connection_id, session_id))",
    "CREATE INDEX session_link_by_parent ON session_link (connection_id, parent_session_id)",
)
_FOURTH = (
    "CREATE TABLE witness (connection_id {text} NOT NULL, session_id {text} NOT NULL, source {text} NOT NULL,"
    " id {text} NOT NULL, hour {int} NOT NULL, client {text} NOT NULL, version {text} NOT NULL,"
    " cumulative {int} NOT NULL, input_tokens {int} NOT NULL, output_tokens {int} NOT NULL, partition {int} NOT NULL,"
    " record_offset {int} NOT NULL, PRIMARY KEY (connection_id, session_id, source, id, hour)){clustered}",
    "CREATE INDEX witness_by_hour ON witness (hour)",
    "CREATE INDEX witness_by_record ON witness (partition, record_offset)",
)
_FIFTH = (
    "ALTER TABLE team RENAME TO crew",
    "ALTER TABLE crew RENAME COLUMN name TO team",
    *(f"ALTER TABLE crew ADD COLUMN {name} {{text}}" for name in CREW if name != "team"),
    "ALTER TABLE attribution RENAME COLUMN team_id TO crew",
    "DROP TABLE hour_total",
    *(
        f"CREATE TABLE {unit}_total ({unit} {{int}} NOT NULL, line {{int}} NOT NULL, crew {{int}} NOT NULL,"
        f" version {{int}} NOT NULL, buckets {{int}} NOT NULL, priced {{int}} NOT NULL, reports {{int}} NOT NULL,"
        f" {_COUNTS}, {_INCONSISTENT}, {', '.join(f'{name} {{int}} NOT NULL' for name in MONEY)},"
        f" {more} PRIMARY KEY ({unit}, line, crew)){{clustered}}"
        for unit, more in (("hour", ""), ("day", "last_hour {int} NOT NULL,"))
    ),
    "DROP TABLE session_attribution",
    # In the order of attributions, so that adding up by them needs no sorting.
    f"CREATE TABLE part (attribution {{int}} NOT NULL, line {{int}} NOT NULL, session {{int}} NOT NULL,"
    f" first_hour {{int}} NOT NULL, last_hour {{int}} NOT NULL, version {{int}} NOT NULL, {_COUNTS}, {_INCONSISTENT},"
    f" {_MONEY}, PRIMARY KEY (attribution, line, session)){{clustered}}",
    "CREATE INDEX part_by_session ON part (session)",
)
"""Then the new tables are filled from the buckets: `migrations.py`."""
MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH)
"""Statements that lead from each version to the next, beginning with an empty database."""
VIEWS = (
    "sessions", "session_hours", "session_links", "hours", "models", "teams", "agents", "connections", "synced",
    "dead_letters", "dead_letter_reasons", "openai_billed_days", "openai_used_days", "reconciled_days",
    "reconciled_causes", "witnessed_hours",
)  # fmt: skip
"""The public views; columns are only added."""


_NEW = (
    "w.{name} - coalesce(CASE WHEN w.cumulative = 1 THEN lag(w.{name})"
    " OVER (PARTITION BY w.connection_id, w.session_id, w.source, w.id ORDER BY w.hour) END, 0)"
)
WITNESSED = (
    "SELECT w.connection_id, w.session_id, w.hour, w.client, w.source, w.version,"
    f" {', '.join(f'{_NEW.format(name=name)} AS {name}' for name in ('input_tokens', 'output_tokens'))} FROM witness w"
)
"""The witnesses' new tokens of each hour. A cumulative count is the highest of its hour, so that of the hour before is
taken off it."""


def views(dialect: Dialect, usd: str = "") -> dict[str, str]:
    """Return the SELECT of each view.

    `usd`: how a database without exact decimals writes dollars, with `$hi` and `$lo`; "": it does not.
    """
    postgres = dialect.name == "postgresql"
    attributed = ", ".join(f"a.{column}" for column in COLUMN.values())

    def hour(column: str) -> str:
        if postgres:
            return f"to_timestamp({column} * 3600)"
        return f"strftime('%Y-%m-%dT%H:00:00Z', {column} * 3600, 'unixepoch')"

    def time(column: str) -> str:
        return f"({column})::timestamptz" if postgres else column

    def exact(column: str) -> str:
        """Return a decimal of any length, so that it compares and sorts as a number."""
        return f"{column} COLLATE usd" if usd else column

    def money(hi: str, lo: str, name: str) -> str:
        pico = dialect.words["pico"].replace("$hi", hi).replace("$lo", lo)
        one = f"({hi} * 0.001 + {lo} * 0.000000000001)::numeric" if postgres else usd
        dollars = f", {one.replace('$hi', hi).replace('$lo', lo)} AS {name}_usd" if one else ""
        return f"{pico} AS {name}_pico{dollars}"

    def both(alias: str = "") -> str:
        return (
            money(f"{alias}cost_hi", f"{alias}cost_lo", "cost")
            + ", "
            + money(f"{alias}reported_hi", f"{alias}reported_lo", "reported")
        )

    def counted(alias: str) -> str:
        return ", ".join(f"{alias}{name}" for name in SUM_COUNTS)

    # Sums over hour_total: money is NULL when none of its buckets has a price.
    totals = ", ".join(f"sum(t.{name}) AS {name}" for name in SUM_COUNTS)
    summed = (
        f"sum(t.priced) AS priced, sum(t.reports) AS reports, {', '.join(f'sum(t.{one}) AS {one}' for one in MONEY)}"
    )

    def known(alias: str) -> str:
        return (
            money(
                f"(CASE WHEN {alias}priced > 0 THEN {alias}cost_hi END)",
                f"(CASE WHEN {alias}priced > 0 THEN {alias}cost_lo END)",
                "cost",
            )
            + ", "
            + money(
                f"(CASE WHEN {alias}reports > 0 THEN {alias}reported_hi END)",
                f"(CASE WHEN {alias}reports > 0 THEN {alias}reported_lo END)",
                "reported",
            )
        )

    of_line = "l.connection_id, l.client, l.provider, l.model, l.service_tier, l.speed, l.book"
    # Of whole days, because they are few.
    days = "FROM day_total t JOIN"
    names = {
        "sessions": f"SELECT s.connection_id, s.session_id, s.client, {hour('s.first_hour')} AS first_hour,"
        f" {hour('s.last_hour')} AS last_hour, {counted('s.')}, s.duplicates, {both('s.')} FROM session s"
        " WHERE s.first_hour IS NOT NULL",
        "session_hours": f"SELECT s.connection_id, s.session_id, {hour('b.hour')} AS hour, l.client, l.provider,"
        f" l.model, l.service_tier, l.speed, l.book, {attributed}, {counted('b.')}, {both('b.')} FROM bucket b"
        " JOIN session s ON s.id = b.session JOIN line l ON l.id = b.line JOIN attribution a ON a.id = b.attribution",
        "session_links": "SELECT connection_id, session_id, parent_session_id FROM session_link",
        "hours": f"SELECT {hour('t.hour')} AS hour, {of_line}, m.team, {counted('t.')}, {known('t.')},"
        " m.agent, m.billing FROM hour_total t JOIN line l ON l.id = t.line JOIN crew m ON m.id = t.crew",
        "models": f"SELECT provider, model, service_tier, {counted('')}, {known('')} FROM"
        f" (SELECT l.provider, l.model, l.service_tier, {totals}, {summed} {days}"
        " line l ON l.id = t.line GROUP BY l.provider, l.model, l.service_tier) q",
        **{
            f"{name}s": f"SELECT {name}, {counted('')}, {known('')} FROM (SELECT m.{name}, {totals}, {summed}"
            f" {days} crew m ON m.id = t.crew GROUP BY m.{name}) q"
            for name in ("team", "agent")
        },
        "connections": f"SELECT connection_id, provider, name, {time('created_at')} AS created_at,"
        f" {time('revoked_at')} AS revoked_at, {time('old_until')} AS old_secret_until FROM connection",
        "synced": f"SELECT connection_id, signal, max({time('last_synced_at')}) AS last_synced_at,"
        " sum(requests) AS requests, sum(records) AS records FROM activity GROUP BY connection_id, signal",
        "dead_letters": f"SELECT source, reason, detail, {time('at')} AS at, connection_id, client, session_id,"
        " document FROM dead_letter",
        "witnessed_hours": "SELECT connection_id, session_id,"
        f" {hour('hour')} AS hour, client, source, max(version) AS version, sum(input_tokens) AS input_tokens,"
        f" sum(output_tokens) AS output_tokens FROM ({WITNESSED}) q"
        " GROUP BY connection_id, session_id, hour, client, source",
        "dead_letter_reasons": f"SELECT reason, count(*) AS letters, max({time('at')}) AS newest FROM dead_letter"
        " GROUP BY reason",
        "openai_billed_days": f"SELECT day, nullif(model, '') AS model, nullif(project_id, '') AS project_id,"
        f" resource, usd, {time('polled_at')} AS polled_at FROM openai_billed",
        "openai_used_days": f"SELECT day, nullif(model, '') AS model, nullif(project_id, '') AS project_id,"
        f" resource, name, amount, {time('polled_at')} AS polled_at FROM openai_used",
        "reconciled_days": f"SELECT provider, scope, day, state, reason, {time('as_of')} AS as_of,"
        f" {time('telemetry_as_of')} AS telemetry_as_of, {exact('bill')} AS bill_usd,"
        f" {exact('estimate')} AS estimate_usd, {exact('difference')} AS difference_usd,"
        " seen_tokens, billed_tokens FROM reconciled WHERE as_of IS NOT NULL OR seen_tokens > 0 OR state = 'partial'",
        "reconciled_causes": f"SELECT provider, scope, day, cause, {exact('usd')} AS usd FROM reconciled_cause",
    }
    return {name: names[name] for name in VIEWS}


def columns(names: Iterable[str], alias: str = "") -> str:
    """Return names joined for SQL, each with the table's alias before it."""
    return ", ".join(alias + name for name in names)
