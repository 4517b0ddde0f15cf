"""The bodies of answers, decoded with the official classes."""

from __future__ import annotations

import json

import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from tallystream.schemas.otlp import Encoding, partial_success, status, success


def test_full_success_leaves_partial_success_unset() -> None:
    assert success(Encoding.PROTOBUF) == ExportLogsServiceResponse().SerializeToString()
    assert json.loads(success(Encoding.JSON)) == {}


def test_partial_success_is_encoded_in_protobuf() -> None:
    logs = ExportLogsServiceResponse.FromString(partial_success("logs", 3, "why", Encoding.PROTOBUF)).partial_success
    metrics = ExportMetricsServiceResponse.FromString(partial_success("metrics", 4, "why", Encoding.PROTOBUF))
    traces = ExportTraceServiceResponse.FromString(partial_success("traces", 5, "why", Encoding.PROTOBUF))
    assert (logs.rejected_log_records, logs.error_message) == (3, "why")
    assert metrics.partial_success.rejected_data_points == 4
    assert traces.partial_success.rejected_spans == 5


@pytest.mark.parametrize(
    ("signal", "name"), [("logs", "rejectedLogRecords"), ("metrics", "rejectedDataPoints"), ("traces", "rejectedSpans")]
)
def test_partial_success_is_encoded_in_json(signal: str, name: str) -> None:
    body = json.loads(partial_success(signal, 3, "wh\u00fd", Encoding.JSON))  # type: ignore[arg-type] # parametrized
    assert body == {"partialSuccess": {name: "3", "errorMessage": "wh\u00fd"}}


def test_status_is_encoded_in_protobuf() -> None:
    plain = Status.FromString(status(3, "no OTLP", Encoding.PROTOBUF))
    assert (plain.code, plain.message, len(plain.details)) == (3, "no OTLP", 0)
    again = Status.FromString(status(14, "full", Encoding.PROTOBUF, retry_delay=5))
    retry = RetryInfo()
    assert again.details[0].Unpack(retry)
    assert (again.code, retry.retry_delay.seconds) == (14, 5)


def test_status_is_encoded_in_json() -> None:
    assert json.loads(status(3, "no OTLP", Encoding.JSON)) == {"code": 3, "message": "no OTLP"}
    assert json.loads(status(14, "full", Encoding.JSON, retry_delay=5)) == {
        "code": 14,
        "message": "full",
        "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "5s"}],
    }
