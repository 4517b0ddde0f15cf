"""A client and its event are recognised by several marks, so that usage still counts if a pipeline drops or renames
one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.otlp_bodies import Attribute, Group, Record, codex_response, encode
from tests.unit.clients.test_claude_code import response as claude_response
from tests.unit.clients.test_gemini_cli import response as gemini_response

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.clients.renormalise import renormalise
from tallystream.schemas.errors import InvalidRecordError, Reason
from tallystream.schemas.otlp import Encoding

BOTH = pytest.mark.parametrize("encoding", list(Encoding))
CLIENTS = {
    "codex": (codex_response(), "codex_otel.log_only", "codex_exec", "codex.", "sse_event"),
    "claude": (claude_response(), "com.anthropic.claude_code.events", "claude-code", "claude_code.", "api_request"),
    "gemini": (gemini_response(), "gemini-cli", "gemini-cli", "gemini_cli.", "api_response"),
}
EACH = pytest.mark.parametrize("client", list(CLIENTS))


def body(record: Record, scope: str, service: str, encoding: Encoding) -> bytes:
    resource: dict[str, Attribute] = {"service.name": service} if service else {}
    return encode([Group([record], resource, scope)], encoding)


@BOTH
@EACH
@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("place", ["event.name", "event_name", "field", "nowhere"])
@pytest.mark.parametrize("marks", [("scope", ""), ("", "service"), ("scope", "service"), ("", "")])
def test_client_is_recognised_wherever_its_name_is(
    client: str, place: str, prefixed: bool, marks: tuple[str, str], encoding: Encoding
) -> None:
    record, scope, service, prefix, event = CLIENTS[client]
    name = prefix + event if prefixed else event
    record = replace(record.having(event__name=None), event_name="")
    if place == "field":
        record = replace(record, event_name=name)
    elif place != "nowhere":
        record = Record([*record.attributes, (place, name)], record.time_ns, record.observed_ns, record.trace_id)
    sent = body(record, scope if marks[0] else "", service if marks[1] else "anything", encoding)
    result = normalise_logs(sent, encoding)
    assert ([pack.client for pack in result.packs], result.rejected) == ([client], [])


@BOTH
@EACH
def test_unknown_client_names_are_not_guessed(client: str, encoding: Encoding) -> None:
    record, scope, service, prefix, _ = CLIENTS[client]
    for changed in (
        record.having(event__name=prefix + "something_new"),
        replace(record.having(event__name=None), event_name=prefix + "something_new"),
    ):
        result = normalise_logs(body(changed, scope, service, encoding), encoding)
        assert result.packs == []
        assert [lost.reason for lost in result.rejected] == [Reason.UNRECOGNISED_USAGE]


@BOTH
@EACH
def test_replayed_record_counts_with_its_original_identity(client: str, encoding: Encoding) -> None:
    record, scope, service, prefix, event = CLIENTS[client]
    (wanted,) = normalise_logs(body(record, scope, service, encoding), encoding).packs
    renamed = record.having(event__name=prefix + "something_new")
    (lost,) = normalise_logs(body(renamed, scope, service, encoding), encoding).rejected
    letter = {**lost.record, "attribution": lost.attribution}
    assert renormalise(letter) is None
    assert renormalise(letter | {"event.name": prefix + event}) == wanted


@BOTH
def test_corrected_count_can_be_replayed(encoding: Encoding) -> None:
    (lost,) = normalise_logs(
        encode([Group([codex_response().having(input_token_count="many")])], encoding), encoding
    ).rejected
    with pytest.raises(InvalidRecordError):
        renormalise(lost.record)
    mended = renormalise(lost.record | {"input_token_count": "1000"})
    (wanted,) = normalise_logs(encode([Group([codex_response()])], encoding), encoding).packs
    assert mended is not None
    assert mended.events == wanted.events


@BOTH
@pytest.mark.parametrize("swap", [False, True])
def test_conflicting_records_of_a_request_are_both_shown(swap: bool, encoding: Encoding) -> None:
    first, last = claude_response(output_tokens=1), claude_response(output_tokens=500, event__sequence=8)
    records = [last, first] if swap else [first, last]
    result = normalise_logs(encode([Group(records, {}, "com.anthropic.claude_code.events")], encoding), encoding)
    assert [event["output"] for pack in result.packs for event in pack.events] == [500]
    (lost,) = result.rejected
    assert (lost.reason, lost.index, lost.session_id) == (Reason.CONFLICTING_COUNTS, 1, "s-1")
    assert (lost.record["counted"]["output"], lost.record["other"]["output"]) == (500, 1)


@BOTH
def test_duplicate_is_not_reported_as_conflict(encoding: Encoding) -> None:
    copies = [claude_response(), claude_response(duration_ms=5)]
    result = normalise_logs(encode([Group(copies, {}, "com.anthropic.claude_code.events")], encoding), encoding)
    assert (len(result.packs[0].events), result.rejected) == (2, [])
