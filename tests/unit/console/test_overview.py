"""The first page breaks costs down, and its links lead to the sessions that make up each number."""

from __future__ import annotations

from pathlib import Path

from tests.support.ledger_rows import HOUR0, batches, bucket, row

from tallystream.agents.ledger.apply import Writer
from tallystream.agents.ledger.store.sqlite import SQLiteDatabase
from tallystream.console.build import Sight, session_page
from tallystream.console.overview import overview
from tallystream.console.params import SessionParams, read
from tallystream.schemas.hours import HOUR_NS
from tallystream.streams.identity import Identity
from tallystream.streams.kafka.topics import Topics

USD = 10**12
TOPICS = Topics("acme")


def test_agents_of_the_period_are_shown_and_lead_to_their_sessions(tmp_path: Path) -> None:
    database = SQLiteDatabase(tmp_path / "ledger.db")
    writer = Writer(database, TOPICS)
    writer.claim(Identity("cluster", "acme", {}))
    review, both = {"agent": "review", "team": "a"}, {"agent": "codex_cli_rs", "team": "a"}
    history = [
        row("s1", HOUR0 + 1, [0, 1], [bucket("m1", 2 * USD, attribution=review), bucket("m1", USD, attribution=both)]),
        row("s2", HOUR0 + 2, [0, 2], [bucket("m1", 4 * USD, attribution=both), bucket("m2", USD, attribution={})]),
        row("s3", HOUR0 - 24, [0, 3], [bucket("m1", USD, attribution={"agent": "of yesterday"})]),
    ]
    for batch in batches(TOPICS.session_hour_rows.name, history, [2]):
        writer.apply([batch])
    sight = Sight(database, (HOUR0 + 3) * HOUR_NS)
    page = overview(sight, "today")
    shown = {one.name: one.totals.cost_usd for one in page.agents}
    assert shown == {"codex_cli_rs": "5", "review": "2", None: "1"}
    assert {one.name: one.totals.cost_usd for one in page.teams} == {"a": "7", None: "1"}

    def sessions(**asked: str) -> set[str]:
        wanted = read(SessionParams, {"since": page.periods[-1].since[:10], **asked}).wanted()
        return {one.session_id for one in session_page(sight, wanted, "cost", None).rows}

    assert sessions(agent="review") == {"s1"}
    assert sessions(agent="codex_cli_rs") == {"s1", "s2"}
    assert sessions(without="agent") == {"s2"}
    assert sessions(hour=page.hours[-3].hour) == {"s1"}
    assert [one.cost_usd for one in page.hours[-3:-1]] == ["3", "5"]
    today = page.periods[1]
    assert today.before.cost_usd == "1"
    assert sessions(since=today.before_since[:10], until=today.before_until[:10]) == {"s3"}
    database.close()
