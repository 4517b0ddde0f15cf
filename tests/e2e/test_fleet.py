"""A simulated fleet through the whole product while its processes are killed: the rows must equal the fleet's truth."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from tests.support.files import files_in
from tests.support.product import COMMAND, Product, product
from tests.support.waiting import ANSWER, eventually

from tallystream.simulator import CANARY, Fleet, FleetConfig, Truth, compare

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


def start_fleet(running: Product, folder: Path, *args: str) -> subprocess.Popen[bytes]:
    """Start `simulate` on a new connection; it writes `truth.json` into `folder`."""
    connection = folder / "connection.json"
    connection.write_text(running.cli("connections", "create", "codex", "--json"))
    argv = running.command("simulate", "--connection", str(connection), "--truth", str(folder / "truth.json"), *args)
    return subprocess.Popen(argv, env=running.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def export_spans(connection: dict[str, Any], truth: Truth) -> None:
    """Send a fleet's requests by OTLP/gRPC, and note in its truth that they were accepted."""
    metadata = tuple(connection["headers"].items())
    with grpc.insecure_channel(connection["grpc"].rpartition("/")[2]) as channel:
        call = channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        for request in Fleet(truth.config):
            truth.begin(request)
            call(request.body, metadata=metadata, timeout=ANSWER)
            truth.end(request, 200)


def past(moment: float) -> bool:
    """Tell whether the waiting time is over."""
    return time.monotonic() > moment


def replaced(running: Product, name: str, pid: int) -> bool:
    """Tell whether a new process has replaced a component's."""
    return running.pid(name) != pid


def rows_now(running: Product) -> list[dict[str, Any]]:
    """Return all session-hours once the worker has caught up."""
    running.cli("wait", "--caught-up", "--timeout", "180")
    document = running.json("cost", "session-hours")
    assert document["complete"]
    rows: list[dict[str, Any]] = document["rows"]
    return rows


def test_repeated_run_totals_and_double_sightings_cost_what_was_served(tmp_path: Path) -> None:
    """Bodies in both encodings, some of them sent twice or hours late; the worker is killed while calls are held.

    A second fleet comes over gRPC, every request twice.
    """
    with product(tmp_path / "data", {"TALLYSTREAM_CALLS_HOLD": "PT3S"}) as running:
        fleet = start_fleet(
            running, tmp_path, "--client", "genai", "--agents", "12", "--requests", "900", "--seed", "11",
            "--duplicates", "0.1", "--late", "0.1", "--resend", "0.1", "--retry", "6",
        )  # fmt: skip
        out, _ = fleet.communicate(timeout=COMMAND)
        assert fleet.returncode == 0, out.decode()
        pid = running.pid("worker")
        os.kill(pid, signal.SIGKILL)
        eventually(partial(replaced, running, "worker", pid), "worker runs again")
        rows = rows_now(running)
        assert compare(Truth.load(tmp_path / "truth.json"), rows, alone=True) == []
        over_grpc = Truth(FleetConfig(
            agents=4, requests=200, seed=12, start_ns=time.time_ns() - 2 * 3600 * 10**9, client="genai",
            encoding="protobuf", duplicates=0.1,
        ))  # fmt: skip
        for _ in range(2):
            export_spans(json.loads((tmp_path / "connection.json").read_text()), over_grpc)
        rows = rows_now(running)
        assert compare(over_grpc, rows) == []
        assert compare(Truth.load(tmp_path / "truth.json"), rows) == []
        assert {row["client"] for row in rows} == {"copilot", "pydantic-ai", "langchain"}
        assert running.json("deadletters", "list")["deadletters"] == []


def test_mixed_fleet_is_exact_although_processes_are_killed_repeatedly(tmp_path: Path) -> None:
    """All clients over a connection of one: the record names the client; the connection only authorizes the sender."""
    with product(tmp_path / "data") as running:
        fleet = start_fleet(
            running, tmp_path, "--client", "mixed", "--agents", "50", "--requests", "100000", "--seed", "5",
            "--rate", "100", "--duplicates", "0.1", "--late", "0.05", "--resend", "0.1", "--retry", "6",
        )  # fmt: skip
        chance = random.Random(5)
        for name in ("worker", "gateway", "kafka", "worker"):
            pid = running.pid(name)
            moment = time.monotonic() + chance.uniform(0.2, 1.5)
            eventually(partial(past, moment), "the moment to kill")
            with contextlib.suppress(ProcessLookupError):  # it may just have exited because of an earlier kill
                os.kill(pid, signal.SIGKILL)
            assert fleet.poll() is None, "the load ended before the kills did"
            eventually(partial(replaced, running, name, pid), f"{name} runs again")
        fleet.send_signal(signal.SIGINT)
        out, _ = fleet.communicate(timeout=COMMAND)
        assert fleet.returncode == 0, out.decode()
        rows = rows_now(running)
        truth = Truth.load(tmp_path / "truth.json")
        assert compare(truth, rows, alone=True) == []
        requests, unpriced = Counter[str](), Counter[str]()
        for row in rows:
            requests[row["client"]] += row["requests"]
            unpriced[row["client"]] += row["unpriced_requests"]
            assert bool(row["reported_cost_usd"]) is (row["client"] == "claude")
            assert row["connection_id"].startswith("codex-")
        assert requests.keys() == {"codex", "claude", "gemini"}
        assert all(unpriced[client] < number / 4 for client, number in requests.items()), "what they send has a price"
        assert running.json("deadletters", "list")["deadletters"] == []
    secret = json.loads((tmp_path / "connection.json").read_text())["ingest_id"].encode()
    for path, held in files_in(tmp_path / "data"):
        assert secret not in held, f"{path} holds an ingest id"
        assert CANARY.encode() not in held, f"{path} holds content of prompts or tools"


def test_demo_shows_exact_tables_and_exits_0(tmp_path: Path) -> None:
    running = Product(tmp_path / "data")
    document = running.json("demo", "--once", "--requests", "120", "--agents", "6", "--seed", "3")
    assert document["exact"]
    assert document["differences"] == []
    assert document["totals"]["requests"] == 120
    assert document["catalogue"]["sessions_behind"] == 0
    assert not (tmp_path / "data" / "run.json").exists(), "the demo has stopped what it started"
