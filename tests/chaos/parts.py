"""One process of the product, which is started again whenever it has ended."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

from tests.chaos import ends
from tests.support.waiting import eventually

from tallystream.streams.process.children import bound_argv

ROOT = Path(__file__).resolve().parents[2]


class Part:
    """One component. `keep` restarts it when it has ended, unless `wanted` is False."""

    def __init__(self, name: str, argv: list[str], log: Path, ops_port: int, environment: dict[str, str]) -> None:
        self.name = name
        self.log = log
        self.ops_port = ops_port
        self.exits: list[int] = []
        self.starts = 0
        self.wanted = True
        self._argv = argv
        self.environment = environment
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._next = 0.0
        self._since = 0
        """Where the log of the current process begins."""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def keep(self) -> None:
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self.exits.append(self._process.returncode)
                ends.note(self.name, self._process.returncode, self.log, self._since, len(self.exits))
                self._process = None
                self._next = time.monotonic() + 0.2
            if self.wanted and self._process is None and time.monotonic() >= self._next:
                with self.log.open("ab") as log:
                    self._since = log.tell()
                    self._process = subprocess.Popen(
                        bound_argv(self._argv), cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
                        stdout=log, stderr=log,
                    )  # fmt: skip
                self.starts += 1

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, AssertionError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL, which also ends a stopped process; `keep` restarts it."""
        process = self.process
        process.kill()
        process.wait(60)

    def stop(self) -> int | None:
        """Stop it with SIGCONT and SIGTERM, then SIGKILL. Return the exit code, None if it did not run."""
        self.wanted = False
        process = self._process  # `keep` releases it as soon as it has ended
        if process is None or process.poll() is not None:
            return None
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def get(self, path: str) -> str:
        """Return the ops port's answer, empty if there is none or it is not 200."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}{path}", timeout=2) as response:
                return str(response.read().decode())
        except OSError:
            return ""

    def why_not_ready(self) -> str:
        """Return what /readyz says, and let the process write what its tasks wait for."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}/readyz", timeout=5) as response:
                why = str(response.status)
        except urllib.error.HTTPError as refused:
            why = refused.read().decode()
        except OSError as exc:
            why = repr(exc)
        written = self.log.stat().st_size
        self.signal(signal.SIGUSR1)
        with contextlib.suppress(AssertionError):  # a process that hangs cannot write them
            eventually(lambda: b'"event": "task"' in self.log.read_bytes()[written:], "its tasks are in the log", 5)
        return f"{self.name} is ready: {why}; see {self.log}"

    def metric(self, name: str) -> float:
        """Return a metric, 0 if it is missing. Waits for the page, because a busy process answers late."""
        page = eventually(lambda: self.get("/metrics"), f"{self.name} shows its metrics; see {self.log}", 180)
        for line in page.splitlines():
            if line.rpartition(" ")[0] == name:
                return float(line.rpartition(" ")[2])
        return 0.0

    @property
    def partitions(self) -> list[int]:
        """Return the partitions that it folds.

        An upgrade begins with a version that names the metric differently; both names are on the page for one release.
        """
        names = ("tallystream_worker_lag_messages{", "tallystream_worker_lag{")
        labels = [line for line in self.get("/metrics").splitlines() if line.startswith(names)]
        return sorted({int(label.split('"')[1]) for label in labels})

    @property
    def ready(self) -> bool:
        return bool(self.get("/readyz"))
