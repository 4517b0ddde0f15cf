"""`tallystream coverage` with and without a ledger, what the ledger shows of it, and a session's page."""

from __future__ import annotations

import asyncio
import csv
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cli.conftest import Cli
from tests.support.ledger import LedgerProcess
from tests.support.ledger_rows import bucket, row
from tests.support.topics import produce
from tests.support.waiting import eventually

from tallystream.agents.ledger.config import LedgerPlace
from tallystream.agents.ledger.queries.sessions import SessionFilter
from tallystream.agents.ledger.store.open import open_database
from tallystream.agents.pricing import Book
from tallystream.console.build import Sight, session_detail, session_page
from tallystream.schemas.clients.witnesses import Statement, WitnessPack
from tallystream.schemas.hours import HOUR_NS
from tallystream.schemas.witness import messages
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka
NOW_NS = time.time_ns()
HOUR = NOW_NS // HOUR_NS - 1
CONNECTION = "codex-1a2b"


def said(session: str, tokens: int, name: str, source: Any = "spans") -> list[tuple[bytes, bytes]]:
    statement = Statement(name * 16, source, HOUR * HOUR_NS, False, tokens - 5, 5)
    return list(messages(WitnessPack("codex", "0.169.0", session, [statement]), CONNECTION))


@pytest.fixture
def ledger(kafka: KafkaSettings, topics: Topics, tmp_path: Path) -> Iterator[LedgerProcess]:
    """A ledger of one whole session, one of which a part is missing, and one that was lost; each witness came twice."""
    part = bucket(total_tokens=30_000, output=20)
    costs = [row("whole", HOUR, [0, 1], [part]), row("torn", HOUR, [0, 2], [part])]
    witnesses = [*said("whole", 30_000, "a"), *said("torn", 40_000, "b"), *said("lost", 20_000, "c")]
    witnesses += said("", 90_000, "d", "metrics")

    async def tell() -> None:
        await ensure(kafka, (topics.session_hour_rows, topics.witness))
        await produce(kafka, topics.session_hour_rows.name, [(key, value, 0) for key, value in costs])
        await produce(kafka, topics.witness.name, [(key, value, 0) for key, value in witnesses * 2])

    asyncio.run(tell())
    process = LedgerProcess(kafka, topics, tmp_path)
    process.start()
    process.caught_up()
    yield process
    process.kill()


def test_missing_tokens_are_shown_everywhere(topics: Topics, ledger: LedgerProcess, cli: Cli, tmp_path: Path) -> None:
    wanted = [(CONNECTION, 30_000, ["0.169.0"])]
    eventually(
        lambda: (
            wanted
            == [
                (one["connection_id"], one["missing"], one["versions"]) for one in ledger.status().get("coverage") or ()
            ]
        ),
        lambda: f"the ledger compares: {ledger.status().get('coverage')}",
    )
    labels = f'{{client="codex",connection="{CONNECTION}"}}'
    series = f"tallystream_ledger_coverage_missing_tokens{labels} 30000.0"
    eventually(lambda: series in ledger.metrics(), "a metric shows it")
    first = asked(cli)
    assert ledger.stop() == 0
    (tmp_path / "ledger" / f"{topics.prefix}.db").rename(tmp_path / "kept.db")
    assert asked(cli) == first, "without a ledger the topics give the same"
    for options in ((), ("--since", "2h"), ("--session", "torn")):
        assert costs(cli, *options) == costs(cli, *options, kept=(tmp_path, topics))
    assert costs(cli) == {"torn": "0.7500", "whole": "1.0000"}
    (whole,) = first["connection"]
    assert (whole["counted_tokens"], whole["witnessed_tokens"], whole["missing_tokens"]) == (60_000, 90_000, 30_000)
    assert (whole["seen_share"], whole["metrics_tokens"]) == ("0.6666", 90_000)
    shares = {one["session_id"]: (one["missing_tokens"], one["seen_share"]) for one in first["session"]}
    assert shares == {"lost": (20_000, "0.0000"), "torn": (10_000, "0.7500"), "whole": (0, "1.0000")}
    assert {one["session_id"] for one in first["hour"]} == {"lost", "torn", "whole"}
    shown = cli("coverage").out
    assert "66.66%" in shown
    assert "docs/coverage.md" in shown
    found = list(csv.DictReader(io.StringIO(cli("coverage", "--by", "session", "--csv").out)))
    assert [one["session_id"] for one in found] == ["lost", "torn", "whole"]
    assert cli("coverage", "--since", "2020-01-01", "--until", "2020-01-02", "--json").document["rows"] == []
    assert cli("coverage", "--by", "model").code == 2
    (tmp_path / "kept.db").rename(tmp_path / "ledger" / f"{topics.prefix}.db")
    database = open_database(LedgerPlace(topics.prefix, tmp_path / "ledger"), read_only=True)
    with database.reading():
        sight = Sight(database, NOW_NS)
        page, listed = (
            session_detail(sight, Book(), CONNECTION, "torn"),
            session_page(sight, SessionFilter(), "cost", None),
        )
    database.close()
    assert {row.session_id: row.seen_share for row in listed.rows} == {"torn": "0.7500", "whole": "1.0000"}
    assert page is not None
    assert page.coverage is not None
    assert (page.coverage.missing_tokens, page.coverage.seen_share) == (10_000, "0.7500")


def costs(cli: Cli, *options: str, kept: tuple[Path, Topics] | None = None) -> dict[str, str]:
    """Return the share seen of each session in the table of costs; with `kept`, from the ledger that was put aside."""
    place = None if kept is None else kept[0] / "ledger" / f"{kept[1].prefix}.db"
    if kept is not None and place is not None:
        (kept[0] / "kept.db").rename(place)
    rows = [cli("cost", view, "--json", *options).document["rows"] for view in ("sessions", "session-hours")]
    assert "75.00%" in cli("cost", "sessions", *options).out
    lines = csv.DictReader(io.StringIO(cli("cost", "sessions", "--csv", *options).out))
    found = {one["session_id"]: one["seen_share"] for one in rows[0]}
    assert {one["session_id"]: one["seen_share"] for one in lines} == found
    assert {one["session_id"]: one["seen_share"] for one in rows[1]} == found
    if kept is not None and place is not None:
        place.rename(kept[0] / "kept.db")
    return found


def asked(cli: Cli) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each axis."""
    return {by: cli("coverage", "--by", by, "--json").document["rows"] for by in ("connection", "session", "hour")}
