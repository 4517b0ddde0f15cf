"""The tree of sessions: it ends, whatever the links say, and its rows add up to all rows."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.ledger_rows import HOUR0, bucket, expected, histories, row

from tallystream.agents.cost_query import Query
from tallystream.agents.cost_table import Table
from tallystream.agents.session_tree import SessionTree
from tallystream.schemas.errors import UsageError
from tallystream.schemas.hours import HOUR_NS

NOW = (HOUR0 + 20) * HOUR_NS
CONNECTION = "codex-1a2b"
names = st.sampled_from(["s1", "s2", "a|b%", "longer-session-id", "nobody"])
trees = st.dictionaries(st.tuples(st.just(CONNECTION), names), names, max_size=6).map(SessionTree)
"""With circles, with sessions that are their own parent, and with parents that no row is of."""


def tree(**parents: str) -> SessionTree:
    return SessionTree({(CONNECTION, child): parent for child, parent in parents.items()})


def shown(query: Query, *rows: tuple[bytes, bytes]) -> dict[str, tuple[int, list[str]]]:
    table = Table(query)
    table.add(value for _, value in rows)
    return {one["session_id"]: (one["requests"], one["children"]) for one in table.rows(NOW)}


ROWS = (
    row("root", HOUR0, [0, 1], [bucket(requests=1)]),
    row("child", HOUR0, [0, 2], [bucket(requests=10)]),
    row("grandchild", HOUR0 + 1, [0, 3], [bucket(requests=100)]),
    row("other", HOUR0, [0, 4], [bucket(requests=1000)]),
    row("child", HOUR0, [0, 5], [bucket(requests=10_000)], connection_id="codex-ffff"),
)
FAMILY = tree(child="root", grandchild="child")


def test_row_includes_the_sessions_that_it_started() -> None:
    rows = shown(Query("sessions", tree=FAMILY, connection=CONNECTION), *ROWS)
    assert rows == {"root": (111, ["child", "grandchild"]), "other": (1000, [])}


def test_link_belongs_to_its_own_connection() -> None:
    rows = shown(Query("sessions", tree=FAMILY), *ROWS)
    assert rows == {"root": (111, ["child", "grandchild"]), "other": (1000, []), "child": (10_000, [])}


def test_session_filter_includes_only_its_descendants() -> None:
    assert shown(Query("sessions", tree=FAMILY, session="child", connection=CONNECTION), *ROWS) == {
        "child": (110, ["grandchild"])
    }
    assert shown(Query("sessions", tree=FAMILY, session="gr…ld"), *ROWS) == {"grandchild": (100, [])}


def test_other_tables_have_no_children() -> None:
    for view, by in (("models", ()), ("session-hours", ()), ("sessions", ("team",))):
        with pytest.raises(UsageError, match="children"):
            Query(view, by, tree=FAMILY)


@examples(100)
@given(trees, histories)
def test_rows_with_children_add_up_to_all_rows(links: SessionTree, history: list[tuple[bytes, bytes | None]]) -> None:
    with_children, without = (expected(history, Query("sessions", tree=one)) for one in (links, None))
    assert with_children.totals(NOW) == without.totals(NOW)
    sessions = {(one["connection_id"], one["session_id"]) for one in without.rows(NOW)}
    told = {
        (one["connection_id"], session)
        for one in with_children.rows(NOW)
        for session in (one["session_id"], *one["children"])
    }
    assert sessions <= told


@examples(100)
@given(st.dictionaries(st.tuples(st.just(CONNECTION), names), names, max_size=6))
def test_every_session_of_a_family_has_one_root(parents: Mapping[tuple[str, str], str]) -> None:
    links = SessionTree(parents)
    for connection, child in parents:
        root = links.root(connection, child)
        assert links.root(connection, root) == root
        assert all(links.root(connection, up) == root for up in links.ancestors(connection, child))


def test_invalid_link_messages_are_left_out() -> None:
    link = {"connection_id": CONNECTION, "session_id": "child", "parent_session_id": "root"}
    found = SessionTree.of_messages([orjson.dumps(link), b"junk", None, b"{}", orjson.dumps(link | {"session_id": ""})])
    assert found.ancestors(CONNECTION, "child") == ["root"]
