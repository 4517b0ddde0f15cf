"""OTLP over HTTP with real clients, on real Kafka: every answer that the specification requires."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from google.rpc.status_pb2 import Status
from tests.integration.gateway.conftest import CLAUDE_ID, GUARDED_ID, REVOKED_ID, Deployment
from tests.support.gateway import BEARER, INGEST_ID, config_of, logs_path, read_topic, running
from tests.support.otlp_bodies import AT_NS, Group, codex_noise, codex_response, encode
from tests.support.waiting import ANSWER

from tallystream.schemas.ingest import CONNECTION_HEADER, INGEST_PATH
from tallystream.schemas.otlp import Encoding
from tallystream.streams.gateway import Gateway

pytestmark = pytest.mark.kafka
JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
TYPES = {Encoding.JSON: JSON, Encoding.PROTOBUF: PROTOBUF}
TRACES = json.dumps(
    {
        "resourceSpans": [
            {"scopeSpans": [{"spans": [{"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174"}]}]}
        ]
    }
).encode()
METRICS = json.dumps(
    {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "sum": {"dataPoints": [{"asInt": 1}, {}]}}]}]}]}
).encode()


def body(session: str, encoding: Encoding = Encoding.JSON, events: int = 1) -> bytes:
    responses = [codex_response(session, at_ns=AT_NS + number) for number in range(events)]
    return encode([Group([*codex_noise(session), *responses])], encoding)


async def usage(deployment: Deployment, session: str) -> list[dict[str, Any]]:
    found = await read_topic(deployment.kafka, deployment.topics.usage)
    return [event for _, batch in found if batch["session_id"] == session for event in batch["events"]]


async def error(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Return (google.rpc.Code, message) of an error, in whichever encoding it came."""
    raw = await response.read()
    if response.content_type == "application/x-protobuf":
        found = Status.FromString(raw)
        return found.code, found.message
    assert response.content_type == "application/json"
    document = json.loads(raw)
    assert set(document) <= {"code", "message", "details"}
    return document["code"], document["message"]


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("coding", [None, "identity", "gzip", "GZIP", "deflate"])
async def test_usage_is_in_kafka_before_the_answer(
    gateway: Gateway, deployment: Deployment, http: aiohttp.ClientSession, encoding: Encoding, coding: str | None
) -> None:
    session = f"plain-{encoding.name}-{coding}"
    plain = body(session, encoding, events=3)
    packed = {"gzip": gzip.compress(plain), "deflate": zlib.compress(plain)}.get((coding or "").lower(), plain)
    headers = TYPES[encoding] | ({"Content-Encoding": coding} if coding else {})
    async with http.post(gateway.url + logs_path(), data=packed, headers=headers) as response:
        assert response.status == 200
        assert response.content_type == encoding.value
        assert await response.read() == (b"{}" if encoding is Encoding.JSON else b"")
    assert [event["input_uncached"] for event in await usage(deployment, session)] == [500, 500, 500]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        (f"{INGEST_PATH}codex/{INGEST_ID}/v1/logs/", {}),
        (f"{INGEST_PATH}codex/{INGEST_ID}", {}),
        (f"{INGEST_PATH}codex/{INGEST_ID}/", {}),
        ("/v1/logs", {CONNECTION_HEADER: INGEST_ID}),
        ("/", {CONNECTION_HEADER.title(): INGEST_ID}),
        (logs_path(GUARDED_ID), {"Authorization": f"Bearer {BEARER}"}),
        (f"{INGEST_PATH}codex/%5Aq3vTestIngestId000001/v1/logs", {}),
    ],
)
@pytest.mark.parametrize("encoding", list(Encoding))
async def test_every_documented_url_form_works(
    gateway: Gateway,
    deployment: Deployment,
    http: aiohttp.ClientSession,
    path: str,
    headers: dict[str, str],
    encoding: Encoding,
) -> None:
    session = f"form-{encoding.name}-{path}-{len(headers)}"
    url = f"{gateway.url}{path}"
    async with http.post(url, data=body(session, encoding), headers=TYPES[encoding] | headers) as response:
        assert response.status == 200, await response.text()
    assert len(await usage(deployment, session)) == 1


