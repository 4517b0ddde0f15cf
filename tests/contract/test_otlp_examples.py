"""OTLP as others write it: the specification's JSON examples, the official JSON classes, and a real exporter."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto_json.collector.logs.v1.logs_service import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult, SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from tests.conftest import SHARED
from tests.support.otlp_bodies import AT_NS, Group, as_json, codex_noise, codex_response

from tallystream.schemas import otlp
from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.connections import Signal
from tallystream.schemas.otlp import Encoding, detect_signal, inspect, read_logs

EXAMPLES = SHARED / "specs" / "otlp-examples"


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="there are no examples beside this checkout")
@pytest.mark.parametrize(
    ("file", "signal", "size"),
    [("logs.json", "logs", 1), ("events.json", "logs", 1), ("metrics.json", "metrics", 4), ("trace.json", "traces", 1)],
)
def test_examples_of_the_specification_are_decoded(file: str, signal: Signal, size: int) -> None:
    body = (EXAMPLES / file).read_bytes()
    assert detect_signal(body, Encoding.JSON) == signal
    assert inspect(body, Encoding.JSON, signal) == size
    if signal == "logs":
        result = normalise_logs(body, Encoding.JSON)
        assert (result.records, result.packs, result.rejected) == (1, [], [])


def test_official_json_classes_agree_with_our_decoder() -> None:
    """The official classes read our builder's JSON, and their encoding of it gives the same usage."""
    body = as_json([Group([*codex_noise(), codex_response()], {"team": "payments", "n": 5})])
    official = ExportLogsServiceRequest.from_json(body.decode())
    again = official.to_json().encode()
    assert again != body
    assert normalise_logs(again, Encoding.JSON) == normalise_logs(body, Encoding.JSON)
    theirs = {
        pair.key: pair.value
        for resource in official.resource_logs
        for scope in resource.scope_logs
        for pair in scope.log_records[-1].attributes
    }
    *_, ours = read_logs(body, Encoding.JSON).candidates
    assert isinstance(ours, otlp.LogRecord)
    assert set(ours.attributes.names()) == set(theirs)
    for name, value in theirs.items():
        assert name is not None
        assert value is not None
        assert ours.attributes.get(name) == (value.string_value if value.string_value is not None else value.int_value)


class Kept(LogRecordExporter):
    """An exporter that keeps the bytes it would send."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        self.bodies.append(encode_logs(batch).SerializeToString())
        return LogRecordExportResult.SUCCESS

    def shutdown(self) -> None:
        """There is nothing to close."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """There is nothing to wait for."""
        return True


def test_record_of_the_python_sdk_is_decoded() -> None:
    exporter = Kept()
    provider = LoggerProvider(resource=Resource({"team": "payments"}), shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    attributes = {name: value for name, value in codex_response().attributes if isinstance(value, str | int)}
    provider.get_logger("codex_otel.log_only").emit(
        LogRecord(timestamp=AT_NS, observed_timestamp=AT_NS, body="text", attributes=attributes)
    )
    provider.shutdown()
    (body,) = exporter.bodies
    (pack,) = normalise_logs(body, Encoding.PROTOBUF).packs
    assert (pack.session_id, pack.attribution) == ("s-1", {"team": "payments", "agent": "codex_exec"})
    assert (pack.events[0]["input_uncached"], pack.events[0]["occurred_at"]) == (500, AT_NS)
