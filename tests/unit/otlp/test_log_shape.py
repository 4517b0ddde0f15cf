"""The quick test for a log record agrees with the examination of each field."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_INFO, LogRecord
from tests.support.examples import examples

from tallystream.schemas.otlp.limits import LIMITS
from tallystream.schemas.otlp.protobuf_frames import is_log_record, shape


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def delimited(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def body_of(record: bytes) -> bytes:
    return delimited(1, delimited(2, delimited(2, record)))


field = st.builds(
    lambda number, kind, value, content: {
        0: varint(number << 3) + varint(value),
        1: varint(number << 3 | 1) + value.to_bytes(8, "little"),
        2: delimited(number, content),
        5: varint(number << 3 | 5) + content[:4].ljust(4, b"\0"),
    }[kind],
    st.integers(1, 17),
    st.sampled_from([0, 1, 2, 5]),
    st.integers(0, 2**64 - 1),
    st.binary(max_size=20),
)
record = st.lists(field, max_size=6).map(b"".join) | st.binary(max_size=30)


@examples(2_000)
@given(st.sampled_from([b"", b"\x09" + bytes(8), b"\x59" + bytes(8), b"\x10\x09"]), record)
def test_recognised_log_record_is_a_log_at_any_endpoint(first: bytes, rest: bytes) -> None:
    if is_log_record(first + rest):
        assert {shape(body_of(first + rest), signal, LIMITS) for signal in ("logs", "metrics", "traces")} == {"logs"}


def test_records_of_clients_are_recognised_as_logs() -> None:
    whole = LogRecord(severity_text="INFO", trace_id=bytes(16), span_id=bytes(8), flags=1, event_name="codex.x")
    whole.severity_number = SEVERITY_NUMBER_INFO
    whole.body.string_value = "hello"
    whole.attributes.add(key="input_tokens").value.int_value = 5
    for found in (LogRecord(time_unix_nano=1), LogRecord(observed_time_unix_nano=1), LogRecord()):
        found.MergeFrom(whole)
        assert is_log_record(found.SerializeToString())
