"""In any order and any batches of records, the ledger must give the same rows as the topic."""

from __future__ import annotations

import contextlib
import io

from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.ledger_rows import HOUR0, batches, expected, histories, witnesses

from tallystream.agents.cost_query import GROUPINGS, VIEWS, Query
from tallystream.agents.cost_table import Table
from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.queries.cost import cost_table
from tallystream.agents.ledger.queries.cost_lines import CostLines
from tallystream.agents.ledger.queries.coverage import AFTER_ALL, CoverageRange, witnessed_hours
from tallystream.agents.ledger.queries.first_rows import FEW, first_rows
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.session_tree import SessionTree
from tallystream.cli.output.cost_lines import write_lines
from tallystream.cli.output.cost_table import people
from tallystream.cli.output.cost_text import cost_csv, cost_json
from tallystream.schemas.hours import HOUR_NS
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

TOPICS = Topics("law")
History = list[tuple[bytes, bytes | None]]
Said = list[tuple[bytes, bytes]]
NOW = (HOUR0 + 20) * HOUR_NS
IDENTITY = Identity("cluster", "law", {})
TREE = SessionTree({("codex-1a2b", "s2"): "s1", ("claude-ffff", "a|b%"): "s2"})
queries = st.builds(
    Query,
    st.sampled_from(sorted(VIEWS)),
    st.lists(st.sampled_from(sorted(GROUPINGS)), max_size=3, unique=True).map(tuple),
    st.sampled_from([None, None, "codex-1a2b", "nobody"]),
    st.sampled_from([None, None, "s1", "lon…id", "s…", "a|b%"]),
    st.none() | st.integers(HOUR0 - 1, HOUR0 + 31),
    st.none() | st.integers(HOUR0 - 1, HOUR0 + 31),
)


def emptied(database: Database) -> Writer:
    writer = Writer(database, TOPICS)
    writer.claim(IDENTITY)
    for table in (
        "session", "session_hour", "bucket", "session_model", "part", "hour_total", "day_total", "unreadable",
        "ledger_position", "line",
        "kind", "crew", "attribution", "witness",
    ):  # fmt: skip
        database.execute(f"DELETE FROM {table}")
    return writer


def check(database: Database, history: History, query: Query) -> None:
    with database.reading():
        witnessed = list(witnessed_hours(database, CoverageRange(0, AFTER_ALL, hourly=False)))
        found = cost_table(database, query)
        ways = [(asked, few) for asked in (query, people(query)) for few in (0, FEW)]
        shown = [(asked, first_rows(database, asked, 3, NOW, few=few)) for asked, few in ways]
    want = expected(history, query, witnessed)
    assert list(found.rows(NOW)) == list(want.rows(NOW))
    assert found.totals(NOW) == want.totals(NOW)
    assert found.unpriced == want.unpriced
    assert found.plan == want.plan
    for form in ("json", "csv"):
        assert printed_lines(database, query, form) in (None, printed(want, form))
    for asked, first in shown:
        if first is None:
            continue
        whole = expected(history, asked, witnessed)
        assert first.page(NOW, 3) == whole.page(NOW, 3)
        assert first.totals(NOW) == whole.totals(NOW)
        assert first.unpriced == whole.unpriced
        assert first.plan == whole.plan


def printed(table: Table, form: str) -> str:
    with contextlib.redirect_stdout(io.StringIO(newline="")) as out:
        if form == "json":
            cost_json(table, NOW, complete=True)
        else:
            cost_csv(table, NOW)
    return out.getvalue()


def printed_lines(database: Database, query: Query, form: str) -> str | None:
    """Return the text that the database puts together, None when the rows are not of that kind."""
    with database.reading(), contextlib.redirect_stdout(io.StringIO(newline="")) as out:
        lines = CostLines(database, query, NOW)
        if not lines.suits:
            assert query.view == "models" or query.by or query.tree
            return None
        write_lines(database, lines, NOW, form)
    return out.getvalue()


def law(
    database: Database,
    history: History,
    said: Said,
    sizes: list[int],
    asked: list[Query],
) -> None:
    writer = emptied(database)
    for batch in batches(TOPICS.witness.name, said, sizes):
        writer.apply([batch])
    for batch in batches(TOPICS.session_hour_rows.name, history, sizes):
        writer.apply([batch])
    assert not database.rows("SELECT * FROM unreadable WHERE reason = 'unfit'")
    trees = (Query("sessions", tree=TREE), Query("sessions", tree=TREE, session="s1", since=HOUR0 + 1))
    for query in (*(Query(view) for view in VIEWS), *trees, *asked):
        check(database, history, query)


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=3)
many = examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
few = examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(history=histories, said=witnesses, sizes=sizes, asked=st.lists(queries, max_size=4))
def test_sqlite_ledger_equals_the_topic(
    sqlite: Database,
    history: History,
    said: Said,
    sizes: list[int],
    asked: list[Query],
) -> None:
    law(sqlite, history, said, sizes, asked)


@few
@given(history=histories, said=witnesses, sizes=sizes, asked=st.lists(queries, max_size=3))
def test_postgresql_ledger_equals_the_topic(
    postgresql: Database,
    history: History,
    said: Said,
    sizes: list[int],
    asked: list[Query],
) -> None:
    law(postgresql, history, said, sizes, asked)
