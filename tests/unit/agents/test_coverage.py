"""Coverage compares what was counted with what was witnessed, and never asks for more than a witness saw."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st
from tests.support.examples import examples

from tallystream.agents.coverage import CountedHour, CoverageAxis, CoverageRow, TokenSides, WitnessedHour, coverage


def counted(session: str, tokens: int, hour: int = 1, connection: str = "c-1") -> CountedHour:
    return CountedHour(connection, "codex", session, hour, TokenSides(tokens, 0))


def said(session: str, tokens: int, source: str = "spans", hour: int = 1, connection: str = "c-1") -> WitnessedHour:
    return WitnessedHour(connection, "codex", session, hour, source, "0.169.0", TokenSides(0, tokens))


def one(rows: list[CoverageRow]) -> CoverageRow:
    (row,) = rows
    return row


def test_several_witnesses_of_a_session_are_not_added() -> None:
    row = one(coverage([counted("s", 90)], [said("s", 100), said("s", 60, "metrics")], "session"))
    assert (row.witness, row.witnessed.total, row.missing, row.seen) == ("spans", 100, 10, Decimal("0.9"))
    assert row.by_source == {"spans": 100, "metrics": 60}


def test_lost_session_is_not_offset_by_another_one() -> None:
    row = one(coverage([counted("a", 500)], [said("a", 100), said("b", 100)]))
    assert (row.missing, row.seen) == (100, Decimal("0.8333"))


def test_metrics_without_sessions_are_compared_with_the_whole_connection() -> None:
    row = one(coverage([counted("a", 60), counted("b", 20)], [said("", 100, "metrics")]))
    assert (row.witness, row.witnessed.total, row.missing, row.seen) == ("metrics", 100, 20, Decimal("0.8"))
    assert coverage([], [said("", 100, "metrics")], "hour") == []


def test_tokens_that_only_metrics_without_a_session_saw_are_of_an_unknown_session() -> None:
    """Of 250 tokens, 100 are those of `a`, 60 those of `b`, whose logs were lost in part; the rest is nobody's."""
    everything = [counted("a", 100), counted("b", 40)], [said("b", 60), said("", 250, "metrics")]
    missing = {row.session_id: (row.counted.total, row.missing) for row in coverage(*everything, "session")}
    assert missing == {"": (0, 90), "b": (40, 20), "a": (100, 0)}
    assert one(coverage(*everything)).missing == 110
    explained = coverage([counted("a", 100)], [said("a", 60), said("", 100, "metrics")], "session")
    assert {row.session_id: row.missing for row in explained} == {"a": 0}


def test_spans_tell_a_lost_session_from_one_that_sends_no_metrics() -> None:
    """Metrics without a session cannot (docs/coverage.md): nothing says whose tokens they are."""
    logs = [counted("logs only", 100)]
    assert one(coverage(logs, [said("", 100, "metrics")])).missing == 0
    witnesses = [said("", 100, "metrics"), said("lost", 100)]
    assert one(coverage(logs, witnesses)).missing == 100
    missing = {row.session_id: row.missing for row in coverage(logs, witnesses, "session")}
    assert missing == {"lost": 100, "logs only": 0}


def test_without_a_witness_no_share_is_claimed() -> None:
    for by in ("connection", "session", "hour"):
        row = one(coverage([counted("s", 90)], [], by))
        assert (row.witness, row.missing, row.seen) == (None, 0, None)


def test_hours_are_compared_with_the_witness_that_tells_most_of_the_session() -> None:
    witnesses = [said("s", 50, "metrics", 1), said("s", 100, "spans", 2)]
    rows = {row.hour: row for row in coverage([counted("s", 50, 1), counted("s", 50, 2)], witnesses, "hour")}
    assert {hour: (row.witness, row.witnessed.total) for hour, row in rows.items()} == {
        1: ("spans", 0), 2: ("spans", 100),
    }  # fmt: skip


names = st.sampled_from(["", "a", "b"])
counts = st.lists(
    st.builds(counted, st.sampled_from(["a", "b", "c"]), st.integers(0, 99), st.integers(0, 2), st.sampled_from("xy"))
)
statements = st.lists(
    st.builds(
        said, names, st.integers(0, 99), st.sampled_from(["spans", "metrics"]), st.integers(0, 2), st.sampled_from("xy")
    )
)


@examples(200)
@given(counts, statements, st.sampled_from(["connection", "session", "hour"]))
def test_rows_add_up_and_shares_are_shares(
    what: list[CountedHour], witnesses: list[WitnessedHour], by: CoverageAxis
) -> None:
    rows = coverage(what, witnesses, by)
    assert sum(row.counted.total for row in rows) == sum(found.tokens.total for found in what)
    for row in rows:
        assert 0 <= row.missing <= sum(row.by_source.values())
        assert row.seen is None or 0 <= row.seen <= 1
        assert (row.seen == 1) <= (row.missing == 0)
    assert coverage(reversed(what), reversed(witnesses), by) == rows


@examples(200)
@given(counts, statements)
def test_sessions_and_the_unknown_one_miss_as_much_as_their_connections(
    what: list[CountedHour], witnesses: list[WitnessedHour]
) -> None:
    """So what a lost session used is never hidden by the others, as far as any signal can tell."""
    # spans always name their session
    witnesses = [one for one in witnesses if one.session_id or one.source == "metrics"]
    by_connection, by_session = dict[str, int](), dict[str, int]()
    for row in coverage(what, witnesses):
        by_connection[row.connection_id] = row.missing
    for row in coverage(what, witnesses, "session"):
        by_session[row.connection_id] = by_session.get(row.connection_id, 0) + row.missing
        if row.session_id == "":
            assert row.counted.total == 0
            assert row.seen == Decimal(0)
            assert row.witnessed.input >= 0 <= row.witnessed.output
    assert {name: missing for name, missing in by_session.items() if missing} == {
        name: missing for name, missing in by_connection.items() if missing
    }
