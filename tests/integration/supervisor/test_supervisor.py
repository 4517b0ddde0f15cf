"""The supervisor with small real processes as its components."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.waiting import ANSWER, PATIENCE, eventually

from tallystream.schemas.errors import UsageError
from tallystream.schemas.run import Run, RunningComponent
from tallystream.supervisor.runfile import SupervisorLock, owner, read_live

ROOT = Path(__file__).resolve().parents[3]


class Supervised:
    """A running supervisor of three stand-ins: kafka, gateway, worker."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.supervise", str(self.state)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])},
            stderr=subprocess.PIPE,
            text=True,
        )
        return self.process

    def up(self) -> Run:
        self.start()
        return eventually(lambda: read_live(self.state), "it is up")

    def end(self) -> int:
        assert self.process is not None
        self.process.communicate(timeout=ANSWER)
        return self.process.returncode

    def events(self) -> list[str]:
        file = self.state / "events"
        return file.read_text().splitlines() if file.exists() else []

    def touch(self, name: str) -> Path:
        (self.state / name).touch()
        return self.state / name

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    running = Supervised(tmp_path)
    try:
        yield running
    finally:
        running.kill()


def of(run: Run | None, name: str) -> RunningComponent:
    assert run is not None
    return next(component for component in run.components if component.name == name)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def cli(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tallystream", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    )


def test_components_start_and_stop_in_order_and_are_restarted(supervised: Supervised) -> None:
    first = supervised.up()
    events = supervised.events()
    assert [c.name for c in first.components] == ["kafka", "gateway", "worker"]
    assert events.index("kafka started") < events.index("supervisor kafka prepared") < events.index("worker started")

    for name in ("worker", "kafka"):
        old = of(first, name)
        os.kill(old.pid, signal.SIGKILL)

        def replaced(old: RunningComponent = old) -> Run | None:
            run = read_live(supervised.state)
            return run if of(run, old.name).pid != old.pid else None

        new = eventually(replaced, f"run.json names the new {name}")
        url = of(new, name).ops_url
        with urllib.request.urlopen(f"{url}/readyz", timeout=ANSWER) as response:
            assert response.status == 200
        assert of(new, "gateway") == of(first, "gateway")

    state = cli("status", "--json", "--data-dir", str(supervised.state))
    assert state.returncode == 0, state.stderr
    document = json.loads(state.stdout)
    assert document["ready"]
    assert [c["name"] for c in document["components"]] == ["kafka", "gateway", "worker"]
    assert {c["pid"] for c in document["components"]} == {c.pid for c in new.components}

    assert cli("down", "--data-dir", str(supervised.state)).returncode == 0
    assert owner(supervised.state) is None
    assert not (supervised.state / "run.json").exists()
    assert not any(alive(component.pid) for component in new.components)
    assert supervised.end() == 0
    stops = [event for event in supervised.events() if event.endswith("stopped")]
    assert stops == ["gateway stopped", "worker stopped", "kafka stopped"]
    gone = cli("status", "--json", "--data-dir", str(supervised.state))
    assert gone.returncode == 3
    assert json.loads(gone.stderr)["code"] == "unreachable"


def test_component_that_stays_unhealthy_is_replaced(supervised: Supervised) -> None:
    old = of(supervised.up(), "worker")
    red = supervised.touch("worker.red")
    state = eventually(
        lambda: [e for e in supervised.events() if e.startswith("supervisor worker was not healthy")], "it is ended"
    )
    red.unlink()
    assert "restarting it" in state[0]
    assert eventually(lambda: of(read_live(supervised.state), "worker").pid != old.pid, "another one is ready")
    assert not alive(old.pid)


def test_unresponsive_component_is_killed_early(supervised: Supervised) -> None:
    """It also ignores SIGTERM, as a blocked event loop does, so only SIGKILL ends it."""
    old = of(supervised.up(), "worker")
    stubborn = supervised.touch("worker.stubborn")
    deaf = supervised.touch("worker.deaf")
    eventually(lambda: not alive(old.pid), "it is killed")
    deaf.unlink()
    stubborn.unlink()
    assert eventually(lambda: of(read_live(supervised.state), "worker").pid != old.pid, "another one is ready")


def test_sigstopped_components_receive_sigterm_and_exit(supervised: Supervised) -> None:
    """SIGSTOP, as by a debugger or Ctrl-Z: for a component to be replaced, and for all of them at `down`."""
    first = supervised.up()
    old = of(first, "worker")
    os.kill(old.pid, signal.SIGSTOP)
    assert eventually(lambda: of(read_live(supervised.state), "worker").pid != old.pid, "another one is ready")
    assert supervised.events().count("worker stopped") == 1, "it went as it should, and was not killed"

    run = read_live(supervised.state)
    assert run is not None
    assert supervised.process is not None
    for pid in (supervised.process.pid, *(component.pid for component in run.components)):
        os.kill(pid, signal.SIGSTOP)
    assert cli("down", "--data-dir", str(supervised.state)).returncode == 0
    assert supervised.end() == 0
    assert not any(alive(component.pid) for component in run.components)
    for name, times in (("worker", 2), ("gateway", 1), ("kafka", 1)):
        assert supervised.events().count(f"{name} stopped") == times, name


def test_killed_supervisor_leaves_no_processes_and_a_stale_run_file(supervised: Supervised) -> None:
    run = supervised.up()
    supervised.kill()
    assert eventually(lambda: not any(alive(c.pid) for c in run.components), "all components have ended")
    assert (supervised.state / "run.json").exists()
    assert read_live(supervised.state) is None
    assert cli("status", "--data-dir", str(supervised.state)).returncode == 3

    supervised.touch("worker.refuses")
    supervised.start()
    assert supervised.end() == 2
    assert not (supervised.state / "run.json").exists(), "a start removes what another one left"


def test_second_supervisor_is_refused(supervised: Supervised) -> None:
    supervised.up()
    assert supervised.process is not None
    with (
        pytest.raises(UsageError, match=f"already runs in .*process {supervised.process.pid}"),
        SupervisorLock(supervised.state),
    ):
        pass


def test_up_shows_the_error_of_a_component_that_cannot_start(supervised: Supervised) -> None:
    supervised.touch("gateway.refuses")
    process = supervised.start()
    _, error = process.communicate(timeout=ANSWER)
    assert process.returncode == 2
    assert error == "usage|gateway did not start: port 1 is taken|choose another"
    assert supervised.events().count("gateway started") == 1, "wrong usage is not tried again"
    assert read_live(supervised.state) is None


def test_second_signal_kills_components_that_do_not_stop(supervised: Supervised) -> None:
    run = supervised.up()
    supervised.touch("worker.stubborn")
    assert supervised.process is not None
    supervised.process.send_signal(signal.SIGINT)
    assert eventually(lambda: "worker ignored" in supervised.events(), "the worker ignores SIGTERM")
    assert alive(of(run, "worker").pid)
    supervised.process.send_signal(signal.SIGINT)
    assert supervised.end() == 0
    assert not any(alive(component.pid) for component in run.components)


def test_with_existing_clients_other_failures_do_not_end_the_gateway(supervised: Supervised) -> None:
    supervised.touch("served.before")
    refuses = supervised.touch("worker.refuses")
    run = supervised.up()
    eventually(lambda: any("worker does not start: port 1" in one for one in supervised.events()), "it is said")
    assert alive(of(run, "gateway").pid)
    refuses.unlink()
    eventually(lambda: "supervisor worker ready" in supervised.events(), "the worker is tried again and again")
    assert supervised.events().count("gateway started") == 1


def test_unfit_topics_do_not_end_a_gateway_with_existing_clients(supervised: Supervised) -> None:
    supervised.touch("served.before")
    unfit = supervised.touch("topics.unfit")
    supervised.start()
    eventually(lambda: any("the topics do not fit (mend them)" in one for one in supervised.events()), "it is said")
    eventually(lambda: "supervisor gateway ready" in supervised.events(), "the gateway serves")
    assert "gateway stopped" not in supervised.events()
    unfit.unlink()
    eventually(lambda: read_live(supervised.state), "it is up")


def test_unfit_topics_fail_the_start_before_any_client_sends(supervised: Supervised) -> None:
    supervised.touch("topics.unfit")
    process = supervised.start()
    _, error = process.communicate(timeout=ANSWER)
    assert (process.returncode, error) == (1, "unfit|the topics do not fit|mend them")
