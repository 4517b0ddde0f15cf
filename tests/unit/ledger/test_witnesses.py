"""The ledger's witnesses: each statement once, whatever is repeated, torn or out of order."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from tests.support.examples import examples
from tests.support.ledger_rows import HOUR0, Record, batches, bucket, row

from tallystream.agents.coverage import CoverageRow, coverage
from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.config import LedgerPlace
from tallystream.agents.ledger.queries.coverage import CoverageRange, counted_hours, witnessed_hours
from tallystream.agents.ledger.queries.sql import query
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.ledger.witnesses import apply
from tallystream.schemas import keys
from tallystream.schemas.clients.base import identity
from tallystream.schemas.clients.witnesses import Statement, WitnessPack
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.schemas.witness import WitnessBatch, from_wire, messages, to_wire
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

TOPICS = Topics("law")
ALWAYS = CoverageRange(0, 10**6)


@pytest.fixture
def writer(sqlite: Database) -> Writer:
    made = Writer(sqlite, TOPICS)
    made.claim(Identity("cluster", "law", {}))
    return made


# A history: increments of a series, as (series, hour, increment, whether the process restarts before it).
increments = st.lists(
    st.tuples(
        st.sampled_from(["input", "output"]),
        st.integers(0, 3),
        st.integers(1, 1_000),
        st.booleans(),
        st.sampled_from(["", "s", "t|%"]),
    ),
    max_size=12,
).map(lambda found: sorted(found, key=lambda one: one[1]))


def told(history: list[Any], *, cumulative: bool) -> tuple[list[WitnessPack], dict[Any, int]]:
    """Return the statements of a client that reports after each increment, and the new tokens by session and hour."""
    packs: list[WitnessPack] = []
    sums: dict[Any, int] = defaultdict(int)
    so_far: dict[Any, int] = defaultdict(int)
    starts: dict[Any, int] = defaultdict(int)
    for number, (side, hour, tokens, restarts, session) in enumerate(history):
        series = (side, session)
        if restarts:
            starts[series] += 1
            so_far[series] = 0
        so_far[series] += tokens
        at = (HOUR0 + hour) * HOUR_NS + number
        value = so_far[series] if cumulative else tokens
        counts = (value, 0) if side == "input" else (0, value)
        name = identity(*series, starts[series]) if cumulative else identity(number)
        packs.append(WitnessPack("claude", "2.1", session, [Statement(name, "metrics", at, cumulative, *counts)]))
        sums[session, hour, side] += tokens
    return packs, dict(sums)


def law(database: Database, data: st.DataObject, history: list[Any], *, cumulative: bool) -> None:
    packs, want = told(history, cumulative=cumulative)
    writer = Writer(database, TOPICS)
    writer.claim(Identity("cluster", "law", {}))
    for table in ("witness", "ledger_position"):
        database.execute(f"DELETE FROM {table}")
    copies = data.draw(st.lists(st.sampled_from(packs), max_size=6)) if packs else []
    sent = data.draw(st.permutations([*packs, *copies]))
    records = [message for pack in sent for message in messages(from_wire(to_wire(pack)), "claude-1")]
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    for batch in batches(TOPICS.witness.name, records, sizes):
        writer.apply([batch])
    found: dict[Any, int] = defaultdict(int)
    for one in witnessed_hours(database, ALWAYS):
        assert (one.connection_id, one.client, one.source, one.version) == ("claude-1", "claude", "metrics", "2.1")
        for side in ("input", "output"):
            found[one.session_id, one.hour - HOUR0, side] += getattr(one.tokens, side)
    assert {key: tokens for key, tokens in found.items() if tokens} == want


@examples(60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), history=increments, cumulative=st.booleans())
def test_each_token_is_witnessed_once_whatever_is_repeated_or_out_of_order(
    sqlite: Database, data: st.DataObject, history: list[Any], cumulative: bool
) -> None:
    law(sqlite, data, history, cumulative=cumulative)


@pytest.mark.thorough
@examples(30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), history=increments, cumulative=st.booleans())
def test_postgresql_obeys_the_same_law(
    postgresql: Database, data: st.DataObject, history: list[Any], cumulative: bool
) -> None:
    law(postgresql, data, history, cumulative=cumulative)


def statement(tokens: int, hour: int = 0, **over: Any) -> dict[str, Any]:
    at = (HOUR0 + hour) * HOUR_NS
    return {"id": f"{tokens:016x}", "source": "spans", "at": at, "input": tokens, "output": 0} | over


def message(session: str, *said: dict[str, Any], **over: Any) -> tuple[bytes, bytes]:
    whole = {"connection_id": "codex-1a2b", "client": "codex", "session_id": session, "statements": list(said)} | over
    return keys.join("codex-1a2b", session), orjson.dumps(whole)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        message("s", statement(2**44)),
        message("s", statement(1), client="a\0b"),
        message("s", statement(1, source="logs")),
        (keys.join("other", "s"), message("s", statement(1))[1]),
        (keys.join("codex-1a2b", "s"), b"null"),
    ],
)
def test_unreadable_message_is_counted_and_its_neighbours_are_kept(
    writer: Writer, sqlite: Database, key: bytes, value: bytes
) -> None:
    good = message("s", statement(5))
    with sqlite.writing():
        assert apply(sqlite, [(0, Record(key, value, 0)), (0, Record(*good, 1))]) == 1
    assert [one.tokens.total for one in witnessed_hours(sqlite, ALWAYS)] == [5]


def rows(database: Database, by: Any = "connection", within: CoverageRange = ALWAYS) -> list[CoverageRow]:
    return coverage(counted_hours(database, within), witnessed_hours(database, within), by)


def test_missing_tokens_are_named_by_connection_session_and_hour(writer: Writer, sqlite: Database) -> None:
    part = bucket(total_tokens=70, output=20)
    costs = [row("whole", HOUR0, (0, 1), [part]), row("torn", HOUR0, (0, 2), [part])]
    said = [message("whole", statement(70)), message("torn", statement(70, id="a" * 16), statement(30, 1))]
    said.append(message("lost", statement(50, id="b" * 16)))
    for topic, records in ((TOPICS.session_hour_rows.name, costs), (TOPICS.witness.name, said)):
        for batch in batches(topic, records, [10]):
            writer.apply([batch])
    (whole,) = rows(sqlite)
    assert (whole.counted, whole.witnessed.total, whole.missing) == ((100, 40), 220, 80)
    assert str(whole.seen) == "0.6363"
    missing = {one.session_id: (one.missing, str(one.seen)) for one in rows(sqlite, "session")}
    assert missing == {"lost": (50, "0.0000"), "torn": (30, "0.7000"), "whole": (0, "1.0000")}
    hours = {(one.session_id, one.hour): one.missing for one in rows(sqlite, "hour")}
    assert hours == {("lost", HOUR0): 50, ("torn", HOUR0): 0, ("torn", HOUR0 + 1): 30, ("whole", HOUR0): 0}
    assert [one.missing for one in rows(sqlite, within=CoverageRange(HOUR0, HOUR0, session="torn"))] == [0]
    assert not rows(sqlite, within=CoverageRange(0, 10**6, connection="other"))


def test_sql_shows_witnesses_and_retention_removes_them(writer: Writer, sqlite: Database, tmp_path: Path) -> None:
    for batch in batches(TOPICS.witness.name, [message("s", statement(5)), message("s", statement(6))], [10]):
        writer.apply([batch])
    asked = "SELECT session_id, hour, source, input_tokens FROM witnessed_hours"
    with query(LedgerPlace("ledger", tmp_path), asked) as found:
        assert [tuple(one) for one in found.rows] == [("s", hour_iso(HOUR0), "spans", 11)]
    assert writer.expire({(TOPICS.witness.name, 0): 1}) == 1
    assert [one.tokens.total for one in witnessed_hours(sqlite, ALWAYS)] == [6]


def test_messages_are_bounded_and_valid() -> None:
    said = [Statement(f"{n:016x}", "metrics", 1, True, n, 0) for n in range(1, 1_200)]
    found = [WitnessBatch.model_validate_json(value) for _, value in messages(WitnessPack("c", "", "s", said), "c-1")]
    assert [len(one.statements) for one in found] == [512, 512, 175]
    assert [one.id for batch in found for one in batch.statements] == [one.id for one in said]