async def test_metrics_and_traces_are_accepted_and_add_no_tokens(
    gateway: Gateway, fresh: Deployment, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    del gateway
    async with running(config_of(fresh.kafka, fresh.prefix, tmp_path / "own")) as own:
        for signal, content in (("metrics", METRICS), ("traces", TRACES)):
            for url in (logs_path(signal_=signal), f"{INGEST_PATH}codex/{INGEST_ID}"):
                async with http.post(own.url + url, data=content, headers=JSON) as response:
                    assert (response.status, await response.read()) == (200, b"{}")
    activity = dict(await read_topic(fresh.kafka, fresh.topics.activity))
    counted = {value["signal"]: (value["requests"], value["records"]) for value in activity.values()}
    assert counted == {"metrics": (2, 4), "traces": (2, 2)}
    assert await read_topic(fresh.kafka, fresh.topics.usage) == []


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code", "says"),
    [
        ("POST", logs_path("guessed-id"), {}, 404, 5, "unknown ingest id"),
        ("POST", logs_path(REVOKED_ID), {}, 404, 5, "revoked"),
        ("POST", logs_path(INGEST_ID, "claude"), {}, 404, 5, "codex connection"),
        ("POST", logs_path(INGEST_ID, "copilot"), {}, 404, 5, "provider"),
        ("POST", logs_path(signal_="profiles"), {}, 404, 5, "signal"),
        ("POST", "/v1/logs", {CONNECTION_HEADER: "guessed-id"}, 404, 5, "unknown ingest id"),
        ("POST", "/nowhere", {}, 404, 5, "path"),
        ("POST", "/v1/logs", {}, 401, 16, CONNECTION_HEADER),
        ("POST", logs_path(GUARDED_ID), {}, 401, 16, "bearer"),
        ("POST", logs_path(GUARDED_ID), {"Authorization": "Bearer no"}, 401, 16, "bearer"),
        ("GET", logs_path(), {}, 405, 12, "POST"),
        ("PUT", logs_path(), {}, 405, 12, "POST"),
        ("DELETE", "/v1/metrics", {}, 405, 12, "POST"),
        ("POST", logs_path(), {"Content-Encoding": "br"}, 400, 3, "Content-Encoding"),
        ("POST", logs_path(), {"Content-Encoding": "gzip"}, 400, 3, "gzip"),
    ],
)
async def test_errors_are_a_status_message_in_the_requests_encoding(
    gateway: Gateway,
    http: aiohttp.ClientSession,
    encoding: Encoding,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
    code: int,
    says: str,
) -> None:
    content = body("never", encoding) if method == "POST" else None
    url = f"{gateway.url}{path}"
    async with http.request(method, url, data=content, headers=TYPES[encoding] | headers) as response:
        found = await error(response)
        assert response.status == status
        assert response.content_type == encoding.value
        assert response.headers.get("Allow") == ("POST" if status == 405 else None)
        assert ("WWW-Authenticate" in response.headers) == (status == 401 and "bearer" in says)
    assert found[0] == code
    assert says in found[1]
    assert not any(secret in found[1] for secret in (INGEST_ID, GUARDED_ID, REVOKED_ID, BEARER, "guessed-id"))


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/grpc", "application/jsonx", "application/json, text/plain"]
)
async def test_other_content_types_are_415(
    gateway: Gateway, http: aiohttp.ClientSession, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type is not None else {}
    skip = [] if headers else ["Content-Type"]
    url = gateway.url + logs_path()
    async with http.post(url, data=body("never"), headers=headers, skip_auto_headers=skip) as response:
        assert response.status == 415
        assert (await error(response))[0] == 3


@pytest.mark.parametrize(
    "content_type",
    [
        "APPLICATION/JSON",
        "application/json;charset=utf-8",
        "Application/Json ;x=y",
        "application/json, application/json",
        "application/json; charset=utf-8,application/json; charset=utf-8",
    ],
)
async def test_content_types_may_have_upper_case_and_parameters_and_come_twice(
    gateway: Gateway, http: aiohttp.ClientSession, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    async with http.post(gateway.url + logs_path(), data=b"{}", headers=headers) as response:
        assert (response.status, await response.read()) == (200, b"{}")


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"{not json", JSON),
        (b"[]", JSON),
        (b'{"resourceLogs": 5}', JSON),
        (b"\xff\xff\xff", PROTOBUF),
        (gzip.compress(b"{}", mtime=0)[:-3], JSON | {"Content-Encoding": "gzip"}),
        (gzip.compress(b"{broken", mtime=0), JSON | {"Content-Encoding": "gzip"}),
        (b"plain", PROTOBUF | {"Content-Encoding": "gzip"}),
    ],
)
async def test_undecodable_request_gets_400_and_is_a_dead_letter(
    fresh: Deployment, tmp_path: Path, http: aiohttp.ClientSession, content: bytes, headers: dict[str, str]
) -> None:
    async with running(config_of(fresh.kafka, fresh.prefix, tmp_path)) as own:
        for _ in range(2):
            async with http.post(own.url + logs_path(), data=content, headers=headers) as response:
                assert response.status == 400
                assert (await error(response))[0] == 3
        letters = await read_topic(fresh.kafka, fresh.topics.deadletters)
    (first, letter), (second, _) = letters
    assert first == second, "a body sent again must repeat its dead letter, not add one"
    assert first.startswith(b"gateway|codex-")
    assert (letter["reason"], letter["size"], len(letter["sha256"])) == ("undecodable", len(content), 64)
    assert letter["connection_id"] == "codex-7f3a"
    assert letter["record"] == {}


