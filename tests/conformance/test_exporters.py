"""OpenTelemetry's exporters of other languages, and a Collector, deliver to the gateway. Run by `make conformance`.

Each driver sends one log record, one span and one metric, and is configured by OTEL_* variables alone, as users do it.
Programs are built in the folder that TALLYSTREAM_CONFORMANCE names, once.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from tests.integration.gateway.conftest import Deployment, deploy
from tests.support.gateway import INGEST_ID, config_of, logs_path, read_topic, running
from tests.support.waiting import eventually, until

from tallystream.schemas.ingest import CONNECTION_HEADER
from tallystream.streams.kafka.settings import KafkaSettings
from tallystream.streams.process import tcp_ports

HERE = Path(__file__).parent
BUILT = os.environ.get("TALLYSTREAM_CONFORMANCE")
pytestmark = [
    pytest.mark.kafka,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not BUILT, reason="`make conformance` builds the exporters and runs this"),
]
COLLECTOR = HERE.parents[1] / "benchmarks" / "peers" / "build.sh"


@dataclass(frozen=True)
class Language:
    """A driver: what has to be on the machine, how it is built in its folder, and how it is run."""

    tools: tuple[str, ...]
    build: tuple[str, ...]
    product: str
    run: Callable[[Path], list[str]]
    protocols: tuple[str, ...] = ("http/protobuf", "grpc")


LANGUAGES = {
    "javascript": Language(
        ("node", "npm"),
        ("npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund"),
        "node_modules",
        lambda folder: ["node", str(folder / "send.mjs")],
        ("http/json", "http/protobuf", "grpc"),
    ),
    "go": Language(("go",), ("go", "build", "-o", "send", "."), "send", lambda folder: [str(folder / "send")]),
    "java": Language(
        ("java", "javac", "mvn"),
        (
            "sh",
            "-c",
            "mvn -q -B dependency:build-classpath -Dmdep.outputFile=classpath && javac -cp @classpath Send.java",
        ),
        "Send.class",
        lambda folder: ["java", "-cp", f"{folder}:{(folder / 'classpath').read_text().strip()}", "Send"],
    ),
    "rust": Language(
        ("cargo",),
        ("cargo", "build", "--quiet"),
        "target/debug/conformance",
        lambda folder: [str(folder / "target/debug/conformance")],
        ("http/json", "http/protobuf", "grpc"),
    ),
}


def built(name: str) -> Path:
    """Return the folder of a driver that has been built."""
    language = LANGUAGES[name]
    missing = [tool for tool in language.tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{name}: {', '.join(missing)} is not installed")
    folder = Path(BUILT or "") / name
    shutil.copytree(HERE / name, folder, dirs_exist_ok=True)
    if not (folder / language.product).exists():
        subprocess.run(language.build, cwd=folder, check=True)
    return folder


async def delivered(deployment: Deployment, session: str) -> dict[str, object]:
    """Wait for the one usage message of a session, and return it."""

    async def found() -> list[dict[str, object]]:
        messages = await read_topic(deployment.kafka, deployment.topics.usage)
        return [batch for _, batch in messages if batch["session_id"] == session]

    await until(found, f"{session} is in Kafka")
    (batch,) = await found()
    return batch


def counts(batch: dict[str, object]) -> list[tuple[int, int, int]]:
    events = batch["events"]
    assert isinstance(events, list)
    return [(event["input_uncached"], event["cache_read"], event["output"]) for event in events]


EVERY = [
    (name, protocol, compression)
    for name, language in LANGUAGES.items()
    for protocol, compression in itertools.product(language.protocols, ("none", "gzip"))
]


@pytest.mark.parametrize(("name", "protocol", "compression"), EVERY)
async def test_exporters_of_a_language_deliver_logs_traces_and_metrics(
    kafka: KafkaSettings, tmp_path: Path, name: str, protocol: str, compression: str
) -> None:
    folder, deployment = built(name), await asyncio.to_thread(deploy, kafka)
    session = f"{name}-{protocol.replace('/', '-')}-{compression}"
    async with running(config_of(deployment.kafka, deployment.prefix, tmp_path, grpc_port=0)) as gateway:
        base = f"http://{gateway.grpc}" if protocol == "grpc" else (gateway.url + logs_path()).removesuffix("/v1/logs")
        environment = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_ENDPOINT": base,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
            "OTEL_EXPORTER_OTLP_HEADERS": f"{CONNECTION_HEADER}={INGEST_ID}",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "20000",
            "OTEL_SERVICE_NAME": "codex_exec",
            "OTEL_RESOURCE_ATTRIBUTES": "team=core",
        }
        if compression == "none":
            del environment["OTEL_EXPORTER_OTLP_COMPRESSION"]  # some exporters do not know the word
        argv = [*LANGUAGES[name].run(folder), session]
        done = await asyncio.to_thread(
            subprocess.run, argv, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        batch = await delivered(deployment, session)
    assert counts(batch) == [(70, 30, 20)]
    assert batch["attribution"] == {"team": "core"}
    activity = dict(await read_topic(deployment.kafka, deployment.topics.activity)).values()
    assert {one["signal"] for one in activity} == {"logs", "metrics", "traces"}


COLLECTOR_CONFIG = """
receivers:
  otlp:
    protocols:
      http: {{endpoint: "127.0.0.1:{port}"}}
