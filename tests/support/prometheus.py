"""Real Prometheus, Alertmanager and a webhook for the duration of a test."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.waiting import ANSWER, eventually
from typing_extensions import override

from tallystream.streams.process.tcp_ports import pick

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
RULES, ALERTMANAGER = DEPLOY / "prometheus", DEPLOY / "alertmanager"
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("prometheus-alertmanager") is None,
    reason="Prometheus is not installed: `make tools`",
)


class Prometheus:
    """Queries a Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def api(self, path: str, **arguments: str) -> Any:
        """Return `data` of an answer."""
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=ANSWER) as response:
            return json.loads(response.read())["data"]

    def query(self, expr: str, **arguments: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        found: list[dict[str, Any]] = self.api("query", query=expr, **arguments)["result"]
        return found

    def value(self, expr: str) -> float | None:
        """Return the single value of a query, None if there is none."""
        found = self.query(expr)
        assert len(found) <= 1, found
        return float(found[0]["value"][1]) if found else None

    def by(self, expr: str, label: str) -> dict[str, float]:
        """Return the values of a query by a label."""
        return {one["metric"].get(label, ""): float(one["value"][1]) for one in self.query(expr)}


@contextlib.contextmanager
def prometheus(
    folder: Path, targets: Mapping[str, str], *, alertmanager: int | None = None, rules: Path = RULES / "rules"
) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes `targets` (component: host:port) and evaluates the rules once a second."""
    folder.mkdir()
    port = pick()
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{rules}/*.yml"],
        "scrape_configs": [
            {
                "job_name": "tallystream",
                "static_configs": [{"targets": [at], "labels": {"component": name}} for name, at in targets.items()],
            }
        ],
    }
    if alertmanager is not None:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager}"]}]}]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    argv = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with running("prometheus", folder / "log", *argv, f"--web.listen-address=127.0.0.1:{port}"):
        _ready(port, "/-/ready")
        yield Prometheus(port)


@contextlib.contextmanager
def alerting(folder: Path) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Run an Alertmanager with our example's routes and a webhook for all receivers; provide its port and messages."""
    folder.mkdir()
    got: list[dict[str, Any]] = []

    class Webhook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        @override
        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Webhook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    port = pick()
    config = yaml.safe_load((ALERTMANAGER / "example.yml").read_text())
    config["route"] |= {"group_wait": "0s", "group_interval": "1s"}
    for receiver in config["receivers"]:
        url = f"http://127.0.0.1:{server.server_port}/{receiver['name']}"
        receiver.clear()
        receiver |= {"name": url.rpartition("/")[2], "webhook_configs": [{"url": url, "send_resolved": True}]}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    argv = [f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data", "--cluster.listen-address="]
    try:
        with running("prometheus-alertmanager", folder / "log", *argv, f"--web.listen-address=127.0.0.1:{port}"):
            _ready(port, "/-/ready")
            yield port, got
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def running(program: str, log: Path, *argv: str) -> Iterator[None]:
    """Run a program for the duration of the block, with its output in `log`."""
    with log.open("wb") as out:
        process = subprocess.Popen([program, *argv], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(ANSWER)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(port: int, path: str) -> None:
    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    eventually(answers, f"{path} on {port}")


def close(found: float | None, wanted: float) -> bool:
    """Tell whether two values are equal within a float's precision."""
    return found is not None and math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9)
