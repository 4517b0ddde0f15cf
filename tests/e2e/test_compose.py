"""docker-compose.yml on a real Docker engine: built, started, under load, with a killed worker, and exact.

`make compose-test` runs it. It needs access to a Docker engine and takes some minutes, so a plain test run leaves it
out. Where images cannot be pulled, deploy/compose/standins/make.sh builds stand-ins.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.product import free_port
from tests.support.waiting import eventually

from tallystream.simulator import CANARY, Truth, compare

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif("TALLYSTREAM_COMPOSE_TEST" not in os.environ, reason="needs a Docker engine: make compose-test"),
]
ROOT = Path(__file__).resolve().parents[2]
USER_KEY = "user-key-of-the-compose-test"
WORKERS = 3
OURS = ("gateway", "worker", "exporter")


class Compose:
    """A project with its own name, so that a real one is not affected."""

    def __init__(self, folder: Path) -> None:
        self.gateway, self.prometheus = (f"127.0.0.1:{free_port()}" for _ in range(2))
        self._files = ["-f", str(ROOT / "docker-compose.yml")]
        # The build may need the host's proxy for the package index; containers do not get it.
        override = folder / "network.yml"
        override.write_text(f"services: {{gateway: {{build: {{context: {ROOT}, network: host}}}}}}\n")
        self._files += ["-f", str(override)]
        self._environment = os.environ | {
            "COMPOSE_PROJECT_NAME": f"tallystream-test-{os.getpid()}",
            "TALLYSTREAM_USER_KEY": USER_KEY,
            "TALLYSTREAM_PUBLISH": self.gateway,
            "PROMETHEUS_PUBLISH": self.prometheus,
            "ALERTMANAGER_PUBLISH": f"127.0.0.1:{free_port()}",
        }

    def __call__(self, *args: str, seconds: float = 300) -> str:
        """Run `docker compose ...` and return its stdout."""
        argv = ["docker", "compose", *self._files, *args]
        done = subprocess.run(
            argv, env=self._environment, capture_output=True, text=True, timeout=seconds, check=False, cwd=ROOT
        )
        assert done.returncode == 0, f"{args} exited {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def cli(self, *args: str) -> str:
        """Run our command line in the gateway's container."""
        return self("exec", "-T", "gateway", "tallystream", *args)

    def containers(self, service: str) -> list[dict[str, Any]]:
        """Return `docker inspect` of a service's containers."""
        found: list[dict[str, Any]] = json.loads(docker("inspect", *self("ps", "-aq", service).split()))
        return found

    def query(self, promql: str) -> list[dict[str, Any]]:
        """Query the project's Prometheus."""
        url = f"http://{self.prometheus}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
        with urllib.request.urlopen(url, timeout=10) as response:
            result: list[dict[str, Any]] = json.load(response)["data"]["result"]
        return result


