"""`tallystream cost` over realistic topics: superseded versions, late rows of zombies, tombstones, invalid records."""

from __future__ import annotations

import asyncio
import csv
import io

import pytest
from tests.integration.cli.conftest import Cli
from tests.support.topics import Message, produce

from tallystream.schemas import keys
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.schemas.rows import SessionHourCost
from tallystream.streams.kafka.producer import producing
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock

pytestmark = pytest.mark.kafka
NOW_HOUR = SystemClock().now_ns() // HOUR_NS
OLD, OPEN = NOW_HOUR - 24, NOW_HOUR


def message(session: str, hour: int, version: int, requests: int, **over: object) -> Message:
    """A row of `requests` requests of 10 + 5 tokens at $0.25; sessions live in partitions, as the worker's do."""
    part = {
        "requests": requests, "input_uncached": 10 * requests, "cache_read": 0, "cache_write_5m": 0,
        "cache_write_1h": 0, "output": 5 * requests, "reasoning": 0, "tool": 0, "total_tokens": 15 * requests,
        "cost_usd": f"{0.25 * requests:.2f}", "reported_cost_usd": None, "unpriced_requests": 0, "late_events": 0,
        "model": "gpt-5-codex", "service_tier": None, "speed": None, "book": "b1", "attribution": {"team": "payments"},
    }  # fmt: skip
    row = {
        "connection_id": "codex-1a2b", "client": "codex", "provider": "openai", "session_id": session,
        "hour": hour_iso(hour), "version": [0, version], "duplicates": 0, "buckets": [part | over],
    }  # fmt: skip
    value = SessionHourCost.model_validate(row).model_dump_json().encode()
    return keys.join("codex-1a2b", session, hour_iso(hour)), value, len(session) % 3


@pytest.fixture
def rows(kafka: KafkaSettings, topics: Topics) -> None:
    """Two sessions of three hours, with everything that a topic may contain besides the newest rows."""
    found = [
        message("s1", OLD, 3, 1),
        message("s1", OLD, 9, 4),
        message("s1", OLD, 5, 2),  # a zombie's
        message("s1", OPEN, 10, 2, model="house-9", cost_usd=None, unpriced_requests=2),
        message("longer", OLD, 7, 1),
        message("longer", OLD, 7, 8, attribution={"team": "=data\x1b[2J"}),  # the later of two equal versions
        message("removed", OLD, 1, 99),
        (message("removed", OLD, 1, 99)[0], None, 1),
        (b"junk", b"not a row", 2),
    ]

    async def write() -> None:
        await ensure(kafka, (topics.session_hour_rows,))
        await produce(kafka, topics.session_hour_rows.name, found)

    asyncio.run(write())


def test_cost_without_a_topic_is_explained_and_incomplete(cli: Cli) -> None:
    assert "connections create codex" in cli("cost", "sessions").out
    said = cli("cost", "sessions", "--json")
    assert (said.document["rows"], said.document["complete"]) == ([], False)
    assert "cost.session-hours" in said.err


@pytest.mark.usefixtures("rows")
def test_cost_sessions_adds_up_the_newest_versions(cli: Cli) -> None:
    said = cli("cost", "sessions", "--json")
    document = said.document
    assert document["complete"] is True
    assert "1 records are not cost rows" in said.err
    got = {(one["session_id"], one["model"]): one for one in document["rows"]}
    assert set(got) == {("s1", "gpt-5-codex"), ("s1", "house-9"), ("longer", "gpt-5-codex")}
    first = got["s1", "gpt-5-codex"]
    assert (first["requests"], first["total_tokens"], first["cost_usd"], first["version"]) == (4, 60, "1", [0, 9])
    assert (first["final"], first["connection_id"], first["client"]) == (True, "codex-1a2b", "codex")
    assert got["longer", "gpt-5-codex"]["requests"] == 8
    unpriced = got["s1", "house-9"]
    assert (unpriced["cost_usd"], unpriced["unpriced_requests"], unpriced["final"]) == (None, 2, False)
    assert [one["cost_usd"] for one in document["rows"]] == ["2", "1", None]


@pytest.mark.usefixtures("rows")
def test_cost_views_groupings_and_filters_agree(cli: Cli) -> None:
    hours = cli("cost", "hours", "--json").document["rows"]
    assert [(one["hour"], one["requests"]) for one in hours] == [(hour_iso(OLD), 12), (hour_iso(OPEN), 2)]
    models = cli("cost", "models", "--json", "--session", "s1").document["rows"]
    assert {one["model"]: one["requests"] for one in models} == {"gpt-5-codex": 4, "house-9": 2}
    teams = cli("cost", "sessions", "--json", "--by", "team").document["rows"]
    assert {one["team"]: (one["requests"], one["sessions"]) for one in teams} == {
        "payments": (6, 1),
        "=data\x1b[2J": (8, 1),
    }
    recent = cli("cost", "session-hours", "--json", "--since", "2h").document["rows"]
    assert [one["model"] for one in recent] == ["house-9"]
    before = cli("cost", "session-hours", "--json", "--until", hour_iso(OPEN)).document["rows"]
    assert {one["hour"] for one in before} == {hour_iso(OLD)}
    assert cli("cost", "sessions", "--json", "--connection", "codex-ffff").document["rows"] == []


def test_cost_since_does_not_read_older_records(cli: Cli, kafka: KafkaSettings, topics: Topics) -> None:
    """The old record is invalid, so reading it would be reported. A row written a day before its hour counts."""
    day_ms = 24 * 3_600_000
    now_ms = NOW_HOUR * HOUR_NS // 1_000_000

    async def write() -> None:
        await ensure(kafka, (topics.session_hour_rows,))
        async with producing(kafka) as producer:
            key, ahead, partition = message("ahead", OPEN, 1, 3)
            for days, value in ((3, b"junk"), (1, ahead)):
                await producer.send_and_wait(
                    topics.session_hour_rows.name,
                    value,
                    key=key,
                    partition=partition,
                    timestamp_ms=now_ms - days * day_ms,
                )

    asyncio.run(write())
    assert "1 records are not cost rows" in cli("cost", "sessions", "--json").err
    recent = cli("cost", "sessions", "--json", "--since", "1h")
    assert [one["requests"] for one in recent.document["rows"]] == [3]
    assert "not cost rows" not in recent.err


@pytest.mark.usefixtures("rows")
def test_cost_csv_is_safe_in_a_spreadsheet(cli: Cli) -> None:
    said = cli("cost", "sessions", "--csv")
    assert said.code == 0
    assert "\x1b" not in said.out
    found = {one["session_id"]: one for one in csv.DictReader(io.StringIO(said.out, newline=""))}
    assert found["longer"]["team"] == "'=data\\x1b[2J"
    assert found["longer"]["cost_usd"] == "2"


@pytest.mark.usefixtures("rows")
def test_cost_table_is_readable(cli: Cli) -> None:
    said = cli("cost", "sessions")
    assert said.code == 0
    assert "\x1b" not in said.out
    assert "$3.00 *" in said.out
    assert "house-9 of openai: 2 requests" in said.out


def test_cost_reports_wrong_options_in_one_line(cli: Cli) -> None:
    for args, word in (
        (("--by", "colour"), "colour"),
        (("--since", "yesterday"), "yesterday"),
        (("--json", "--csv"), "--csv"),
    ):
        said = cli("cost", "sessions", *args)
        assert said.code == 2
        assert word in said.err
        assert "Traceback" not in said.err