async def test_records_that_cannot_count_are_a_partial_success_and_dead_letters(
    fresh: Deployment, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    nameless = codex_response("gone").having(conversation__id=None)
    renamed = codex_response("renamed").having(event__name="codex.sse_event_v2")
    content = encode([Group([codex_response("good"), nameless, renamed])], Encoding.JSON)
    async with running(config_of(fresh.kafka, fresh.prefix, tmp_path)) as own:
        async with http.post(own.url + logs_path(), data=content, headers=JSON) as response:
            assert response.status == 200
            said = (await response.json())["partialSuccess"]
        letters = [letter for _, letter in await read_topic(fresh.kafka, fresh.topics.deadletters)]
        shown = own.metrics.registry.get_sample_value(
            "tallystream_gateway_unrecognised_usage_records_total", {"provider": "codex"}
        )
    assert said["rejectedLogRecords"] == "2"
    assert {letter["reason"] for letter in letters} == {"no_session", "unrecognised_usage"}
    assert shown == 1
    assert len(await usage(fresh, "good")) == 1


async def test_body_over_the_limit_gets_413_with_any_framing_or_compression(
    deployment: Deployment, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    limit = 100_000
    squeeze = zlib.compressobj(9, wbits=31)
    bomb = b"".join(squeeze.compress(bytes(1 << 20)) for _ in range(64)) + squeeze.flush()

    async def chunks() -> Any:
        for _ in range(11):
            yield bytes(10_000)

    cases: list[tuple[Any, dict[str, str]]] = [
        (bytes(limit + 1), JSON),
        (chunks(), JSON),
        (bomb, JSON | {"Content-Encoding": "gzip"}),
        (gzip.compress(bytes(limit)) + gzip.compress(b"x"), PROTOBUF | {"Content-Encoding": "gzip"}),
    ]
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, max_body_bytes=limit, max_held_bytes=10 * limit)
    async with running(config) as own:
        for content, headers in cases:
            async with http.post(own.url + logs_path(), data=content, headers=headers) as response:
                assert response.status == 413
                assert response.content_type == headers["Content-Type"]
                assert (await error(response))[0] == 8
        padded = body("fits").rstrip() + b" " * (limit - len(body("fits").rstrip()))
        async with http.post(own.url + logs_path(), data=padded, headers=JSON) as response:
            assert response.status == 200


async def test_too_many_bytes_in_progress_get_503_with_retry_after(
    deployment: Deployment, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, max_body_bytes=60_000, max_held_bytes=480_000)
    async with running(config) as own:
        held, seen = asyncio.Event(), asyncio.Event()

        async def slow() -> Any:
            yield b" " * 40_000
            held.set()
            await seen.wait()
            yield b"{}"

        first = asyncio.create_task(http.post(own.url + logs_path(), data=slow(), headers=JSON))
        await held.wait()
        status = 200
        while status == 200:  # until the server has read the first request
            async with http.post(own.url + logs_path(), data=b" " * 59_998 + b"{}", headers=JSON) as response:
                status = response.status
                retry = response.headers.get("Retry-After")
                code = (await response.json()).get("code")
        assert (status, retry, code) == (503, "5", 14)
        seen.set()
        assert (await first).status == 200


async def test_stalled_request_gets_408(deployment: Deployment, tmp_path: Path) -> None:
    config = config_of(deployment.kafka, deployment.prefix, tmp_path, body_timeout=0.2)
    async with running(config) as own:
        reader, writer = await asyncio.open_connection(*own.url.removeprefix("http://").split(":"))
        head = (
            f"POST {logs_path()} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
        )
        writer.write(head.encode() + b"{")
        answer = await asyncio.wait_for(reader.read(), ANSWER)
        writer.close()
        await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":4' in answer


async def test_header_that_may_not_come_twice_is_named(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
    kind = "Content-Type: application/json\r\n"
    writer.write(f"POST {logs_path()} HTTP/1.1\r\nHost: x\r\n{kind}{kind}Content-Length: 2\r\n\r\n{{}}".encode())
    answer = await asyncio.wait_for(reader.read(), ANSWER)
    writer.close()
    await writer.wait_closed()
    assert answer.split()[1] == b"400"
    assert b"more than one header Content-Type" in answer
    assert INGEST_ID.encode() not in answer


@pytest.mark.parametrize(
    "raw",
    [
        b"GARBAGE\r\n\r\n",
        b"POST /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: nonsense\r\n\r\n",
        f"POST {logs_path()} HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n".encode(),
    ],
)
async def test_invalid_http_gets_a_status(gateway: Gateway, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
    writer.write(raw)
    answer = await asyncio.wait_for(reader.read(), ANSWER)
    writer.close()
    await writer.wait_closed()
    head, _, content = answer.partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1\.[01] 4\d\d ", head)
    assert json.loads(content)["code"] in (3, 8)
    assert INGEST_ID.encode() not in answer


async def test_connections_are_kept_alive_until_closed(gateway: Gateway) -> None:
    reader, writer = await asyncio.open_connection(*gateway.url.removeprefix("http://").split(":"))
    head = f"POST {logs_path()} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
    for _ in range(3):
        writer.write(head.encode() + b"\r\n{}")
        answer = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"\r\n\r\n{}")
    writer.write(head.encode() + b"Connection: close\r\n\r\n{}")
    assert b"Connection: close" in await asyncio.wait_for(reader.read(), ANSWER)
    writer.close()
    await writer.wait_closed()


async def test_otlp_port_answers_health_checks(gateway: Gateway, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{gateway.url}/readyz") as response:
        assert (response.status, (await response.json())["ok"]) == (200, True)


async def test_urls_of_a_claude_connection_accept_claude_telemetry(
    gateway: Gateway, http: aiohttp.ClientSession
) -> None:
    async with http.post(gateway.url + logs_path(CLAUDE_ID, "claude"), data=b"{}", headers=JSON) as response:
        assert response.status == 200


async def test_gateway_processes_can_share_a_port_and_a_volume(
    deployment: Deployment, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    first = config_of(deployment.kafka, deployment.prefix, tmp_path, reuse_port=True)
    async with running(first) as one:
        port = int(one.url.rpartition(":")[2])
        async with running(replace(first, port=port)) as other:
            assert one.url == other.url
            assert one.spool.path != other.spool.path
            for _ in range(20):
                async with http.post(
                    one.url + logs_path(), data=b"{}", headers=JSON | {"Connection": "close"}
                ) as response:
                    assert response.status == 200
