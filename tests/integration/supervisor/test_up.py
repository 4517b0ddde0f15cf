"""`tallystream up` with real Kafka, gateway and worker: a killed process, a second `up` and a taken port."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from tests.support.product import Product
from tests.support.waiting import ANSWER, PATIENCE, eventually

from tallystream.streams.process import tcp_ports

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "cost_consumer.py"
SECRET = "http://user:nobody-needs-this@127.0.0.1:1"


def readyz(port: int) -> int:
    """Return the status of /readyz on the telemetry port, 0 while nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=ANSWER) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def status(product: Product) -> int:
    """Return the exit code of `tallystream status`."""
    return subprocess.run(
        product.command("status"), capture_output=True, env=product.environment, timeout=PATIENCE, check=False
    ).returncode


def refused(product: Product, *args: str) -> str:
    """Run a second `up` that must be refused as wrong usage, and return what it says."""
    done = subprocess.run(
        product.command("up", *args),
        capture_output=True,
        text=True,
        env=product.environment,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_up_keeps_everything_running_until_down(tmp_path: Path) -> None:
    product = Product(tmp_path / "donn\xe9es")
    product.environment |= {"LC_ALL": "C", "TALLYSTREAM_OPENAI_PROXY": SECRET, "TALLYSTREAM_PORT_PROXY": SECRET}
    try:
        product.up()
        assert stat.S_IMODE(product.data_dir.stat().st_mode) == 0o700
        for made in product.data_dir.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # what runs there also removes files
                assert made.is_symlink() or not stat.S_IMODE(made.stat().st_mode) & 0o077, f"others can read {made}"
        kafka_secret = (product.data_dir / "kafka" / "secret").read_bytes()
        for component in product.run_file()["components"]:
            assert kafka_secret not in Path(f"/proc/{component['pid']}/cmdline").read_bytes(), component["name"]
            assert SECRET.encode() not in Path(f"/proc/{component['pid']}/environ").read_bytes(), component["name"]
        run = product.run_file()
        assert [component["name"] for component in run["components"]] == [
            "kafka", "gateway", "worker", "exporter", "ledger", "console"
        ]  # fmt: skip
        assert run["http"] == f"http://127.0.0.1:{product.port}"
        assert Path(f"/proc/{product.pid('kafka')}/exe").resolve().name == "java"
        # The file is written before the answer changes, because the gateway reads the file when it is asked.
        assert readyz(product.port) == 200

        assert "already runs" in refused(product, "--port", str(product.port))
        other = Product(tmp_path / "other")
        assert f"port {product.port} is taken" in refused(other, "--port", str(product.port))

        killed = product.pid("kafka")
        os.kill(killed, signal.SIGKILL)
        assert eventually(lambda: product.pid("kafka") != killed, "run.json names the new Kafka")
        assert product.run_file()["kafka"] == run["kafka"]
        assert product.json("connections", "list") is not None
        example = [sys.executable, str(EXAMPLE), "--kafka", run["kafka"], "--secret"]
        done = subprocess.run([*example, str(product.data_dir / "kafka" / "secret")], capture_output=True, check=False)
        assert (done.returncode, json.loads(done.stdout)) == (0, []), done.stderr
        eventually(lambda: status(product) == 0, "all is ready again")

        product.cli("down")
        assert product.process is not None
        assert product.process.wait(ANSWER) == 0
        assert not (product.data_dir / "run.json").exists()
        assert readyz(product.port) == 0
        with socket.socket() as probe:
            host, _, port = run["kafka"].partition(":")
            assert probe.connect_ex((host, int(port))) != 0
    finally:
        if product.process is not None and product.process.poll() is None:
            product.process.kill()
            product.process.wait()


def test_up_is_ready_without_port_and_openai_and_reports_why(tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{tcp_ports.pick()}"
    product = Product(
        tmp_path / "data",
        {
            "TALLYSTREAM_PORT_BASE_URL": nobody,
            "TALLYSTREAM_PORT_CLIENT_ID": "id",
            "TALLYSTREAM_PORT_CLIENT_SECRET": "not-the-secret",
            "TALLYSTREAM_OPENAI_BASE_URL": nobody,
            "TALLYSTREAM_OPENAI_API_TOKEN": "sk-nobody",
            "OCEAN__INTEGRATION__CONFIG__PAGE_SIZE": "100",
        },
    )
    said = tmp_path / "data-up.log"
    try:
        product.up()
        assert product.json("connections", "create", "codex")["connection_id"]
        eventually(lambda: re.search(r"sink port_away .*hint=is Port .*reachable", said.read_text()), "up says why not")
        assert "not-the-secret" not in said.read_text()
        # logged once, while other components were starting
        assert "setting_ignored name=OCEAN__INTEGRATION__CONFIG__PAGE_SIZE" in said.read_text()

        def examined() -> dict[str, Any] | None:
            found: dict[str, Any] = json.loads(product.cli("doctor", "--json", "--watch", "2", code=1))
            named = {"openai", "port"} <= {one["check"] for one in found["findings"]}
            return found if named and "failed" in found["sections"]["OpenAI"]["/models"] else None

        # attempts last for some seconds until a resource counts as failed, and one resource fails after the other
        document = eventually(examined, "doctor names both, and the resource")
        port = next(one for one in document["findings"] if one["check"] == "port")
        assert "connection failed" in port["finding"]
        assert "TALLYSTREAM_PORT_BASE_URL" in port["next"]
        openai = next(one for one in document["findings"] if one["check"] == "openai")
        assert "cannot be polled: the connection failed" in openai["finding"]
        assert "documents" in document["sections"]["Port"]["backlog"]
        status = product.cli("status", code=1)
        assert "cannot be polled" in status
        assert "TALLYSTREAM_PORT_BASE_URL" in status
        assert "not-the-secret" not in json.dumps(document) + status
        assert product.down() == 0
    finally:
        if product.process is not None and product.process.poll() is None:
            product.process.kill()
            product.process.wait()
