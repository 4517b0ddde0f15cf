"""OpenTelemetry's own exporters against the gateway, used as in any Python service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from tests.integration.gateway.conftest import Deployment
from tests.support.gateway import config_of, logs_path, read_topic, running
from tests.support.otlp_bodies import AT_NS

pytestmark = pytest.mark.kafka
RESOURCE = Resource.create({"service.name": "codex_exec", "team": "core"})


def export_all(base: str, compression: Compression) -> None:
    logs = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    exporter = OTLPLogExporter(f"{base}/v1/logs", compression=compression)
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    attributes: dict[str, str | int] = {
        "event.name": "codex.sse_event",
        "event.kind": "response.completed",
        "conversation.id": f"sdk-{compression.name}",
        "model": "gpt-5.1-codex",
        "input_token_count": "100",
        "output_token_count": "20",
        "cached_token_count": 30,
    }
    logs.get_logger("codex_otel.log_only").emit(LogRecord(observed_timestamp=AT_NS, attributes=attributes))
    logs.shutdown()
    traces = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    spans = OTLPSpanExporter(f"{base}/v1/traces", compression=compression)
    traces.add_span_processor(SimpleSpanProcessor(spans))
    with traces.get_tracer("t").start_as_current_span("span") as span:
        pass
    assert spans.export([span]) is SpanExportResult.SUCCESS  # type: ignore[list-item]  # the SDK's own span
    traces.shutdown()
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{base}/v1/metrics", compression=compression))
    metrics = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    metrics.get_meter("t").create_counter("c").add(1)
    assert metrics.force_flush()
    metrics.shutdown()


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip, Compression.Deflate])
async def test_gateway_accepts_logs_metrics_and_traces_of_the_sdk(
    fresh: Deployment, tmp_path: Path, compression: Compression
) -> None:
    async with running(config_of(fresh.kafka, fresh.prefix, tmp_path)) as gateway:
        base = (gateway.url + logs_path()).removesuffix("/v1/logs")
        await asyncio.to_thread(export_all, base, compression)
    ((_, batch),) = await read_topic(fresh.kafka, fresh.topics.usage)
    assert (batch["session_id"], batch["attribution"]["team"]) == (f"sdk-{compression.name}", "core")
    (event,) = batch["events"]
    assert (event["input_uncached"], event["cache_read"], event["output"]) == (70, 30, 20)
    activity = dict(await read_topic(fresh.kafka, fresh.topics.activity)).values()
    assert {one["signal"]: one["requests"] for one in activity} == {"logs": 1, "metrics": 2, "traces": 2}
