"""Cost tables as text for programs: what is filled into templates is what a row says, whatever its names."""

from __future__ import annotations

import contextlib
import csv
import io

import orjson
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.ledger_rows import HOUR0, bucket, expected, histories, row

from tallystream.agents.cost_query import GROUPINGS, VIEWS, Query
from tallystream.agents.cost_table import Table
from tallystream.agents.seen_share import SessionTokens
from tallystream.agents.session_tree import SessionTree
from tallystream.cli.output.cost_text import cost_csv, cost_json, csv_header
from tallystream.cli.output.text import csv_text
from tallystream.schemas.hours import HOUR_NS

NOW = (HOUR0 + 20) * HOUR_NS
TREE = SessionTree({("codex-1a2b", "s2"): "s1", ("claude-ffff", "a|b%"): "s2"})
queries = st.builds(
    Query,
    st.sampled_from(sorted(VIEWS)),
    st.lists(st.sampled_from(sorted(GROUPINGS)), max_size=3, unique=True).map(tuple),
) | st.just(Query("sessions", tree=TREE))
histories_of_any_names = st.builds(
    lambda history, names: [*history, *(row(name, HOUR0, (0, 9), [bucket(name)]) for name in names)],
    histories,
    st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=4),
)


def table_of(history: list[tuple[bytes, bytes | None]], query: Query) -> Table:
    table = expected(history, query)
    table.seen = {("codex-1a2b", "s1"): SessionTokens(2, 1)}
    return table


@examples(150)
@given(histories_of_any_names, queries)
def test_json_says_what_the_rows_say(history: list[tuple[bytes, bytes | None]], query: Query) -> None:
    rows = list(table_of(history, query).rows(NOW))
    with contextlib.redirect_stdout(io.StringIO()) as out:
        cost_json(table_of(history, query), NOW, complete=True)
    document = orjson.loads(out.getvalue())
    assert document["rows"] == orjson.loads(orjson.dumps(rows))
    assert all(list(one) == list(query.fields) for one in document["rows"])
    assert len(out.getvalue().splitlines()) == len(rows) + 2, "a row a line"


@examples(150)
@given(histories_of_any_names, queries)
def test_csv_says_what_the_rows_say(history: list[tuple[bytes, bytes | None]], query: Query) -> None:
    rows = list(table_of(history, query).rows(NOW))
    with contextlib.redirect_stdout(io.StringIO(newline="")) as out:
        cost_csv(table_of(history, query), NOW)
    found = list(csv.reader(io.StringIO(out.getvalue(), newline=""), strict=True))
    header = csv_header(query)
    assert found[0] == header
    for cells, one in zip(found[1:], rows, strict=True):
        said = one | (one["attribution"] or {})
        for name, cell in zip(header, cells, strict=True):
            assert cell == shown(said.get(name)), name


def shown(value: object) -> str:
    """Return a cell; the version is the only list of numbers."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case [int(generation), int(offset)]:
            return f"{generation}:{offset}"
        case list():
            return csv_text(" ".join(value))
        case _:
            return csv_text(str(value))
