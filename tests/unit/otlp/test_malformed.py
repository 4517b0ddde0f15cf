"""Arbitrary bytes give a result or InvalidBodyError, and no other exception."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from tests.support.otlp_bodies import AT_NS, Group, Record, as_json, codex_noise, codex_response, encode, protobuf

from tallystream.schemas.clients import LogsResult, normalise_logs
from tallystream.schemas.clients.logs import MOST_REJECTED
from tallystream.schemas.errors import InvalidBodyError, Reason, TooManyElementsError
from tallystream.schemas.otlp import Encoding, detect_signal, inspect, json_frames, protobuf_logs
from tallystream.schemas.packing import messages

GOOD = {
    Encoding.PROTOBUF: protobuf([Group([*codex_noise(), codex_response()])]),
    Encoding.JSON: as_json([Group([*codex_noise(), codex_response()])]),
}


def survives(body: bytes, encoding: Encoding) -> None:
    """Every reader must return a result or refuse the body."""
    readers: list[Callable[[], Any]] = [
        lambda: normalise_logs(body, encoding),
        lambda: detect_signal(body, encoding),
        lambda: inspect(body, encoding, "logs"),
        lambda: inspect(body, encoding, "metrics"),
        lambda: inspect(body, encoding, "traces"),
    ]
    for read in readers:
        with contextlib.suppress(InvalidBodyError):
            assert isinstance(read(), LogsResult | int | str)


@given(st.binary(max_size=400), st.sampled_from(Encoding))
def test_random_bytes_never_crash_the_decoder(body: bytes, encoding: Encoding) -> None:
    survives(body, encoding)


@given(st.sampled_from(Encoding), st.data())
def test_mutated_body_never_crashes_the_decoder(encoding: Encoding, data: st.DataObject) -> None:
    body = bytearray(GOOD[encoding])
    for _ in range(data.draw(st.integers(0, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(body[: data.draw(st.integers(0, len(body)))]), encoding)


WORDS = """resourceLogs scopeLogs logRecords resource scope attributes key value name timeUnixNano traceId eventName
observedTimeUnixNano stringValue intValue doubleValue boolValue resourceMetrics scopeMetrics metrics gauge sum
dataPoints resourceSpans scopeSpans spans input_token_count"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)


@given(st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5)))
def test_any_json_with_otlp_names_never_crashes_the_decoder(found: object) -> None:
    survives(json.dumps(found).encode(), Encoding.JSON)


@given(st.sampled_from(["resourceLogs", "scopeLogs", "logRecords", "attributes", "value"]), SCALARS | st.lists(SCALARS))
def test_any_json_at_any_position_never_crashes_the_decoder(key: str, found: object) -> None:
    def replaced(node: object) -> Any:
        if isinstance(node, dict):
            return {name: found if name == key else replaced(inner) for name, inner in node.items()}
        return [replaced(inner) for inner in node] if isinstance(node, list) else node

    survives(json.dumps(replaced(json.loads(GOOD[Encoding.JSON]))).encode(), Encoding.JSON)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(GOOD[Encoding.JSON], id="JSON sent as protobuf"),
        pytest.param(b"\xff" * 50, id="garbage"),
        pytest.param(b"\x08\x01", id="resource_logs as a number"),
        pytest.param(b"\x0a\x02\x10\x01", id="scope_logs as a number"),
        pytest.param(b"\x0a\xff", id="a length without its end"),
        pytest.param(b"\x0a\x05\x12\x03\x12\x05\x39", id="one record, cut off"),
    ],
)
def test_unreadable_protobuf_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidBodyError) as refused:
        normalise_logs(body, Encoding.PROTOBUF)
    assert "protobuf" in refused.value.message


def sessions(result: LogsResult) -> list[str]:
    return [pack.session_id for pack in result.packs for _ in pack.events]


RECORDS = [codex_response(f"s-{number}", at_ns=AT_NS + number) for number in range(5)]
FIVE = {encoding: encode([Group(RECORDS)], encoding) for encoding in Encoding}


