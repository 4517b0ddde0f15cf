"""A fleet against a real HTTP server that answers, refuses, hangs up and stalls; and the command as users run it."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.support.oracle import Used, codex_usage, read_logs, rows

from tallystream.cli import main
from tallystream.simulator import FleetConfig, Load, Report, Truth, compare, run, target

START = 1_795_290_000_000_000_000
CONFIG = FleetConfig(agents=10, requests=400, seed=3, start_ns=START, duplicates=0.1, late=0.05, resend=0.05)
Answer = Callable[[int, web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Gateway:
    """Remembers what it was sent and how it answered."""

    url: str = ""
    requests: list[tuple[str, dict[str, str], bytes, int | None]] = field(default_factory=list)
    """Path, headers, body and status of each."""

    def used(self, *statuses: int | None) -> set[Used]:
        """Return what was reported in the logs that were answered so."""
        return {
            response
            for path, headers, body, status in self.requests
            if path.endswith("/v1/logs") and status in statuses
            for response in codex_usage(read_logs(body, headers["Content-Type"]))
        }


@asynccontextmanager
async def gateway(answer: Answer) -> AsyncIterator[Gateway]:
    """Serve on a free port; `answer` gets the request's number."""
    seen, numbers = Gateway(), count()

    async def handle(request: web.Request) -> web.StreamResponse:
        number = next(numbers)
        entry = (request.path, dict(request.headers), await request.read())
        try:
            response = await answer(number, request)
        except ConnectionResetError:
            seen.requests.append((*entry, None))
            assert request.transport is not None
            request.transport.abort()
            raise
        seen.requests.append((*entry, response.status))
        return response

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/{tail:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    seen.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield seen
    finally:
        await runner.cleanup()


async def accept(_: int, __: web.Request) -> web.Response:
    return web.Response(status=200)


async def in_turns(number: int, _: web.Request) -> web.Response:
    """Answer 200, 503, hang up, 200, 400."""
    turn = number % 5
    if turn == 2:
        raise ConnectionResetError
    return web.Response(status=(200, 503, 0, 200, 400)[turn])


async def test_outcomes_decide_what_must_and_what_may_count() -> None:
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


async def test_everything_is_acknowledged_by_a_gateway_that_answers() -> None:
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


async def test_no_more_requests_in_flight_than_agents() -> None:
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


async def test_retries_only_what_may_be_retried() -> None:
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


async def test_gzip_bodies_are_the_same_bodies() -> None:
    config = FleetConfig(agents=2, requests=20, seed=1, start_ns=START, gzip=True)

    async def unpacked(_: int, request: web.Request) -> web.Response:
        assert request.headers["Content-Encoding"] == "gzip"
        return web.Response()

    bodies = []
    for zipped in (True, False):
        async with gateway(unpacked if zipped else accept) as server:
            await run(FleetConfig(**config.document() | {"gzip": zipped, "agents": 1}), target(server.url))
            bodies.append(sorted(body for _, _, body, _ in server.requests))
    # The server has unpacked them, as aiohttp does.
    assert bodies[0] == bodies[1]
    assert gzip.compress(b"x")[:2] == b"\x1f\x8b"


async def test_open_load_counts_latency_from_when_a_request_was_due() -> None:
    """One sender, 200 requests/s due, 20 ms an answer: the last waited for all before it."""

    async def slow(_: int, __: web.Request) -> web.Response:
        await asyncio.sleep(0.02)
        return web.Response()

    config = FleetConfig(agents=1, requests=40, seed=1, start_ns=START, metrics=0, traces=0)
    async with gateway(slow) as server:
        report = await run(config, target(server.url), Load(rate=200))
    ordered = list(report.latencies)
    assert report.bodies > 10
    assert ordered == sorted(ordered)
    assert ordered[-1] > ordered[0] * 2


async def test_a_stop_lets_requests_in_flight_end() -> None:
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


async def test_a_stop_does_not_wait_for_ever() -> None:
    stop = asyncio.Event()

    async def hang(number: int, _: web.Request) -> web.Response:
        if number < 5:
            return web.Response()
        stop.set()
        await asyncio.sleep(60)
        return web.Response()

    truth = Truth(CONFIG)
    async with gateway(hang) as server:
        report = await run(CONFIG, target(server.url), Load(grace_s=0.2), truth=truth, stop=stop)
        assert report.bodies == 5
        assert truth.document()["unknown"]["totals"]["requests"] > 0
        assert compare(truth, rows(server.used(200))) == []


async def test_a_report_of_rejected_records_is_noticed() -> None:
    async def partly(_: int, request: web.Request) -> web.Response:
        is_json = request.content_type == "application/json"
        return web.Response(body=b"{}" if is_json else b"\x0a\x02\x08\x01", content_type=request.content_type)

    config = FleetConfig(agents=4, requests=40, seed=1, start_ns=START)
    async with gateway(partly) as server:
        report: Report = await run(config, target(server.url))
        binary = sum(headers["Content-Type"] == "application/x-protobuf" for _, headers, *_ in server.requests)
    assert report.partial == binary > 0


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "tallystream", "simulate", "--agents", "5", "--seed", "9", *args]


