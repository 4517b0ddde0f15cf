"""The compiled form reads usual bodies by a walk of its own: what it accepts must give what protobuf's parser gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from tests.support.examples import examples
from tests.support.log_requests import log_requests, outcome
from tests.support.otlp_bodies import AT_NS, Group, codex_noise, codex_response, protobuf

from tallystream.schemas.otlp import Encoding, Limits, protobuf_scan
from tallystream.schemas.otlp.limits import LIMITS, DecodingBudget
from tallystream.schemas.otlp.records import TOKENS


def same(body: bytes, limits: Limits = LIMITS) -> bool:
    """Whether both ways of reading give the same."""
    walked, parsed = (outcome(body, Encoding.PROTOBUF, limits, compiled=compiled) for compiled in (True, False))
    assert walked == parsed
    return True


@examples(400)
@given(log_requests())
def test_walk_gives_what_the_parser_gives(request: ExportLogsServiceRequest) -> None:
    assert same(request.SerializeToString())


@examples(400)
@given(log_requests(), st.data())
def test_walk_gives_the_same_for_damaged_bodies(request: ExportLogsServiceRequest, data: st.DataObject) -> None:
    changed = bytearray(request.SerializeToString() or b"\n\x00")
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(changed[: len(changed) - data.draw(st.sampled_from([0, 0, 1, 7]))])
    assert same(damaged)


@pytest.mark.parametrize(
    "limits",
    [Limits(frames=3), Limits(records=9), Limits(usage_records=1), Limits(attributes=4), Limits(record_bytes=300)],
)
def test_limits_apply_to_the_walk(limits: Limits) -> None:
    body = protobuf([Group([*codex_noise(), codex_response(), codex_response()]), Group([codex_response()])])
    assert same(body, limits)


def usual_bodies() -> Iterator[bytes]:
    """Yield bodies as exporters send them."""
    yield protobuf([Group([*codex_noise(), codex_response()])])
    yield protobuf([Group([codex_response()]), Group(codex_noise(), scope=""), Group([codex_response()])])


def test_walk_takes_what_exporters_send() -> None:
    for body in usual_bodies():
        assert protobuf_scan.is_usual(body)


def test_walk_leaves_the_unusual_to_the_parser() -> None:
    body = next(usual_bodies())
    for odd in (b"", body + b"\x12\x00", body[:-1], body + b"\x0b\x0c", b"\n\x00", body + body[:2]):
        assert not protobuf_scan.is_usual(odd)


CONTENT = AnyValue(string_value="input_token_count 12 tokens")
COUNTS = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="input_tokens", value=AnyValue(int_value=5))]))


def record(attributes: dict[str, AnyValue], body: AnyValue | None = None) -> bytes:
    """Return a log record in protobuf."""
    pairs = [KeyValue(key=key, value=value) for key, value in attributes.items()]
    return LogRecord(time_unix_nano=AT_NS, attributes=pairs, body=body).SerializeToString()


def body_with(raw: bytes) -> bytes:
    """Return a request with one record, whose bytes need not be valid."""
    body = raw
    for tag in (0x12, 0x12, 0x0A):  # the record, its scope, its resource
        assert len(body) < 128
        body = bytes([tag, len(body)]) + body
    return body


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (record({"output": CONTENT}), 0),
        (record({"token_url": CONTENT, "": CONTENT}), 0),
        (record({"output": CONTENT}, CONTENT), 0),
        (record({"output": CONTENT}, AnyValue()), 0),
        (record({"output": CONTENT}).replace(b"12", b"\xff2"), 0),
        (record({"output": CONTENT, "model": CONTENT}), 0),
        (record({"output": CONTENT, "tokens": CONTENT}), 1),
        (record({"output": CONTENT}, COUNTS), 1),
        (record({"output": CONTENT}, CONTENT) + record({}, COUNTS), 1),
        (record({"x_input_tokens": AnyValue(int_value=5)}).replace(b"x_", b"\xff_"), 1),
        (record({f"{place}": AnyValue() for place in range(5)} | {"output": CONTENT}), 1),
        (record({"output": CONTENT, "a" * 36: CONTENT}), 1),
        (record({"output": CONTENT}).replace(b"\n\x06output\x12", b"\x12\x06output\x12"), 0),
        (record({"output": CONTENT}).replace(b"\n\x06output\x12", b"\n\x06output\x1a"), 0),
    ],
)
def test_record_is_found_by_its_names_and_not_by_its_content(raw: bytes, found: int) -> None:
    body, limits = body_with(raw), Limits(attributes=5, record_bytes=118)
    assert same(body, limits)
    assert protobuf_scan.is_usual(body)
    assert len(protobuf_scan.records(body, DecodingBudget(limits), TOKENS)) == found
