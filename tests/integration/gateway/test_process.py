"""`tallystream gateway` as a process that is killed, stopped and restarted: its log, metrics and exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.integration.gateway.conftest import Deployment
from tests.integration.gateway.test_kafka_away import HEADERS, body, ids_of, own, paused
from tests.support.clock import HandClock
from tests.support.gateway import (
    INGEST_ID,
    PARTITIONS,
    GatewayProcess,
    config_of,
    event_ids,
    logs_path,
    read_topic,
    running,
)
from tests.support.otlp_bodies import SECRET
from tests.support.waiting import ANSWER, until

from tallystream.streams.embedded.broker import EmbeddedKafka
from tallystream.streams.gateway.connections.activity import ActivityLog
from tallystream.streams.kafka.admin import administering

__all__ = ["own"]
pytestmark = pytest.mark.kafka


@pytest.fixture
def process(own: Deployment, tmp_path: Path) -> Iterator[GatewayProcess]:
    one = own.process(tmp_path / "data")
    one.start()
    yield one
    one.end()


def open_files(process: GatewayProcess) -> int:
    return len(list(Path(f"/proc/{process.pid}/fd").iterdir()))


async def answered(http: aiohttp.ClientSession, process: GatewayProcess, content: bytes) -> int:
    async with http.post(process.url + logs_path(), data=content, headers=HEADERS) as response:
        await response.read()
        return response.status


async def test_gateway_killed_with_a_spool_loses_nothing(
    broker: EmbeddedKafka, own: Deployment, process: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    await until(process.ready, "the gateway is ready")
    bodies = [body(number) for number in range(100)]
    with paused(broker):
        answers = await asyncio.gather(*(answered(http, process, one) for one in bodies))
        assert set(answers) == {200}
        assert process.metric("tallystream_gateway_spool_messages") == 100
        process.kill()
    process.start()
    await until(process.ready, "the gateway is ready again")
    await until(lambda: process.metric("tallystream_gateway_spool_messages") == 0, "the spool is drained")
    assert set(await event_ids(own.kafka, own.topics)) == ids_of(*bodies)
    assert process.kill(signal.SIGTERM) == 0


async def test_gateway_killed_under_load_loses_no_answered_batch(
    own: Deployment, process: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    await until(process.ready, "the gateway is ready")
    accepted: list[bytes] = []

    async def client(number: int) -> None:
        for turn in range(10_000):
            content = body(number * 10_000 + turn)
            try:
                if await answered(http, process, content) == 200:
                    accepted.append(content)
            except aiohttp.ClientError:
                return

    clients = [asyncio.create_task(client(number)) for number in range(16)]
    await until(lambda: len(accepted) > 400, "load")
    process.kill()
    await asyncio.gather(*clients)
    process.start()
    await until(process.ready, "the gateway is ready again")
    await until(lambda: process.metric("tallystream_gateway_spool_messages") == 0, "the spool is drained")
    assert set(await event_ids(own.kafka, own.topics)) >= ids_of(*accepted)


async def test_stopped_gateway_finishes_requests_and_drains_its_spool(own: Deployment, process: GatewayProcess) -> None:
    await until(process.ready, "the gateway is ready")
    content = body(1)
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    head = f"POST {logs_path()} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    writer.write(head.encode() + b"\r\n\r\n" + content[:100])
    await writer.drain()
    await until(lambda: process.metric("tallystream_gateway_requests_in_progress") == 1, "the request is being read")
    os.kill(process.pid, signal.SIGTERM)
    await until(lambda: not process.ready_port(), "it no longer listens")
    writer.write(content[100:])
    answer = await asyncio.wait_for(reader.read(), ANSWER)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Connection: close" in answer
    assert process.wait() == 0
    assert set(await event_ids(own.kafka, own.topics)) == ids_of(content)
    activity = [value for _, value in await read_topic(own.kafka, own.topics.activity)]
    assert [(one["signal"], one["requests"], one["records"]) for one in activity] == [("logs", 1, 11)]


async def test_stopping_gateway_refuses_no_request_permanently(process: GatewayProcess) -> None:
    """A request that arrives too late on a kept connection gets no answer, so that its client sends it again."""
    await until(process.ready, "the gateway is ready")
    content = b" " * 100_000 + body(1)
    head = f"POST {logs_path()} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}"
    request = head.encode() + b"\r\n\r\n" + content
    connections = [await asyncio.open_connection("127.0.0.1", process.port) for _ in range(8)]
    for reader, writer in connections:
        writer.write(request)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        await reader.readuntil(b"\r\n\r\n{}")
    os.kill(process.pid, signal.SIGTERM)
    await until(lambda: not process.ready_port(), "it no longer listens")
    for reader, writer in connections:
        with contextlib.suppress(ConnectionError):
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), ANSWER)
            assert not answer or answer.startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert process.wait() == 0


async def test_gateway_stopped_without_kafka_keeps_the_rest_spooled(
    broker: EmbeddedKafka, own: Deployment, process: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    await until(process.ready, "the gateway is ready")
    with paused(broker):
        assert await answered(http, process, body(1)) == 200
        assert process.kill(signal.SIGTERM) == 0
    process.start()
    await until(process.ready, "the gateway is ready again")
    await until(lambda: process.metric("tallystream_gateway_spool_messages") == 0, "the spool is drained")
    assert set(await event_ids(own.kafka, own.topics)) == ids_of(body(1))


async def test_activity_counts_continue_after_a_restart(
    own: Deployment, process: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    for _ in range(2):
        await until(process.ready, "the gateway is ready")
        assert await answered(http, process, body(1)) == 200
        assert process.kill(signal.SIGTERM) == 0
        process.start()

    async def requests() -> list[int]:
        return [value["requests"] for value in dict(await read_topic(own.kafka, own.topics.activity)).values()]

    async def one_key_with_both() -> bool:
        return await requests() == [2]

    await until(one_key_with_both, "one gateway, one key, and a count that goes on")


async def test_a_busy_connection_writes_one_activity_row_in_ten_seconds(own: Deployment, tmp_path: Path) -> None:
    clock = HandClock()
    async with running(config_of(own.kafka, own.prefix, tmp_path)) as gateway:
        await until(lambda: gateway.link.live, "Kafka answers")
        activity = ActivityLog(own.topics.activity.name, gateway.link, gateway.spool, clock)
        await activity.load("busy")
        for _ in range(3):
            for _ in range(9):
                activity.note("codex-7f3a", "logs", 5)
                clock.seconds += 1.0
                await activity.flush(due_only=True)
            clock.seconds += 1.0
    rows = [value for _, value in await read_topic(own.kafka, own.topics.activity) if value["gateway"] == "busy"]
    assert [row["requests"] for row in rows] == [1, 10, 19]


async def test_gateway_writes_no_secrets_and_no_content(
    own: Deployment, process: GatewayProcess, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    await until(process.ready, "the gateway is ready")
    for content in (body(1), b"{" + SECRET.encode()):
        await answered(http, process, content)
    async with http.get(process.url + logs_path()) as response:
        assert response.status == 405
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(f"POST {logs_path()} HTTP/1.1\r\nBad Header: {SECRET}\r\n\r\n".encode())
    await reader.read()
    writer.close()
    metrics = process.metrics()
    topics = [
        str(await read_topic(own.kafka, spec))
        for spec in (own.topics.usage, own.topics.deadletters, own.topics.activity, own.topics.connections)
    ]
    assert process.kill(signal.SIGTERM) == 0
    written = [metrics, *topics, *everything_in(tmp_path)]
    assert sum(map(len, written)) > 10_000
    for secret in (INGEST_ID, SECRET, "key of the tests"):
        assert not [text[:200] for text in written if secret in text]


def everything_in(directory: Path) -> list[str]:
    return [path.read_text(errors="replace") for path in directory.rglob("*") if path.is_file()]


async def test_gateway_metrics_are_documented_and_bounded(process: GatewayProcess, http: aiohttp.ClientSession) -> None:
    await until(process.ready, "the gateway is ready")
    before = len(process.metrics().splitlines())
    for number in range(30):
        await answered(http, process, body(number, session=f"session-{number}"))
        async with http.post(f"{process.url}/v1/x{number}", data=b"", headers={"Content-Type": f"x/{number}"}):
            pass
    families = list(text_string_to_metric_families(process.metrics()))
    assert all(family.documentation for family in families)
    assert "session-3" not in process.metrics()
    assert len(process.metrics().splitlines()) < before + 100
    assert process.metric('tallystream_gateway_usage_events_total{provider="codex"}') == 30


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "tallystream", "gateway", *args],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=ANSWER,
    )


def test_gateway_reports_start_errors_in_one_line(own: Deployment, tmp_path: Path) -> None:
    where = ("--kafka", own.kafka.bootstrap, "--data-dir", str(tmp_path))
    without_key = run(*where)
    assert (without_key.returncode, "TALLYSTREAM_USER_KEY" in without_key.stderr) == (2, True)
    named = {"TALLYSTREAM_USER_NAMES": "true", "TALLYSTREAM_PREFIX": own.prefix}
    wrong = run(*where, "--port", "0", TALLYSTREAM_PARTITIONS="5", **named)
    assert (wrong.returncode, f"has {PARTITIONS} partitions, we need 5" in wrong.stderr) == (1, True)
    # The refused start has not created anything; with the right setting the same topics work.
    port = own.kafka.bootstrap.rpartition(":")[2]
    taken = run(*where, "--port", port, TALLYSTREAM_PARTITIONS=str(PARTITIONS), **named)
    assert (taken.returncode, "cannot listen" in taken.stderr) == (2, True)
    for failed in (without_key, wrong, taken):
        assert "Traceback" not in failed.stderr


async def test_gateway_creates_missing_topics(
    broker: EmbeddedKafka, own: Deployment, prefix: str, tmp_path: Path
) -> None:
    del broker
    process = replace(own, prefix=prefix).process(tmp_path / "data")
    process.start()
    try:
        await until(process.ready, "the gateway is ready")
        topics = type(own)(own.kafka, prefix).topics
        wanted = {one.name for one in (topics.usage, topics.activity, topics.deadletters, topics.connections)}
        async with administering(own.kafka) as admin:
            assert wanted <= set(await admin.list_topics())
    finally:
        process.end()


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a running process can only be set on Linux")
async def test_gateway_without_file_descriptors_counts_refused_connections_and_recovers(
    own: Deployment, process: GatewayProcess, http: aiohttp.ClientSession
) -> None:
    await until(process.ready, "the gateway is ready")
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_files(process), hard))
    waiting = [asyncio.create_task(answered(http, process, body(number))) for number in range(5)]
    await until(lambda: "accept_refused" in process.log.read_text(), "the log names the refusal")
    assert "EMFILE" in process.log.read_text()
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    assert await asyncio.gather(*waiting) == [200] * 5
    assert process.metric("tallystream_gateway_accepts_refused_total") > 0
    await until(lambda: process.metric("tallystream_gateway_spool_messages") == 0, "nothing waits in the spool")
    assert set(await event_ids(own.kafka, own.topics)) == ids_of(*map(body, range(5)))
