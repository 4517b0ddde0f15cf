"""The signal and the size of a body, checked with bodies of the official classes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.connections import Signal
from tallystream.schemas.errors import InvalidBodyError
from tallystream.schemas.otlp import Encoding, detect_signal, inspect

SIGNALS: tuple[Signal, ...] = ("logs", "metrics", "traces")
TOKENS = KeyValue(key="input_tokens", value=AnyValue(int_value=5))


def logs() -> bytes:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.log_records.add(severity_number=9, body=AnyValue(string_value="hello"))
    scope.log_records.add(observed_time_unix_nano=1, attributes=[TOKENS])
    return request.SerializeToString()


def metrics() -> bytes:
    request = ExportMetricsServiceRequest()
    scope = request.resource_metrics.add().scope_metrics.add()
    scope.metrics.add(name="codex.turn.token_usage", unit="x", description="d").histogram.data_points.add(count=3)
    total = scope.metrics.add(name="b")
    total.sum.data_points.add(as_int=1, attributes=[TOKENS])
    total.sum.data_points.add(as_double=1)
    scope.metrics.add(name="c").gauge.data_points.add(as_int=1)
    scope.metrics.add(name="d").exponential_histogram.data_points.add(count=1)
    scope.metrics.add(name="e").summary.data_points.add(count=1)
    return request.SerializeToString()


def traces() -> bytes:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for name in ("handle_responses", ""):
        scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name=name, start_time_unix_nano=5, attributes=[TOKENS])
    return request.SerializeToString()


BODIES: dict[Signal, tuple[Callable[[], bytes], int]] = {
    "logs": (logs, 2),
    "metrics": (metrics, 6),
    "traces": (traces, 2),
}

JSON: dict[Signal, tuple[bytes, int]] = {
    "logs": (b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{"body":null}]}]},{}]}', 2),
    "metrics": (
        b"""{"resourceMetrics": [{"scopeMetrics": [{"metrics": [
            {"name": "a", "sum": {"dataPoints": [{"asInt": 1}, {}]}}, {"name": "b", "gauge": null},
            {"name": "c", "histogram": {"dataPoints": [{"count": 2}]}}, {"name": "d", "summary": {}}]}]}]}""",
        3,
    ),
    "traces": (b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"a"}]},{"spans":null}]}]}', 1),
}


def cases() -> list[tuple[Signal, bytes, Encoding, int]]:
    protobuf = [(signal, build(), Encoding.PROTOBUF, size) for signal, (build, size) in BODIES.items()]
    return protobuf + [(signal, body, Encoding.JSON, size) for signal, (body, size) in JSON.items()]


@pytest.mark.parametrize(("signal", "body", "encoding", "size"), cases())
def test_signal_and_size_of_a_body_are_recognised(signal: Signal, body: bytes, encoding: Encoding, size: int) -> None:
    assert detect_signal(body, encoding) == signal
    assert inspect(body, encoding, signal) == size


@pytest.mark.parametrize(("signal", "body", "encoding", "size"), cases())
def test_body_of_another_signal_is_refused_at_an_endpoint(
    signal: Signal, body: bytes, encoding: Encoding, size: int
) -> None:
    for other in SIGNALS:
        if other != signal:
            with pytest.raises(InvalidBodyError) as refused:
                inspect(body, encoding, other)
            assert f"holds {signal}" in refused.value.message
            assert f"/v1/{signal}" in refused.value.hint


@pytest.mark.parametrize(("signal", "body", "encoding", "size"), cases())
def test_only_logs_are_normalised(signal: Signal, body: bytes, encoding: Encoding, size: int) -> None:
    if signal == "logs":
        assert normalise_logs(body, encoding).records == size
    else:
        with pytest.raises(InvalidBodyError, match=f"holds {signal}"):
            normalise_logs(body, encoding)


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize(("body", "encoding"), [(b"", Encoding.PROTOBUF), (b"{}", Encoding.JSON)])
def test_empty_request_succeeds_at_every_endpoint(signal: Signal, body: bytes, encoding: Encoding) -> None:
    assert inspect(body, encoding, signal) == 0
    assert detect_signal(body, encoding) == "logs"


@pytest.mark.parametrize("signal", SIGNALS)
def test_field_names_may_be_snake_case(signal: Signal) -> None:
    body, size = JSON[signal]
    spelled = re.sub(rb'"([a-z]+)([A-Z])([A-Za-z]+)"', lambda m: b'"%b_%b%b"' % (m[1], m[2].lower(), m[3]), body)
    assert spelled != body
    assert detect_signal(spelled, Encoding.JSON) == signal
    assert inspect(spelled, Encoding.JSON, signal) == size


@pytest.mark.parametrize("signal", SIGNALS)
@pytest.mark.parametrize("key", ["ResourceLogs", "resourcelogs", "resource-spans", "events", "batch"])
def test_object_without_otlp_names_is_refused_with_a_reason(signal: Signal, key: str) -> None:
    body = f'{{"{key}": [{{}}]}}'.encode()
    for read in (lambda: inspect(body, Encoding.JSON, signal), lambda: detect_signal(body, Encoding.JSON)):
        with pytest.raises(InvalidBodyError, match=key):
            read()


def test_unknown_field_does_not_change_the_signal() -> None:
    newer = b"\xf8\x07\x01"
    record = b"\x09" + (5).to_bytes(8, "little") + newer
    scope = b"\x12" + bytes([len(record)]) + record
    resource = b"\x12" + bytes([len(scope)]) + scope
    body = b"\x0a" + bytes([len(resource)]) + resource + newer
    assert detect_signal(body, Encoding.PROTOBUF) == "logs"
    assert inspect(body, Encoding.PROTOBUF, "logs") == 1