@pytest.mark.parametrize("encoding", list(Encoding))
@given(cut=st.integers(1, 200))
def test_complete_records_of_a_truncated_body_count(encoding: Encoding, cut: int) -> None:
    result = normalise_logs(FIVE[encoding][:-cut], encoding)
    lost = result.rejected[-1]
    assert len(result.rejected) == 1
    # the last brackets do not belong to a record: without them all five are complete
    assert sessions(result) in (["s-0", "s-1", "s-2", "s-3"], ["s-0", "s-1", "s-2", "s-3", "s-4"])
    assert lost.reason is Reason.UNDECODABLE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"codex_exec", b"codex\xffexec"),
        (b"lab", b"\xed\xa0\xbd"),
        (b"codex_otel.log_only", b"codex_otel.log_\xff\xfe\xfd\xfc"),
        (b"otlp", b"o\xc3\x28p"),
        (b"response.completed", b"response.complete\xe9"),
    ],
)
@pytest.mark.parametrize("encoding", list(Encoding))
def test_invalid_utf8_does_not_lose_the_record(old: bytes, new: bytes, encoding: Encoding) -> None:
    body = FIVE[encoding].replace(old, new)
    if old != b"otlp":
        assert body != FIVE[encoding]
    result = normalise_logs(body, encoding)
    assert (len(sessions(result)), result.rejected) == (5, [])


@pytest.mark.parametrize("encoding", list(Encoding))
def test_invalid_utf8_becomes_the_replacement_character(encoding: Encoding) -> None:
    body = FIVE[encoding].replace(b"s-3", b"s\xff3").replace(b"gpt-5.1-codex", b"gpt-5.1\xffcodex")
    result = normalise_logs(body, encoding)
    assert sessions(result) == ["s-0", "s-1", "s-2", "s\ufffd3", "s-4"]
    assert {event["model"] for pack in result.packs for event in pack.events} == {"gpt-5.1\ufffdcodex"}
    for pack in result.packs:
        assert list(messages(pack, "c-1", str))


@pytest.mark.parametrize(
    ("old", "new", "counted"),
    [
        # text and numbers that are not used
        ('"codex_exec"', '"\\ud83d"', 5),
        ('{"stringValue": "lab"}', '{"doubleValue": NaN}', 5),
        ('{"stringValue": "lab"}', '{"doubleValue": -Infinity}', 5),
        ('{"stringValue": "lab"}', '{"doubleValue": 1e999}', 5),
        ('{"stringValue": "lab"}', '{"doubleValue": nan}', 5),
        ('{"stringValue": "lab"}', '{"intValue": 5e}', 5),
        ('{"stringValue": "lab"}', '{"stringValue": "a\tb\n"}', 5),
        ('{"stringValue": "lab"}', '{"stringValue": "\\x41"}', 5),
        ('{"stringValue": "lab"}', '{"intValue": "9999999999999999999999"}', 5),
        ('"severityNumber": 9', '"severityNumber": "SEVERITY_NUMBER_INFO"', 5),
        ('"severityNumber": 9', '"severityNumber": undefined', 5),
        # a record's own count, or its structure
        ('{"stringValue": "s-2"}', '{"stringValue": 2}', 4),
        ('"s-2"', '"s-2', 0),
    ],
)
def test_invalid_json_record_does_not_affect_others(old: str, new: str, counted: int) -> None:
    body = json.dumps(json.loads(FIVE[Encoding.JSON]))
    assert old in body
    changed = body.replace(old, new).encode()
    if counted:
        result = normalise_logs(changed, Encoding.JSON)
        assert (len(sessions(result)), len(result.rejected)) == (counted, 5 - counted)
    else:
        # an unterminated quote swallows what follows, but nothing before it
        assert sessions(normalise_logs(changed, Encoding.JSON)) == ["s-0", "s-1"]


