"""The command `tallystream simulate`."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from aiohttp import web
from tests.support.oracle import rows
from tests.support.recorder import accept, gateway
from tests.support.waiting import PATIENCE

from tallystream.cli import main
from tallystream.simulator import Truth, compare


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "tallystream", "simulate", "--agents", "5", "--seed", "9", *args]


async def finished(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    out, err = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def simulate(*args: str, stdin: bytes | None = None) -> tuple[int, str, str]:
    """Run the command to its end."""
    process = await asyncio.create_subprocess_exec(
        *command(*args), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_simulate_writes_report_and_truth(tmp_path: Path) -> None:
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


async def test_mixed_fleet_sends_the_telemetry_of_all_three_clients(tmp_path: Path) -> None:
    file = tmp_path / "truth.json"
    async with gateway(accept) as server:
        code, out, err = await simulate(
            "--requests", "200", "--endpoint", server.url, "--truth", str(file), "--client", "mixed", "--late", "0.1",
            "--duplicates", "0.1", "--agents", "10", "--json",
        )  # fmt: skip
        counted = server.used(200)
        posted = {
            (headers["User-Agent"], headers["Content-Type"], headers.get("Transfer-Encoding"))
            for _, headers, *_ in server.requests
        }
    assert (code, err) == (0, "")
    assert json.loads(out)["complete"]
    truth = Truth.load(file)
    assert compare(truth, rows(counted), alone=True) == []
    found = json.loads(file.read_text())["acknowledged"]
    assert Counter(used.client for used in counted) == {"codex": 100, "claude": 60, "gemini": 40}
    assert found["totals"]["requests"] == 200
    assert {row["client"] for row in found["rows"] if row["reported_cost_usd"]} == {"claude"}
    rust, script = "OTel-OTLP-Exporter-Rust/0.31.0", "OTel-OTLP-Exporter-JavaScript/"
    assert posted == {
        (rust, "application/x-protobuf", None), (rust, "application/json", None),
        (f"{script}0.208.0", "application/x-protobuf", None), (f"{script}0.218.0", "application/json", "chunked"),
    }  # fmt: skip


@pytest.mark.parametrize("given", ["file", "stdin", "header"])
async def test_connection_option_accepts_the_output_of_create(tmp_path: Path, given: str) -> None:
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


async def test_sigint_stops_cleanly_and_keeps_the_truth_file(tmp_path: Path) -> None:
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
        await asyncio.wait_for(enough.wait(), PATIENCE)
        process.send_signal(signal.SIGINT)
        code, out, err = await finished(process)
        counted = server.used(200)
    assert (code, err) == (0, "")
    assert "stopped" in out
    truth = Truth.load(file)
    assert truth.final
    assert truth.document()["acknowledged"]["totals"]["requests"] == len(counted)
    assert compare(truth, rows(counted), alone=True) == []


async def test_truth_file_of_a_killed_simulator_is_valid(tmp_path: Path) -> None:
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

        async with asyncio.timeout(PATIENCE):
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


async def test_gateway_refusing_everything_is_reported_without_secrets() -> None:
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
        (2, ["--endpoint", "http://127.0.0.1:1", "--client", "gemini", "--encoding", "protobuf"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--encoding", "xml"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--late", "2"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--span", "soon"]),
        (2, ["--endpoint", "http://127.0.0.1:1", "--truth", "/proc/none/truth.json"]),
        (3, ["--connection", "Sec", "--data-dir", "nowhere"]),
        (2, ["--connection", "broken.json"]),
    ],
)
def test_simulate_errors_are_one_line_with_a_next_step(
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