exporters:
  {exporter}:
    endpoint: "{endpoint}"
    compression: {compression}
    headers: {{{header}: {ingest_id}}}
    tls: {{insecure: true}}
service:
  telemetry:
    metrics: {{level: none}}
  pipelines:
    logs: {{receivers: [otlp], exporters: [{exporter}]}}
    traces: {{receivers: [otlp], exporters: [{exporter}]}}
"""


@contextlib.contextmanager
def collector(binary: Path, config: Path, port: int) -> Iterator[None]:
    with config.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen([str(binary), "--config", f"file:{config}"], stdout=log, stderr=log)
    try:

        def listens() -> bool:
            assert process.poll() is None, config.with_suffix(".log").read_text()
            return not tcp_ports.is_free(port)

        eventually(listens, "the Collector listens")
        yield
    finally:
        process.terminate()
        process.wait(30)


def export_through(port: int, session: str) -> None:
    logs = LoggerProvider(shutdown_on_exit=False)
    exporter = OTLPLogExporter(f"http://127.0.0.1:{port}/v1/logs")
    logs.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    attributes: dict[str, str | int] = {
        "event.name": "codex.sse_event",
        "event.kind": "response.completed",
        "conversation.id": session,
        "model": "gpt-5.1-codex",
        "input_token_count": 100,
        "output_token_count": 20,
        "cached_token_count": 30,
    }
    logs.get_logger("codex_otel.log_only").emit(attributes=attributes)
    logs.shutdown()
    traces = TracerProvider(shutdown_on_exit=False)
    traces.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"http://127.0.0.1:{port}/v1/traces")))
    traces.get_tracer("conformance").start_span("span").end()
    traces.shutdown()


@pytest.mark.parametrize(
    ("exporter", "compression"),
    [("otlphttp", "none"), ("otlphttp", "gzip"), ("otlphttp", "zstd"), ("otlp", "none"), ("otlp", "gzip")],
)
async def test_collector_passes_logs_and_traces_on(
    kafka: KafkaSettings, tmp_path: Path, exporter: str, compression: str
) -> None:
    if shutil.which("go") is None:
        pytest.skip("the Collector is built with Go, which is not installed")
    folder = Path(BUILT or "") / "collector"
    await asyncio.to_thread(subprocess.run, [str(COLLECTOR), str(folder)], check=True)
    deployment, port, session = (
        await asyncio.to_thread(deploy, kafka),
        tcp_ports.pick(),
        f"collector-{exporter}-{compression}",
    )
    async with running(config_of(deployment.kafka, deployment.prefix, tmp_path, grpc_port=0)) as gateway:
        http = (gateway.url + logs_path()).removesuffix("/v1/logs")
        config = tmp_path / "collector.yaml"
        config.write_text(
            COLLECTOR_CONFIG.format(
                port=port,
                exporter=exporter,
                endpoint=http if exporter == "otlphttp" else gateway.grpc,
                compression=compression,
                header=CONNECTION_HEADER,
                ingest_id=INGEST_ID,
            )
        )
        with collector(folder / "otelcol" / "otelcol", config, port):
            await asyncio.to_thread(export_through, port, session)
            assert counts(await delivered(deployment, session)) == [(70, 30, 20)]
    activity = dict(await read_topic(deployment.kafka, deployment.topics.activity)).values()
    assert {one["signal"] for one in activity} == {"logs", "traces"}
