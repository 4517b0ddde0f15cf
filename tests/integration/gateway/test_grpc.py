"""OTLP over gRPC with real clients, on real Kafka."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from tests.conftest import SHARED
from tests.integration.gateway.conftest import CLAUDE_ID, GUARDED_ID, REVOKED_ID, Deployment
from tests.integration.gateway.test_http import METRICS, TRACES, body, usage
from tests.support.gateway import BEARER, INGEST_ID, config_of, connection, read_topic, running, write
from tests.support.otlp_bodies import AT_NS, Group, codex_response, encode
from tests.support.tls import Authority
from tests.support.waiting import ANSWER

from tallystream.schemas.clients import normalise_logs
from tallystream.schemas.ingest import CONNECTION_HEADER
from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway import Gateway

pytestmark = pytest.mark.kafka
EXPORT = {
    signal: f"/opentelemetry.proto.collector.{signal.rstrip('s') if signal == 'traces' else signal}.v1.{name}/Export"
    for signal, name in (("logs", "LogsService"), ("metrics", "MetricsService"), ("traces", "TraceService"))
}
WHO = ((CONNECTION_HEADER, INGEST_ID),)


@pytest.fixture
async def served(deployment: Deployment, tmp_path: Path) -> AsyncIterator[Gateway]:
    async with running(config_of(deployment.kafka, deployment.prefix, tmp_path, grpc_port=0)) as one:
        yield one


@asynccontextmanager
async def export(gateway: Gateway, signal: str = "logs", **options: object) -> AsyncIterator[Callable[..., Any]]:
    assert gateway.grpc is not None
    async with grpc.aio.insecure_channel(gateway.grpc, **options) as channel:
        yield channel.unary_unary(EXPORT[signal])


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value


def retry_seconds(refused: grpc.aio.AioRpcError) -> int | None:
    """Return the delay of the RetryInfo, None when there is none."""
    for key, value in refused.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = RetryInfo()
            assert Status.FromString(value).details[0].Unpack(info)
            return int(info.retry_delay.seconds)
    return None


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_usage_is_in_kafka_before_the_answer(
    served: Gateway, deployment: Deployment, compression: grpc.Compression
) -> None:
    session = f"grpc-{compression.name}"
    async with export(served, compression=compression) as send:
        assert await send(body(session, Encoding.PROTOBUF, events=3), metadata=WHO) == b""
    assert [event["input_uncached"] for event in await usage(deployment, session)] == [500, 500, 500]


async def test_grpc_metrics_and_traces_are_accepted(served: Gateway) -> None:
    for signal in ("metrics", "traces"):
        async with export(served, signal) as send:
            assert await send(b"", metadata=WHO) == b""
            refused = await refusal(send(METRICS if signal == "metrics" else TRACES, metadata=WHO))
            assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("metadata", "code", "says"),
    [
        ((), grpc.StatusCode.UNAUTHENTICATED, CONNECTION_HEADER),
        (((CONNECTION_HEADER, "guessed-id"),), grpc.StatusCode.NOT_FOUND, "unknown ingest id"),
        (((CONNECTION_HEADER, REVOKED_ID),), grpc.StatusCode.NOT_FOUND, "revoked"),
        (((CONNECTION_HEADER, GUARDED_ID),), grpc.StatusCode.UNAUTHENTICATED, "bearer"),
    ],
)
async def test_refused_grpc_calls_name_the_reason(
    served: Gateway, metadata: object, code: grpc.StatusCode, says: str
) -> None:
    async with export(served) as send:
        refused = await refusal(send(b"", metadata=metadata))
    assert refused.code() is code
    assert says in (refused.details() or "")
    assert retry_seconds(refused) is None


async def test_valid_bearer_is_accepted(served: Gateway, deployment: Deployment) -> None:
    who = ((CONNECTION_HEADER, GUARDED_ID), ("authorization", f"Bearer {BEARER}"))
    async with export(served) as send:
        await send(body("grpc-bearer", Encoding.PROTOBUF), metadata=who)
    assert len(await usage(deployment, "grpc-bearer")) == 1


async def test_undecodable_request_is_invalid_argument_and_a_dead_letter(fresh: Deployment, tmp_path: Path) -> None:
    async with running(config_of(fresh.kafka, fresh.prefix, tmp_path, grpc_port=0)) as own, export(own) as send:
        refused = await refusal(send(b"\xff\xff\xff", metadata=WHO))
    assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
    ((_, letter),) = await read_topic(fresh.kafka, fresh.topics.deadletters)
    assert (letter["reason"], letter["size"]) == ("undecodable", 3)


async def test_records_that_cannot_count_are_a_partial_success(served: Gateway, deployment: Deployment) -> None:
    nameless = codex_response("gone").having(conversation__id=None)
    content = encode([Group([codex_response("grpc-good"), nameless])], Encoding.PROTOBUF)
    async with export(served) as send:
        said = ExportLogsServiceResponse.FromString(await send(content, metadata=WHO)).partial_success
    assert said.rejected_log_records == 1
    assert "no_session" in said.error_message
    assert len(await usage(deployment, "grpc-good")) == 1


async def test_too_large_message_is_resource_exhausted(deployment: Deployment, tmp_path: Path) -> None:
    limit = 100_000
    config = config_of(
        deployment.kafka, deployment.prefix, tmp_path, grpc_port=0, max_body_bytes=limit, max_held_bytes=10 * limit
    )
    async with running(config) as own:
        for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
            async with export(own, compression=compression) as send:
                refused = await refusal(send(bytes(limit + 1), metadata=WHO))
                assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert retry_seconds(refused) is None, "the same message would be refused again"


async def test_request_without_durable_storage_is_unavailable_with_retry_info(
    deployment: Deployment, tmp_path: Path
) -> None:
    config = config_of(
        deployment.kafka, deployment.prefix, tmp_path, grpc_port=0, max_body_bytes=50_000, max_held_bytes=50_000
    )
    content = encode([Group([codex_response(f"s-{n}", at_ns=AT_NS + n) for n in range(40)])], Encoding.PROTOBUF)
    async with running(config) as own, export(own) as send:
        refused = await refusal(send(content, metadata=WHO))
    assert refused.code() is grpc.StatusCode.UNAVAILABLE
    assert retry_seconds(refused) == 5


async def test_health_and_no_reflection(served: Gateway) -> None:
    assert served.grpc is not None
    async with grpc.aio.insecure_channel(served.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "opentelemetry.proto.collector.logs.v1.LogsService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflect = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in reflect(iter([b""])):
                pass
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_grpc_call_in_progress_is_answered_during_shutdown(fresh: Deployment, tmp_path: Path) -> None:
    content = body("grpc-last", Encoding.PROTOBUF, events=200)
    config = config_of(fresh.kafka, fresh.prefix, tmp_path, grpc_port=0)
    own = Gateway(config, CollectorRegistry())
    await own.start()
    async with export(own) as send:
        await send(b"", metadata=WHO)
        call = asyncio.ensure_future(send(content, metadata=WHO))
        await asyncio.sleep(0)
        await own.stop()
        try:
            answered = await call == b""
        except grpc.aio.AioRpcError as refused:
            # It came too late to be accepted, so no part of it may be stored; OTLP allows the client to send it again.
            assert refused.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # noqa: PT017
            answered = False
    assert len(await usage(fresh, "grpc-last")) == (200 if answered else 0)


async def test_grpc_over_tls(deployment: Deployment, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue("gateway")
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, grpc_port=0, tls_cert=pair.cert, tls_key=pair.key)
    async with running(config) as own:
        assert own.grpc is not None
        trusted = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        async with grpc.aio.secure_channel(own.grpc, trusted) as channel:
            await channel.unary_unary(EXPORT["logs"])(body("grpc-tls", Encoding.PROTOBUF), metadata=WHO)
        async with grpc.aio.insecure_channel(own.grpc) as channel:
            refused = await refusal(channel.unary_unary(EXPORT["logs"])(b"", metadata=WHO, timeout=ANSWER))
            assert refused.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert len(await usage(deployment, "grpc-tls")) == 1


async def test_opentelemetry_exporter_delivers_over_grpc(served: Gateway, deployment: Deployment) -> None:
    assert served.grpc is not None

    def emit(endpoint: str) -> bool:
        exporter = OTLPLogExporter(endpoint=endpoint, insecure=True, headers=WHO)
        provider = LoggerProvider(Resource({"service.name": "codex_exec"}))
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        response = codex_response("grpc-sdk")
        attributes = {key: value for key, value in response.attributes if value is not None}
        record = LogRecord(observed_timestamp=AT_NS, attributes=attributes)
        provider.get_logger("codex_otel.log_only").emit(record)
        flushed = provider.force_flush()
        provider.shutdown()
        return flushed

    assert await asyncio.to_thread(emit, served.grpc)
    assert len(await usage(deployment, "grpc-sdk")) == 1


RECORDED = sorted(path for path in (SHARED / "captures").glob("*-grpc-*") if path.is_dir())


@pytest.mark.skipif(not RECORDED, reason="there are no recordings beside this checkout")
async def test_recorded_grpc_requests_sent_twice_count_once(fresh: Deployment, tmp_path: Path) -> None:
    await write(fresh.kafka, fresh.topics, connection("gemini", "Zq3vTestIngestIdGemini"))
    ids = {"codex": INGEST_ID, "claude": CLAUDE_ID, "gemini": "Zq3vTestIngestIdGemini"}
    want: dict[str, dict[str, Any]] = {}
    async with running(config_of(fresh.kafka, fresh.prefix, tmp_path, grpc_port=0)) as own:
        for _ in range(2):
            for folder in RECORDED:
                for path in sorted(folder.glob("[0-9]*.pb")):
                    signal = path.name.split(".")[1]
                    raw = path.read_bytes()
                    raw = gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw
                    async with export(own, signal) as send:
                        who = ((CONNECTION_HEADER, ids[folder.name.split("-")[0]]),)
                        assert await send(raw, metadata=who) == b""
                    if signal == "logs":
                        packs = normalise_logs(raw, Encoding.PROTOBUF).packs
                        want |= {event["event_id"]: event for pack in packs for event in pack.events}
    sent = [event for _, batch in await read_topic(fresh.kafka, fresh.topics.usage) for event in batch["events"]]
    assert {event["event_id"]: event for event in sent} == want
    assert len(sent) == 2 * len(want) > 0
    assert await read_topic(fresh.kafka, fresh.topics.deadletters) == []
