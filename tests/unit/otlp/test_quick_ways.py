"""What is decided or read in a quick way is what the plain way gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.support.examples import examples
from tests.support.log_requests import PAIRS, log_requests, outcome
from tests.support.otlp_bodies import Group, Record, codex_noise, codex_response, encode

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.clients.links import HINT
from tallystream.schemas.otlp import Encoding, LogRecord, json_memory, json_parsed, protobuf_logs, read_logs
from tallystream.schemas.otlp.attributes import JsonAttributes, MapAttributes, PlainAttributes, message_values
from tallystream.schemas.otlp.json_attributes import any_value, attributes, sound_attributes
from tallystream.schemas.otlp.limits import LIMITS
from tallystream.schemas.otlp.protobuf_messages import LogRecordMessage
from tallystream.schemas.otlp.records import TOKENS, Attributes, RecordHint

BOTH = pytest.mark.parametrize("encoding", list(Encoding))
NAMED = ("input_token_count", "absent", "tokens", "model", "", "event.name")
JSON = st.recursive(
    st.sampled_from(["", "a", 0, None, True, 1.5]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=4),
    max_leaves=40,
)


def body_of(request: ExportLogsServiceRequest, encoding: Encoding) -> bytes:
    if encoding is Encoding.PROTOBUF:
        return request.SerializeToString()
    return json.dumps(MessageToDict(request)).encode()


@examples(200)
@given(PAIRS)
def test_values_read_in_one_call_are_those_read_one_by_one(pairs: list[Any]) -> None:
    raw = b"".join(b"\x32%c%b" % (pair.ByteSize(), pair.SerializeToString()) for pair in pairs)
    held = LogRecordMessage.FromString(raw).attributes
    written = {"attributes": [MessageToDict(pair) for pair in pairs]}
    forms: list[Attributes] = [MapAttributes(held), PlainAttributes(message_values(held))]
    forms.append(JsonAttributes(sound_attributes(written), any_value))
    shown = [[repr(value) for value in form.values_of(NAMED)] for form in forms]
    assert shown == [[repr(form.get(name)) for name in NAMED] for form in forms]
    assert shown[0] == shown[1]


ENTRY: st.SearchStrategy[Any] = st.dictionaries(
    st.sampled_from(["key", "value", "x"]), st.sampled_from([None, "a", "\u00e9", "\ud800", 1, {}])
)


@examples(300)
@given(st.lists(ENTRY | st.sampled_from([None, 1, "key", []]), max_size=3))
def test_attributes_in_json_are_read_as_far_as_each_is_sound(entries: list[Any]) -> None:
    parent = {"attributes": entries}
    try:
        found = attributes(parent)
    except Exception:
        assert len(sound_attributes(parent)) < len(entries)
    else:
        assert found == sound_attributes(parent)


@BOTH
@examples(200)
@given(log_requests())
def test_record_that_is_dropped_by_its_names_would_not_have_counted(
    encoding: Encoding, request: ExportLogsServiceRequest
) -> None:
    body = body_of(request, encoding)
    found = normalise_logs(body, encoding)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecordHint, "in_names", lambda *_: True)
        assert normalise_logs(body, encoding) == found


@BOTH
def test_record_that_only_mentions_tokens_is_no_candidate(encoding: Encoding) -> None:
    mentions = [
        record for record in codex_noise() if any("input_token_count 12" in str(v) for _, v in record.attributes)
    ]
    assert mentions
    assert not list(read_logs(encode([Group(mentions)], encoding), encoding).candidates)
    inside = Record([("event.name", "x")], body={"input_token_count": 5, "conversation.id": "s"})
    assert len(list(read_logs(encode([Group([*mentions, inside])], encoding), encoding).candidates)) == 1


@examples(200)
@given(log_requests())
def test_json_body_parsed_whole_gives_what_its_parts_give(request: ExportLogsServiceRequest) -> None:
    body = body_of(request, Encoding.JSON)
    whole = outcome(body, Encoding.JSON, LIMITS, compiled=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_parsed, "whole", lambda _: None)
        assert outcome(body, Encoding.JSON, LIMITS, compiled=False) == whole


@examples(300)
@given(JSON)
def test_no_valid_json_is_denser_than_is_assumed(value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"))
    weight = 240 * text.count("{") + 120 * text.count("[") + 60 * text.count(",")
    assert weight <= json_memory._DENSEST * len(text) + json_memory._OBJECT


def test_densest_json_just_below_the_bound_needs_no_more_memory_than_is_allowed() -> None:
    size = 90_000
    body = b"[" + b"{}," * (size // 3) + b"{}]"
    assert json_memory.is_surely_allowed(len(body))
    assert not json_memory.weighs_too_much(body)
    larger = b"[" + b"{}," * size + b"{}]"
    assert not json_memory.is_surely_allowed(len(larger))
    assert json_memory.weighs_too_much(larger)


@examples(200)
@given(log_requests(), st.data())
def test_protobuf_body_parsed_whole_gives_what_its_fields_give(
    request: ExportLogsServiceRequest, data: st.DataObject
) -> None:
    body = bytearray(request.SerializeToString())
    if body and data.draw(st.booleans()):
        body[data.draw(st.integers(0, len(body) - 1))] = 0xFF
    # a resource that is not UTF-8, and one that comes in two parts
    response = encode([Group([codex_response()], {"team": "caf\u00e9"})], Encoding.PROTOBUF)
    for one in (bytes(body), response, response.replace("\u00e9".encode(), b"\xff\xfe"), _twice(response)):
        whole = outcome(one, Encoding.PROTOBUF, LIMITS, compiled=False)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(protobuf_logs, "PARSED_WHOLE", 0)
            assert outcome(one, Encoding.PROTOBUF, LIMITS, compiled=False) == whole


def _twice(body: bytes) -> bytes:
    """Return a body whose only resource has a second part."""
    request = ExportLogsServiceRequest.FromString(body)
    first = request.resource_logs[0].SerializeToString()
    more = ExportLogsServiceRequest.FromString(encode([Group([], {"env": "lab"})], Encoding.PROTOBUF)).resource_logs[0]
    more.ClearField("scope_logs")
    both = first + more.SerializeToString()
    return b"\n" + bytes([len(both) & 0x7F | 0x80, len(both) >> 7]) + both


def test_resource_in_two_parts_is_one() -> None:
    (record,) = read_logs(
        _twice(encode([Group([codex_response()], {"team": "a"})], Encoding.PROTOBUF)), Encoding.PROTOBUF
    ).candidates
    assert isinstance(record, LogRecord)
    assert record.resource == {"team": "a", "env": "lab"}


def test_resource_of_the_next_body_is_its_own() -> None:
    for team in ("a", "b", "a"):
        found = normalise_logs(
            encode([Group([codex_response()], {"team": team})], Encoding.PROTOBUF), Encoding.PROTOBUF
        )
        assert [pack.attribution["team"] for pack in found.packs] == [team]


@pytest.mark.parametrize("hint", [TOKENS, HINT], ids=["tokens", "links"])
def test_short_ways_of_a_hint_find_only_what_the_hint_finds(hint: RecordHint) -> None:
    assert all(hint.names.search(name) for name in hint.usual)
    # so that a text without the mark cannot match
    assert hint.raw.pattern.startswith(hint.mark)
    assert hint.names.pattern.startswith(hint.names_mark)
