"""Dead letters of the gateway can be replayed once this version or a changed setting can count them."""

from __future__ import annotations

from datetime import timedelta

import orjson
import pytest
from tests.support.otlp_bodies import AT_NS, Group, Record, codex_response, encode

from tallystream.agents.session_cost.dead_letters import invalid_message
from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.clients.codex import CODEX
from tallystream.schemas.deadletters import DeadLetter
from tallystream.schemas.errors import Reason
from tallystream.schemas.otlp import Encoding
from tallystream.schemas.packing import messages
from tallystream.streams.deadletters.kept_messages import place_of, with_record
from tallystream.streams.deadletters.replay import OF_RECORDS, Into, prepare
from tallystream.streams.gateway.ingest import Messages
from tallystream.streams.kafka.topics import Topics
from tallystream.streams.service.clock import SystemClock

HERE = Into(own=True, lateness=timedelta(days=7))
RENAMED = codex_response().having(event__name="codex.sse_event_v2", user__email="ada@example.com")


def letters(*records: Record, connection: str | None = "codex-7f3a") -> list[DeadLetter]:
    """Return the dead letters that the gateway writes for records."""
    built = Messages(Topics("t"), lambda user: f"u_{len(user)}", SystemClock())
    rejected = normalise_logs(encode([Group(records)], Encoding.PROTOBUF), Encoding.PROTOBUF).rejected
    return [
        DeadLetter.model_validate_json(message.value) for message in built.rejected(rejected, "ab" * 32, connection)
    ]


def test_recognised_record_becomes_its_original_message() -> None:
    (letter,) = letters(RENAMED)
    assert "recognise" in str(prepare(letter, HERE, AT_NS))
    letter.record["event.name"] = CODEX.event
    row = prepare(letter, HERE, AT_NS)
    plain = RENAMED.having(event__name=CODEX.event)
    (pack,) = normalise_logs(encode([Group([plain])], Encoding.JSON), Encoding.JSON).packs
    ((key, value),) = messages(pack, "codex-7f3a", lambda user: f"u_{len(user)}")
    assert isinstance(row, tuple)
    assert (row[0], orjson.loads(row[1])) == (key, orjson.loads(value))


def test_reason_is_given_for_records_that_still_cannot_count() -> None:
    (letter,) = letters(codex_response().having(input_token_count="many"))
    assert "many" in str(prepare(letter, HERE, AT_NS))
    (letter,) = letters(codex_response().having(conversation__id=None))
    assert "session" in str(prepare(letter, HERE, AT_NS))


@pytest.mark.parametrize("connection", [None, "codex-1111"])
def test_record_of_an_unknown_connection_needs_an_assignment(connection: str | None) -> None:
    (letter,) = letters(RENAMED, connection=None)
    letter.record["event.name"] = CODEX.event
    told = prepare(letter, Into(own=True, lateness=timedelta(days=7), connection=connection), AT_NS)
    if connection is None:
        assert "--connection" in str(told)
    else:
        assert isinstance(told, tuple)
        assert told[0].startswith(b"codex-1111|")


def test_old_record_needs_a_longer_lateness() -> None:
    (letter,) = letters(RENAMED)
    letter.record["event.name"] = CODEX.event
    later = AT_NS + 30 * 24 * 3600 * 10**9
    assert "TALLYSTREAM_LATENESS" in str(prepare(letter, HERE, later))
    assert isinstance(prepare(letter, Into(own=True, lateness=timedelta(days=60)), later), tuple)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_replayable_or_explained(reason: Reason) -> None:
    """Every letter is either replayed or reported with the reason."""
    batch = {
        "connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": "s",
        "events": [{"event_id": "0" * 16, "occurred_at": AT_NS, "model": "m", "output": 5}],
    }  # fmt: skip
    record = batch["events"][0] if reason is Reason.UNKNOWN_CONNECTION else batch
    letter = DeadLetter.model_validate(
        {
            "source": "usage|0|1|0", "reason": reason, "detail": "d", "at": "2026-11-21T14:00:00Z", "record": record,
            "client": "codex", "session_id": "s",
        }
    )  # fmt: skip
    here = prepare(letter, Into(own=True, lateness=timedelta(days=7), connection="codex-1"), AT_NS)
    there = prepare(letter, Into(own=False, lateness=timedelta(days=7), connection="codex-1"), AT_NS)
    match reason:
        case Reason.FROM_THE_FUTURE | Reason.UNKNOWN_CONNECTION | Reason.INVALID_MESSAGE:
            assert isinstance(here, tuple)
        case Reason.TOO_LATE | Reason.CLOSED | Reason.BEYOND_DEDUPE | Reason.ROW_FULL:
            assert "--into" in str(here)
            assert isinstance(there, tuple)
        case Reason.CONFLICTING_COUNTS:
            assert "counted already" in str(here)
        case _ if reason in OF_RECORDS:
            assert "still does not recognise" in str(here)  # a record's fields, not an event: above


def test_message_refused_by_an_older_worker_is_read_from_the_topic() -> None:
    event = {"event_id": "0" * 16, "occurred_at": AT_NS, "model": "m", "output": 5}
    batch = {
        "connection_id": "codex-7f3a", "client": "codex", "provider": "openai", "session_id": "s",
        "events": [event | {"output": -1}, event],
    }  # fmt: skip
    value = orjson.dumps(batch)

    def letter(index: int) -> DeadLetter:
        _, written = invalid_message(3, 17, 1_800_000_000_000, value, "it has fields that UsageEvent has not", index)
        return DeadLetter.model_validate_json(written)

    assert place_of(letter(1)) == (3, 17)
    assert "no longer" in str(prepare(letter(1), HERE, AT_NS))
    sent = prepare(with_record(letter(1), value), HERE, AT_NS)
    assert isinstance(sent, tuple)
    assert [one["output"] for one in orjson.loads(sent[1])["events"]] == [5]
    for other in (with_record(letter(0), value), with_record(letter(1), value + b" "), with_record(letter(1), None)):
        assert "still cannot read it" in str(prepare(other, HERE, AT_NS))