@pytest.mark.parametrize(
    "record", ["5", '"text"', "null", "[]", '{"attributes": 5}', "nan", '{"attributes": ["input_tokens"]}']
)
@pytest.mark.parametrize("place", range(3))
def test_undecodable_record_becomes_its_own_dead_letter(record: str, place: int) -> None:
    body = json.loads(FIVE[Encoding.JSON])
    body["resourceLogs"][0]["scopeLogs"][0]["logRecords"].insert(place * 2, "HERE")
    result = normalise_logs(json.dumps(body).replace('"HERE"', record).encode(), Encoding.JSON)
    assert sessions(result) == ["s-0", "s-1", "s-2", "s-3", "s-4"]
    assert [(lost.index, lost.reason) for lost in result.rejected] == [(place * 2, Reason.UNDECODABLE)]
    assert result.records == 6


def test_broken_protobuf_record_becomes_a_dead_letter_with_its_readable_fields() -> None:
    request = ExportLogsServiceRequest.FromString(FIVE[Encoding.PROTOBUF])
    scope = request.resource_logs[0].scope_logs[0]
    third = scope.log_records[2].SerializeToString()
    name = len(scope.log_records[2].event_name)
    # wire type 7 does not exist
    wrong = third[: -name - 2] + b"\x7f" + third[-name - 1 :]
    whole = FIVE[Encoding.PROTOBUF].replace(third, wrong)
    result = normalise_logs(whole, Encoding.PROTOBUF)
    assert sessions(result) == ["s-0", "s-1", "s-3", "s-4"]
    (lost,) = result.rejected
    assert (lost.index, lost.reason, lost.session_id) == (2, Reason.UNDECODABLE, "s-2")
    assert lost.record["input_token_count"] == "1000"


@given(st.lists(st.sampled_from(RECORDS), min_size=1, max_size=4), st.text(max_size=5))
def test_both_decoders_give_the_same_result(records: list[Record], team: str) -> None:
    for encoding in Encoding:
        body = encode([Group(records, {"team": team, "service.name": "codex_exec"})] * 2, encoding)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(json_frames, "PARSED_WHOLE", 0)
            patch.setattr(protobuf_logs, "PARSED_WHOLE", 0)
            apart = normalise_logs(body, encoding)
        assert apart == normalise_logs(body, encoding)


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf"])
def test_byte_order_mark_is_skipped(mark: bytes) -> None:
    plain = FIVE[Encoding.JSON]
    for body in (mark + plain, plain.replace(b'"logRecords": [', b'"logRecords": [' + mark), plain + mark):
        assert normalise_logs(body, Encoding.JSON) == normalise_logs(plain, Encoding.JSON)
    assert normalise_logs(plain.decode().encode("utf-16"), Encoding.JSON).packs
    assert inspect(mark + b'{"resourceSpans": []}', Encoding.JSON, "traces") == 0


@pytest.mark.thorough
def test_bodies_above_a_count_limit_are_too_large() -> None:
    with pytest.raises(TooManyElementsError, match="resources and scopes"):
        normalise_logs(b"\x0a\x00" * 40_000, Encoding.PROTOBUF)
    many = b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"{}," * 300_000 + b"{}]}]}]}"
    with pytest.raises(TooManyElementsError):
        normalise_logs(many, Encoding.JSON)
    with pytest.raises(TooManyElementsError, match="scopes"):
        normalise_logs(b'{"resourceLogs":[' + b"{}," * 40_000 + b"{}]}", Encoding.JSON)


def test_many_dead_letters_of_one_reason_are_summarised() -> None:
    bad = [codex_response(f"s-{number}").having(input_token_count="many") for number in range(MOST_REJECTED + 50)]
    result = normalise_logs(encode([Group([*bad, codex_response()])], Encoding.JSON), Encoding.JSON)
    assert (len(result.rejected), result.lost, len(result.packs)) == (MOST_REJECTED, MOST_REJECTED + 50, 1)
