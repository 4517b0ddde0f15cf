"""`tallystream deadletters` on real Kafka."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from tests.integration.cli.conftest import Cli
from tests.support.topics import produce

from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.kafka.topic_setup import ensure
from tallystream.streams.kafka.topics import Topics

pytestmark = pytest.mark.kafka
NOW = datetime.now(UTC)


def letter(source: str, reason: Reason, hours_ago: int, detail: str = "d") -> tuple[bytes, bytes, int]:
    one = DeadLetter(
        source=source,
        reason=reason,
        detail=detail,
        at=NOW - timedelta(hours=hours_ago),
        connection_id="codex-1a2b",
        session_id="0199a213-81c0-7800-8aa1-00000000beef",
        record={"model": "gpt\x1b[2J-5"},
    )
    return source.encode(), one.model_dump_json().encode(), 0


@pytest.fixture
def letters(kafka: KafkaSettings, topics: Topics) -> None:
    found = [
        letter("usage|0|1|0", Reason.TOO_LATE, 30, "first try"),
        letter("usage|0|2|0", Reason.TOO_LATE, 20),
        letter("gateway|abc|0", Reason.UNDECODABLE, 1),
        letter("usage|0|1|0", Reason.TOO_LATE, 30, "replayed"),
        (b"junk", b"junk", 0),
    ]

    async def write() -> None:
        await ensure(kafka, (topics.deadletters,))
        await produce(kafka, topics.deadletters.name, found)

    asyncio.run(write())


def test_list_without_dead_letters_says_so(cli: Cli) -> None:
    assert "every record received was counted" in cli("deadletters", "list").out


@pytest.mark.usefixtures("letters")
def test_list_counts_each_source_once_newest_first(cli: Cli) -> None:
    said = cli("deadletters", "list", "--json")
    document = said.document
    assert (document["total"], document["by_reason"]) == (3, {"undecodable": 1, "too_late": 2})
    assert [one["source"] for one in document["deadletters"]] == ["gateway|abc|0", "usage|0|2|0", "usage|0|1|0"]
    assert document["deadletters"][-1]["detail"] == "replayed"
    assert "1 records are not dead letters" in said.err


@pytest.mark.usefixtures("letters")
def test_filters_select_matching_rows(cli: Cli) -> None:
    def sources(*args: str) -> list[str]:
        return [one["source"] for one in cli("deadletters", "list", "--json", *args).document["deadletters"]]

    assert sources("--reason", "too_late") == ["usage|0|2|0", "usage|0|1|0"]
    assert sources("--since", "24h") == ["gateway|abc|0", "usage|0|2|0"]
    assert sources("--limit", "1") == ["gateway|abc|0"]
    wrong = cli("deadletters", "list", "--reason", "bad_mood")
    assert wrong.code == 2
    assert "too_late" in wrong.err


@pytest.mark.usefixtures("letters")
def test_show_explains_the_reason_and_the_next_step(cli: Cli) -> None:
    listed = cli("deadletters", "list", "--limit", "1")
    assert "TALLYSTREAM_LATENESS" in listed.out
    assert "2 older ones" in listed.out
    shown = cli("deadletters", "show", "usage|0|1|0")
    assert "replayed" in shown.out
    assert "\x1b" not in shown.out
    assert r"gpt\x1b[2J-5" in shown.out
    document = cli("deadletters", "show", "usage|0|1|0", "--json").document
    assert document["record"] == {"model": "gpt\x1b[2J-5"}
    assert cli("deadletters", "show", "usage|9|9|9").code == 2