def docker(*args: str) -> str:
    return subprocess.run(["docker", *args], capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    running = Compose(tmp_path_factory.mktemp("compose"))
    running("build", "gateway", seconds=600)
    try:
        running("up", "-d", "--wait", "--no-build", "--scale", f"worker={WORKERS}", seconds=300)
        yield running
    finally:
        running("down", "--volumes", "--timeout", "20")


def test_rows_are_exact_under_load_with_a_killed_worker(compose: Compose, tmp_path: Path) -> None:
    issued = json.loads(
        compose.cli("connections", "create", "codex", "--json", "--endpoint-url", f"http://{compose.gateway}")
    )
    assert issued["base_url"].startswith(f"http://{compose.gateway}/")
    argv = [sys.executable, "-m", "tallystream", "simulate", "--endpoint", issued["base_url"]]
    argv += ["--agents", "20", "--requests", "100000", "--seed", "7", "--rate", "60", "--duplicates", "0.1"]
    argv += ["--late", "0.05", "--retry", "6", "--truth", str(tmp_path / "truth.json")]
    with (tmp_path / "fleet.log").open("wb") as log:
        fleet = subprocess.Popen(argv, stdout=log, stderr=log)
    try:
        victim = eventually(lambda: working(compose), "a worker has folded messages")
        os.kill(victim["State"]["Pid"], signal.SIGKILL)
        again = eventually(
            lambda: next(
                (
                    one
                    for one in compose.containers("worker")
                    if one["Id"] == victim["Id"] and one["RestartCount"] and healthy(one)
                ),
                None,
            ),
            "its restart policy has brought the worker back",
        )
        assert again["State"]["Pid"] != victim["State"]["Pid"]
        assert fleet.poll() is None, "the load ended before the worker was back"
    finally:
        fleet.send_signal(signal.SIGINT)
        assert fleet.wait(60) == 0, (tmp_path / "fleet.log").read_text()[-2000:]
    compose.cli("wait", "--caught-up", "--gateway-ops", "http://127.0.0.1:9100", "--timeout", "120")
    document = json.loads(compose.cli("cost", "session-hours", "--json"))
    truth = Truth.load(tmp_path / "truth.json")
    assert document["complete"]
    assert compare(truth, document["rows"], alone=True) == []
    assert sum(row["requests"] for row in document["rows"]) > 100, "there was load"
    assert json.loads(compose.cli("deadletters", "list", "--json"))["deadletters"] == []

    written = compose("logs", "--no-color", "--no-log-prefix")
    for secret in (issued["ingest_id"], USER_KEY, CANARY):
        assert secret not in written


def working(compose: Compose) -> dict[str, Any] | None:
    """Return a worker's container that has folded something."""
    page = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9100/metrics').read().decode())"
    for one in compose.containers("worker"):
        shown = docker("exec", one["Id"], "python", "-c", page)
        if any(
            line.startswith("tallystream_worker_usage_events_total") and float(line.split()[-1]) > 0
            for line in shown.splitlines()
        ):
            return one
    return None


def healthy(container: dict[str, Any]) -> bool:
    return bool(container["State"].get("Health", {}).get("Status") == "healthy")


def test_prometheus_finds_every_container(compose: Compose) -> None:
    wanted = {"gateway": 1, "worker": WORKERS, "exporter": 1}

    def found() -> bool:
        result = compose.query('sum by (component) (up{job="tallystream"})')
        return {one["metric"]["component"]: float(one["value"][1]) for one in result} == wanted

    eventually(found, f"Prometheus scrapes {wanted}")


def test_containers_have_no_more_rights_than_they_need(compose: Compose) -> None:
    for service in ("kafka", *OURS, "prometheus", "alertmanager"):
        for one in compose.containers(service):
            host = one["HostConfig"]
            assert host["ReadonlyRootfs"], service
            assert host["CapDrop"] == ["ALL"], service
            assert "no-new-privileges:true" in host["SecurityOpt"], service
            assert host["Memory"] > 0, service
            assert host["PidsLimit"] > 0, service
            assert host["RestartPolicy"]["Name"] == "unless-stopped", service
            status = Path(f"/proc/{one['State']['Pid']}/status").read_text()
            uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
            assert uid != "0", f"{service} runs as root"


def test_only_gateway_and_web_pages_are_published_on_loopback(compose: Compose) -> None:
    for service in ("kafka", "worker", "exporter"):
        assert all(not any(one["NetworkSettings"]["Ports"].values()) for one in compose.containers(service)), service
    for service in ("gateway", "prometheus", "alertmanager"):
        for one in compose.containers(service):
            bound = [each for ports in one["NetworkSettings"]["Ports"].values() for each in ports or []]
            assert {each["HostIp"] for each in bound} == {"127.0.0.1"}, service


def test_each_service_gets_only_its_own_secrets(compose: Compose) -> None:
    for service in ("kafka", "worker", "exporter", "prometheus", "alertmanager"):
        for one in compose.containers(service):
            assert USER_KEY not in "".join(one["Config"]["Env"] or []), service


def test_every_log_line_is_a_json_document(compose: Compose) -> None:
    for service in OURS:
        for line in compose("logs", "--no-color", "--no-log-prefix", service).splitlines():
            entry = json.loads(line)
            assert {"event", "level", "timestamp"} <= set(entry), line
