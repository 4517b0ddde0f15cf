"""Requests with every field of a log record, and what a way of reading makes of them."""

from __future__ import annotations

from typing import Any

import pytest
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
from tests.support.shown_records import shown

from tallystream.schemas.errors import InvalidBodyError, TooManyElementsError
from tallystream.schemas.otlp import Encoding, Limits, json_logs, protobuf_logs, read_logs

NAMES = st.sampled_from(["input_token_count", "tokens", "model", "event.name", "", "conversation.id", "token_url", "é"])
CONTENT = "12 tokens"
"""What is found in a value, and must not make a record one with token counts."""
VALUES = (
    (st.just(CONTENT) | st.text(max_size=12)).map(lambda value: AnyValue(string_value=value))
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
def log_requests(draw: st.DrawFn) -> ExportLogsServiceRequest:
    """Draw a request with every field of a log record."""
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
    return request


def outcome(body: bytes, encoding: Encoding, limits: Limits, *, compiled: bool) -> Any:
    """Return what a body contains, or the error, read in the way of the compiled form or of the other."""
    with pytest.MonkeyPatch.context() as patch:
        for reader in (json_logs, protobuf_logs):
            patch.setattr(reader, "COMPILED", compiled)
        try:
            logs = read_logs(body, encoding, limits)
            return [shown(found) for found in logs.candidates], logs.records
        except TooManyElementsError:
            return "too many"
        except InvalidBodyError as exc:
            return str(exc)
