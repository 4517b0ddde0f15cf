"""Unusual HTTP requests that users, proxies and libraries really send."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import grpc
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from tests.integration.gateway.conftest import Deployment
from tests.integration.gateway.test_http import JSON, PROTOBUF, body, usage
from tests.support.gateway import INGEST_ID, config_of, connection, logs_path, running, write
from tests.support.waiting import ANSWER, until

from tallystream.schemas.connections import Quota
from tallystream.schemas.ingest import CONNECTION_HEADER, INGEST_PATH
from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway import Gateway

pytestmark = pytest.mark.kafka
LIMITED_ID = "Zq3vTestIngestLimited1"


@asynccontextmanager
async def connected(gateway: Gateway) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
    try:
        yield reader, writer
    finally:
        writer.close()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])


def head(length: int | None, *lines: str, path: str = logs_path(), kind: str = "application/json") -> bytes:
    size = [f"Content-Length: {length}"] if length is not None else []
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", *size, *lines, "", ""]).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of one answer."""
    raw = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER)
    first, *lines = raw.decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    content = await asyncio.wait_for(reader.readexactly(int(headers.get("content-length", 0))), ANSWER)
    return int(first.split()[1]), headers, content


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("//v1/logs", {CONNECTION_HEADER: INGEST_ID}),
        ("/v1/logs/", {CONNECTION_HEADER: INGEST_ID}),
        ("/v1/logs/v1/logs", {CONNECTION_HEADER: INGEST_ID}),
        (f"{INGEST_PATH}codex/{INGEST_ID}//v1/logs", {}),
        (f"/{INGEST_PATH}codex/{INGEST_ID}/v1/logs", {}),
        (f"{INGEST_PATH}codex/{INGEST_ID}/v1/logs/v1/logs", {}),
    ],
)
async def test_unusual_url_forms_are_accepted(
    gateway: Gateway, deployment: Deployment, path: str, headers: dict[str, str]
) -> None:
    session = f"odd-{path}-{len(headers)}"
    content = body(session)
    async with connected(gateway) as (reader, writer):
        lines = [f"{name}: {value}" for name, value in headers.items()]
        writer.write(head(len(content), *lines, path=path) + content)
        assert (await answer(reader))[0] == 200
    assert len(await usage(deployment, session)) == 1


async def test_client_waiting_for_100_continue_gets_it(gateway: Gateway, deployment: Deployment) -> None:
    content = body("expects")
    async with connected(gateway) as (reader, writer):
        for number in range(2):
            writer.write(head(len(content), "Expect: 100-continue"))
            interim = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), ANSWER)
            assert interim == b"HTTP/1.1 100 Continue\r\n\r\n", number
            writer.write(content)
            assert (await answer(reader))[0] == 200
    assert len(await usage(deployment, "expects")) == 2


async def test_refused_request_gets_no_100_continue(gateway: Gateway) -> None:
    for line, path, status in (
        ("Expect: 100-continue", logs_path("guessed-id"), 404),
        ("Expect: something-else", logs_path(), 417),
        ("Transfer-Encoding: gzip, chunked", logs_path(), 400),
    ):
        async with connected(gateway) as (reader, writer):
            writer.write(head(None if "Transfer" in line else 5, line, path=path))
            assert (await answer(reader))[0] == status


@pytest.mark.parametrize("size", [8_300, 20_000, 60_000])
async def test_long_header_is_accepted(gateway: Gateway, size: int) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(head(2, f"Authorization: Bearer {'x' * size}") + b"{}")
        assert (await answer(reader))[0] == 200


async def test_many_headers_are_accepted(gateway: Gateway) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(head(2, *(f"X-{number}: v" for number in range(2_000))) + b"{}")
        assert (await answer(reader))[0] == 200


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
async def test_compressed_body_counts_although_a_proxy_dropped_its_content_encoding(
    gateway: Gateway, deployment: Deployment, pack: Callable[[bytes], bytes]
) -> None:
    session = f"dropped-{pack.__module__}"
    content = pack(body(session))
    async with connected(gateway) as (reader, writer):
        writer.write(head(len(content)) + content)
        assert (await answer(reader))[0] == 200
    assert len(await usage(deployment, session)) == 1


@pytest.mark.parametrize(
    "lines", [["Cookie: " + "x" * 70_000], [f"X-{number}: {'x' * 1_000}" for number in range(100)]]
)
@pytest.mark.parametrize("kind", ["application/json", "application/x-protobuf"])
async def test_longer_headers_are_431_with_the_limit_in_the_requests_encoding(
    gateway: Gateway, lines: list[str], kind: str
) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(head(2, kind=kind)[:-2] + "\r\n".join([*lines, "", ""]).encode())
        status, headers, content = await answer(reader)
    said = Status.FromString(content) if "protobuf" in kind else None
    code, message = (said.code, said.message) if said else (json.loads(content)["code"], json.loads(content)["message"])
    assert (status, code) == (431, 8)
    assert "65536 bytes" in message
    assert headers["content-type"] == kind


