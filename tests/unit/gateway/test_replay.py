"""What the gateway set aside can be replayed once this version, or a setting, counts it."""

from __future__ import annotations

from datetime import timedelta

import orjson
import pytest
from tests.support.otlp_bodies import AT_NS, Group, Record, codex_response, encode

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.clients.codex import CODEX
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.packing import messages
from tallystream.streams.deadletters.replay import Into, prepare
from tallystream.streams.gateway.ingest import Messages
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock

HERE = Into(own=True, lateness=timedelta(days=7))
RENAMED = codex_response().having(event__name="codex.sse_event_v2", user__email="ada@example.com")


def letters(*records: Record, connection: str | None = "codex-7f3a") -> list[DeadLetter]:
    """Return the dead letters the gateway writes of records."""
    built = Messages(Topics("t"), lambda user: f"u_{len(user)}", SystemClock())
    rejected = normalise_logs(encode([Group(records)], Encoding.PROTOBUF), Encoding.PROTOBUF).rejected
    return [
        DeadLetter.model_validate_json(message.value) for message in built.rejected(rejected, "ab" * 32, connection)
    ]


def test_a_record_that_this_version_knows_is_the_message_it_would_have_been() -> None:
    (letter,) = letters(RENAMED)
    assert "know" in str(prepare(letter, HERE, AT_NS))
    letter.record["event.name"] = CODEX.event
    row = prepare(letter, HERE, AT_NS)
    plain = RENAMED.having(event__name=CODEX.event)
    (pack,) = normalise_logs(encode([Group([plain])], Encoding.JSON), Encoding.JSON).packs
    ((key, value),) = messages(pack, "codex-7f3a", lambda user: f"u_{len(user)}")
    assert isinstance(row, tuple)
    assert (row[0], orjson.loads(row[1])) == (key, orjson.loads(value))


def test_what_still_cannot_be_counted_is_said() -> None:
    (letter,) = letters(codex_response().having(input_token_count="many"))
    assert "many" in str(prepare(letter, HERE, AT_NS))
    (letter,) = letters(codex_response().having(conversation__id=None))
    assert "session" in str(prepare(letter, HERE, AT_NS))


@pytest.mark.parametrize("connection", [None, "codex-1111"])
def test_a_strangers_record_needs_to_be_told_whose_it_is(connection: str | None) -> None:
    (letter,) = letters(RENAMED, connection=None)
    letter.record["event.name"] = CODEX.event
    told = prepare(letter, Into(own=True, lateness=timedelta(days=7), connection=connection), AT_NS)
    if connection is None:
        assert "--connection" in str(told)
    else:
        assert isinstance(told, tuple)
        assert told[0].startswith(b"codex-1111|")


def test_an_old_record_waits_for_a_longer_lateness() -> None:
    (letter,) = letters(RENAMED)
    letter.record["event.name"] = CODEX.event
    later = AT_NS + 30 * 24 * 3600 * 10**9
    assert "TALLYSTREAM_LATENESS" in str(prepare(letter, HERE, later))
    assert isinstance(prepare(letter, Into(own=True, lateness=timedelta(days=60)), later), tuple)
