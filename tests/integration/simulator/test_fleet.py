"""A fleet against a real HTTP server that answers, refuses, hangs up and stalls."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from tests.support.oracle import rows
from tests.support.recorder import accept, gateway

from tallystream.simulator import FleetConfig, Load, Report, Truth, compare, run, target
from tallystream.simulator.model import ClientName

START = 1_795_290_000_000_000_000
CONFIG = FleetConfig(agents=10, requests=400, seed=3, start_ns=START, duplicates=0.1, late=0.05, resend=0.05)


async def in_turns(number: int, _: web.Request) -> web.Response:
    """Answer 200, 503, hang up, 200, 400."""
    turn = number % 5
    if turn == 2:
        raise ConnectionResetError
    return web.Response(status=(200, 503, 0, 200, 400)[turn])


async def test_answers_decide_which_responses_must_or_may_count() -> None:
    truth = Truth(CONFIG)
    async with gateway(in_turns) as server:
        report = await run(CONFIG, target(server.url), truth=truth)
        acknowledged = server.used(200)
        unknown = server.used(503, 400, None) - acknowledged
    assert report.complete
    assert truth.final
    assert set(report.answers) == {"200", "503", "400", "none"}
    assert report.answers == truth.http
    assert report.bodies == len(server.requests) == sum(truth.sent.bodies.values())
    assert unknown
    document = truth.document()
    assert document["acknowledged"]["totals"]["requests"] == len(acknowledged)
    assert document["unknown"]["totals"]["requests"] == len(unknown)
    assert compare(truth, rows(acknowledged), alone=True) == []
    assert compare(truth, rows(acknowledged | unknown), alone=True) == []
    assert compare(truth, rows(list(acknowledged)[1:])) != []
    assert report.percentiles()["p50_ms"] > 0


async def test_everything_is_acknowledged_if_the_server_answers() -> None:
    truth = Truth(CONFIG)
    async with gateway(accept) as server:
        report = await run(CONFIG, target(f"{server.url}/ingest/x/v1/logs"), truth=truth)
        paths = Counter(path for path, *_ in server.requests)
        senders = {headers["User-Agent"] for _, headers, *_ in server.requests}
    assert report.document()["http"] == {"200": report.bodies}
    assert set(paths) == {"/ingest/x/v1/logs", "/ingest/x/v1/metrics", "/ingest/x/v1/traces"}
    assert senders == {"OTel-OTLP-Exporter-Rust/0.31.0"}
    assert truth.document()["acknowledged"]["totals"]["requests"] == 400
    assert compare(truth, rows(server.used(200)), alone=True) == []


async def test_at_most_one_request_per_agent_is_in_flight() -> None:
    flying = most = 0

    async def watched(_: int, __: web.Request) -> web.Response:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(0)
        flying -= 1
        return web.Response()

    async with gateway(watched) as server:
        await run(FleetConfig(agents=3, requests=100, seed=1, start_ns=START), target(server.url))
    assert 1 <= most <= 3


async def test_only_retryable_answers_are_retried() -> None:
    attempts: Counter[bytes] = Counter()

    async def third_time(_: int, request: web.Request) -> web.Response:
        body = await request.read()
        attempts[body] += 1
        return web.Response(status=200 if attempts[body] == 3 else 503, headers={"Retry-After": "0"})

    config = FleetConfig(agents=4, requests=60, seed=1, start_ns=START)
    truth = Truth(config)
    async with gateway(third_time) as server:
        report = await run(config, target(server.url), Load(retries=2), truth=truth)
    assert set(attempts.values()) == {3}
    assert report.retried == 2 * report.bodies
    assert truth.document()["acknowledged"]["totals"]["requests"] == 60

    async def refuse(_: int, __: web.Request) -> web.Response:
        return web.Response(status=400)

    async with gateway(refuse) as server:
        report = await run(config, target(server.url), Load(retries=2))
        assert len(server.requests) == report.bodies


@pytest.mark.parametrize("client", ["codex", "claude", "gemini"])
async def test_gzip_bodies_decompress_to_the_same_bodies(client: ClientName) -> None:
    config = FleetConfig(agents=2, requests=20, seed=1, start_ns=START, client=client, gzip=True)

    async def unpacked(_: int, request: web.Request) -> web.Response:
        assert request.headers["Content-Encoding"] == "gzip"
        return web.Response()

    bodies = []
    for zipped in (True, False):
        async with gateway(unpacked if zipped else accept) as server:
            await run(FleetConfig(**config.document() | {"gzip": zipped, "agents": 1}), target(server.url))
            bodies.append(sorted(body for _, _, body, _ in server.requests))
    # aiohttp's server has already decompressed them.
    assert bodies[0] == bodies[1]
    assert gzip.compress(b"x")[:2] == b"\x1f\x8b"


async def test_open_load_measures_latency_from_the_scheduled_time() -> None:
    """One sender, 200 requests/s due, 20 ms an answer: the last waited for all before it."""

    async def slow(_: int, __: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        return web.Response()

    config = FleetConfig(agents=1, requests=40, seed=1, start_ns=START, metrics=0, traces=0)
    async with gateway(slow) as server:
        report = await run(config, target(server.url), Load(rate=200))
    waited = list(report.latencies)
    assert report.bodies > 10
    # Each answer takes at least 20 ms, and a request is due every 5 ms: each waits longer than the one before it.
    assert all(later - earlier > 0.01 for earlier, later in itertools.pairwise(waited))


async def test_stop_lets_requests_in_flight_finish() -> None:
    stop = asyncio.Event()

    async def stopping(number: int, _: web.Request) -> web.Response:
        if number == 20:
            stop.set()
        await asyncio.sleep(0.02)
        return web.Response()

    truth = Truth(CONFIG)
    async with gateway(stopping) as server:
        report = await run(CONFIG, target(server.url), truth=truth, stop=stop)
        counted = server.used(200)
    assert not report.complete
    assert truth.final
    assert report.bodies == len(server.requests) < 60
    assert set(report.answers) == {"200"}
    assert compare(truth, rows(counted), alone=True) == []


async def test_stop_waits_for_a_limited_time() -> None:
    stop = asyncio.Event()

    async def hang(number: int, _: web.Request) -> web.Response:
        if number < 5:
            return web.Response()
        stop.set()
        await asyncio.sleep(60)
        return web.Response()

    truth = Truth(CONFIG)
    async with gateway(hang) as server:
        report = await run(CONFIG, target(server.url), Load(grace_s=1.0), truth=truth, stop=stop)
        assert report.bodies == 5
        assert truth.document()["unknown"]["totals"]["requests"] > 0
        assert compare(truth, rows(server.used(200))) == []


async def test_partial_success_answers_are_reported() -> None:
    async def partly(_: int, request: web.Request) -> web.Response:
        is_json = request.content_type == "application/json"
        return web.Response(body=b"{}" if is_json else b"\x0a\x02\x08\x01", content_type=request.content_type)

    config = FleetConfig(agents=4, requests=40, seed=1, start_ns=START)
    async with gateway(partly) as server:
        report: Report = await run(config, target(server.url))
        binary = sum(headers["Content-Type"] == "application/x-protobuf" for _, headers, *_ in server.requests)
    assert report.partial == binary > 0


def test_report_without_answers_has_no_percentiles() -> None:
    document: dict[str, Any] = Report().document()
    assert document["latency"] == {}
    assert document["bodies_per_s"] is None