async def test_half_closed_connection_gets_its_answer(gateway: Gateway, deployment: Deployment) -> None:
    content = body("half")
    async with connected(gateway) as (reader, writer):
        writer.write(head(len(content)) + content)
        writer.write_eof()
        assert (await answer(reader))[0] == 200
        assert await asyncio.wait_for(reader.read(), ANSWER) == b""
    assert len(await usage(deployment, "half")) == 1


async def test_incomplete_body_gets_an_error_answer(gateway: Gateway) -> None:
    async with connected(gateway) as (reader, writer):
        writer.write(head(100) + b"{")
        await asyncio.sleep(0.05)
        writer.write_eof()
        status, _, content = await answer(reader)
    assert status == 400
    assert "before it was complete" in json.loads(content)["message"]


async def test_slow_but_steady_upload_is_accepted(deployment: Deployment, tmp_path: Path) -> None:
    content = body("slow")
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, body_timeout=2.0)
    async with running(config) as own, connected(own) as (reader, writer):
        writer.write(head(len(content)))
        step = len(content) // 12
        for start in range(0, len(content), step):
            writer.write(content[start : start + step])
            await asyncio.sleep(0.25)  # longer in total than the allowed pause
        assert (await answer(reader))[0] == 200
    assert len(await usage(deployment, "slow")) == 1


async def test_endless_upload_is_aborted(deployment: Deployment, tmp_path: Path) -> None:
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, body_timeout=5.0, upload_timeout=0.5)
    async with running(config) as own, connected(own) as (reader, writer):
        writer.write(head(1_000_000))
        reading = asyncio.create_task(answer(reader))
        while not reading.done():
            writer.write(b" ")
            await asyncio.sleep(0.05)
        assert (await reading)[0] == 408


@pytest.mark.parametrize("headers", [JSON, PROTOBUF])
async def test_zstd_bodies_are_accepted(
    gateway: Gateway, deployment: Deployment, http: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    encoding = Encoding(headers["Content-Type"])
    session = f"zstd-{encoding.name}"
    packed = zstandard.ZstdCompressor().compress(body(session, encoding))
    async with http.post(
        gateway.url + logs_path(), data=packed, headers=headers | {"Content-Encoding": "zstd"}
    ) as response:
        assert response.status == 200
    assert len(await usage(deployment, session)) == 1


async def test_idle_connections_are_closed_above_the_connection_limit(deployment: Deployment, tmp_path: Path) -> None:
    content = body("crowd")
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, max_connections=16)
    async with running(config) as own, connected(own) as (reader, writer):
        writer.write(head(len(content)) + content[:10])
        host, port = own.url.removeprefix("http://").split(":")
        crowd = [await asyncio.open_connection(host, port) for _ in range(60)]
        for _, silent in crowd:
            silent.write(b"P")
        evicted = "tallystream_gateway_connections_evicted_total"
        await until(lambda: (own.metrics.registry.get_sample_value(evicted) or 0) >= 45, "nobody made room")
        assert (own.metrics.registry.get_sample_value("tallystream_gateway_http_connections") or 0) <= 16
        writer.write(content[10:])
        assert (await answer(reader))[0] == 200
        for _, silent in crowd:
            silent.close()
        await asyncio.gather(*(silent.wait_closed() for _, silent in crowd), return_exceptions=True)


async def test_connection_over_its_quota_gets_429_and_others_do_not(
    fresh: Deployment, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    limited = connection("codex", LIMITED_ID, connection_id="codex-full", quota=Quota(requests=1))
    await write(fresh.kafka, fresh.topics, limited)
    async with running(config_of(fresh.kafka, fresh.prefix, tmp_path, grpc_port=0)) as own:
        answers = []
        while 429 not in answers:
            async with http.post(own.url + logs_path(LIMITED_ID), data=b"{}", headers=JSON) as response:
                said = await response.json()
                answers.append(response.status)
        assert set(answers[:10]) == {200}
        assert (said["code"], response.headers["Retry-After"]) == (8, "1")
        assert "1 requests a second" in said["message"]
        async with http.post(own.url + logs_path(), data=b"{}", headers=JSON) as response:
            assert response.status == 200
        assert own.grpc is not None
        async with grpc.aio.insecure_channel(own.grpc) as channel:
            send = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export")
            refused = None
            while refused is None:
                try:
                    await send(b"", metadata=((CONNECTION_HEADER, LIMITED_ID),))
                except grpc.aio.AioRpcError as exc:
                    refused = exc
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "grpc-status-details-bin" in dict(refused.trailing_metadata() or ())
