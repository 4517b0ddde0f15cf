"""The compiled form reads usual bodies by a walk of its own: what it accepts must give what protobuf's parser gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from tests.support.examples import examples
from tests.support.otlp_bodies import Group, codex_noise, codex_response, protobuf
from tests.support.shown_records import shown

from tallystream.schemas.errors import InvalidBodyError, TooManyElementsError
from tallystream.schemas.otlp import Encoding, Limits, protobuf_logs, protobuf_scan, read_logs
from tallystream.schemas.otlp.limits import LIMITS

NAMES = st.sampled_from(["input_token_count", "tokens", "model", "event.name", "", "conversation.id"])
VALUES = (
    st.text(max_size=12).map(lambda value: AnyValue(string_value=value))
    | st.integers(-(2**63), 2**63 - 1).map(lambda value: AnyValue(int_value=value))
    | st.booleans().map(lambda value: AnyValue(bool_value=value))
    | st.floats().map(lambda value: AnyValue(double_value=value))
    | st.binary(max_size=12).map(lambda value: AnyValue(bytes_value=value))
    | st.just(AnyValue())
    | st.just(AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=1), AnyValue(string_value="oken")])))
)
LISTS = st.lists(st.builds(lambda name, value: KeyValue(key=name, value=value), NAMES, VALUES), max_size=3).map(
    lambda pairs: AnyValue(kvlist_value=KeyValueList(values=pairs))
)
"""A body that is a key-value list may have what belongs in the attributes."""
PAIRS = st.lists(st.builds(lambda name, value: KeyValue(key=name, value=value), NAMES, VALUES), max_size=6)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Return requests with every field of a log record."""
    request = ExportLogsServiceRequest()
    for _ in range(draw(st.integers(0, 3))):
        resource = request.resource_logs.add(schema_url=draw(st.sampled_from(["", "https://schema"])))
        resource.resource.attributes.extend(draw(PAIRS))
        resource.resource.dropped_attributes_count = draw(st.integers(0, 300))
        if draw(st.booleans()):
            resource.resource.entity_refs.append(EntityRef(type="service", id_keys=["service.name"]))
        for _ in range(draw(st.integers(0, 2))):
            scope = resource.scope_logs.add(schema_url=draw(st.sampled_from(["", "https://schema"])))
            scope.scope.CopyFrom(
                InstrumentationScope(name=draw(st.text(max_size=8)), version="1", attributes=draw(PAIRS))
            )
            for _ in range(draw(st.integers(0, 4))):
                made = scope.log_records.add(
                    time_unix_nano=draw(st.integers(0, 2**64 - 1)),
                    observed_time_unix_nano=draw(st.sampled_from([0, 1, 2**64 - 1])),
                    severity_number=draw(st.sampled_from([0, 9])),
                    severity_text=draw(st.text(max_size=5)),
                    attributes=draw(PAIRS),
                    dropped_attributes_count=draw(st.integers(0, 300)),
                    flags=draw(st.sampled_from([0, 1])),
                    trace_id=draw(st.binary(max_size=16)),
                    span_id=draw(st.binary(max_size=8)),
                    event_name=draw(st.text(max_size=8)),
                )
                if draw(st.booleans()):
                    made.body.CopyFrom(draw(VALUES | LISTS))
    return request.SerializeToString()


def outcome(body: bytes, limits: Limits, *, compiled: bool) -> Any:
    """Return what a body contains, or the error, read in the way of the compiled form or of the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protobuf_logs, "COMPILED", compiled)
        try:
            logs = read_logs(body, Encoding.PROTOBUF, limits)
            return [shown(found) for found in logs.candidates], logs.records
        except TooManyElementsError:
            return "too many"
        except InvalidBodyError as exc:
            return str(exc)


@examples(400)
@given(bodies())
def test_walk_gives_what_the_parser_gives(body: bytes) -> None:
    assert outcome(body, LIMITS, compiled=True) == outcome(body, LIMITS, compiled=False)


@examples(400)
@given(bodies(), st.data())
def test_walk_gives_the_same_for_damaged_bodies(body: bytes, data: st.DataObject) -> None:
    changed = bytearray(body or b"\n\x00")
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(changed[: len(changed) - data.draw(st.sampled_from([0, 0, 1, 7]))])
    assert outcome(damaged, LIMITS, compiled=True) == outcome(damaged, LIMITS, compiled=False)


@pytest.mark.parametrize(
    "limits",
    [Limits(frames=3), Limits(records=9), Limits(usage_records=1), Limits(attributes=4), Limits(record_bytes=300)],
)
def test_limits_apply_to_the_walk(limits: Limits) -> None:
    body = protobuf([Group([*codex_noise(), codex_response(), codex_response()]), Group([codex_response()])])
    assert outcome(body, limits, compiled=True) == outcome(body, limits, compiled=False)


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