async def finished(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def simulate(*args: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Run the command to its end."""
    process = await asyncio.create_subprocess_exec(
        *command(*args), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), 60)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_the_command_writes_report_and_truth(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "truth.json"
    async with gateway(accept) as server:
        code, out, err = await simulate(
            "--requests", "200", "--endpoint", f"{server.url}/base", "--truth", str(file), "--late", "0.1",
            "--duplicates", "0.1", "--start", "2026-11-21T14:30:00Z", "--encoding", "json", "--gzip", "--json",
        )  # fmt: skip
        counted = server.used(200)
    assert (code, err) == (0, "")
    report = json.loads(out)
    assert report["complete"]
    assert report["http"] == {"200": len(server.requests)}
    truth = Truth.load(file)
    assert truth.final
    assert compare(truth, rows(counted), alone=True) == []
    document = json.loads(file.read_text())
    assert document["start"] == "2026-11-21T14:30:00Z"
    assert document["acknowledged"]["totals"]["requests"] == 200
    row = document["acknowledged"]["rows"][0]
    assert {"session_id", "hour", "model", "service_tier", "attribution", "cost_usd", "requests"} <= set(row)
    assert [found.name for found in file.parent.iterdir()] == ["truth.json"]


@pytest.mark.parametrize("given", ["file", "stdin", "header"])
async def test_a_connection_is_named_by_what_its_creation_printed(tmp_path: Path, given: str) -> None:
    secret = "Ab3dEf6hIj9lMn2pQr5tUv"
    async with gateway(accept) as server:
        base = f"{server.url}/api/v1/public/ingest/otel/codex/{secret}"
        created = json.dumps({"connection_id": "codex-7f3a", "ingest_id": secret, "base_url": base})
        (tmp_path / "conn.json").write_text(created)
        args = {
            "file": ["--connection", str(tmp_path / "conn.json")],
            "stdin": ["--connection", "-"],
            "header": ["--connection", secret, "--endpoint", server.url],
        }[given]
        code, out, err = await simulate("--requests", "20", *args, stdin=created.encode())
        assert code == 0, err
        assert server.requests
        for path, headers, _, _ in server.requests:
            assert path.startswith(f"/api/v1/public/ingest/otel/codex/{secret}/v1/" if given != "header" else "/v1/")
            assert headers.get("x-tallystream-connection") == (secret if given == "header" else None)
    assert secret not in out + err


async def test_sigint_stops_cleanly_and_leaves_the_truth(tmp_path: Path) -> None:
    file = tmp_path / "truth.json"
    enough = asyncio.Event()

    async def slow(number: int, _: web.Request) -> web.Response:
        if number == 30:
            enough.set()
        await asyncio.sleep(0.005)
        return web.Response()

    async with gateway(slow) as server:
        process = await asyncio.create_subprocess_exec(
            *command("--requests", "9000", "--endpoint", server.url, "--truth", str(file)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        await asyncio.wait_for(enough.wait(), 60)
        process.send_signal(signal.SIGINT)
        code, out, err = await finished(process)
        counted = server.used(200)
    assert (code, err) == (0, "")
    assert "stopped" in out
    truth = Truth.load(file)
    assert truth.final
    assert truth.document()["acknowledged"]["totals"]["requests"] == len(counted)
    assert compare(truth, rows(counted), alone=True) == []


async def test_a_killed_simulator_leaves_a_truth_that_holds(tmp_path: Path) -> None:
    file = tmp_path / "truth.json"

    async def slow(_: int, __: web.Request) -> web.Response:
        await asyncio.sleep(0.005)
        return web.Response()

    async with gateway(slow) as server:
        process = await asyncio.create_subprocess_exec(
            *command("--requests", "3000", "--endpoint", server.url, "--truth", str(file)),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

        def written() -> bool:
            return file.exists() and bool(json.loads(file.read_text())["http"])

        async with asyncio.timeout(60):
            while not written():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
        process.kill()
        await finished(process)
        counted = server.used(200)
    truth = Truth.load(file)
    assert not truth.final
    acknowledged = truth.document()["acknowledged"]["totals"]["requests"]
    assert 0 < acknowledged <= len(counted) < 3000
    assert compare(truth, rows(counted), alone=True) == []
    assert compare(truth, []) != []


async def refuse_all(_: int, __: web.Request) -> web.Response:
    return web.Response(status=404)


async def test_a_gateway_that_refuses_everything_is_an_error_that_shows_no_secret() -> None:
    async with gateway(refuse_all) as server:
        code, _, err = await simulate("--requests", "20", "--endpoint", f"{server.url}/otel/codex/Sec", "--json")
    assert code == 2
    assert "404" in json.loads(err)["message"]
    assert json.loads(err)["hint"]
    assert "Sec" not in err


@pytest.mark.parametrize(
    ("code", "args"),
    [
        (3, ["--endpoint", "http://127.0.0.1:1/otel/codex/Sec"]),
        (2, ["--endpoint", "gopher://x/Sec"]),
        (2, ["--endpoint", "http://x:port/Sec"]),
        (2, []),
        (2, ["--connection", "setup.cfg", "--endpoint", "x"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--client", "emacs"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--client", "claude"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--encoding", "xml"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--late", "2"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--span", "soon"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--truth", "/proc/none/truth.json"]),
        (3, ["--connection", "Sec", "--data-dir", "nowhere"]),
        (2, ["--connection", "broken.json"]),
    ],
)
def test_errors_are_one_line_with_a_next_step(
    code: int, args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.json").write_text('{"ingest_id": "Sec"}')
    with pytest.raises(SystemExit) as end:
        main(["simulate", "--agents", "5", "--seed", "9", "--requests", "20", *args])
    assert end.value.code == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "Sec" not in err
    assert not (tmp_path / "truth.json").exists()


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)


def test_a_report_without_answers_has_no_percentiles() -> None:
    document: dict[str, Any] = Report().document()
    assert document["latency"] == {}
    assert document["bodies_per_s"] is None
