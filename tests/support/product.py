"""The whole product: `tallystream up` and the command line, as processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.waiting import eventually

from tallystream.streams.process import tcp_ports

T = TypeVar("T")
KEPT = 1800.0
"""Seconds for which the ports of a product are nobody else's."""
NO_LEDGER = 3
"""Exit code of a command that finds no ledger to read."""
READY, COMMAND = 240.0, 240.0
"""Timeouts for failures in seconds: until `up` is ready, and for a command, also one that itself waits."""


def free_port() -> int:
    """Return a free TCP port between two free ones, for gRPC and the console.

    No other process of ours picks the three for so long that a test can stop what listens there, and start it again.
    """
    while True:
        port = tcp_ports.pick()
        three = (port, port - 1, port + 1)
        if all(tcp_ports.reserve(one) and tcp_ports.is_free(one) for one in three[1:]):
            later = time.time() + KEPT
            for one in three:
                with contextlib.suppress(OSError):  # where files cannot be made, nothing is reserved
                    os.utime(tcp_ports.reservation(one), (later, later))
            return port


class Product:
    """`tallystream up` in its own data dir. `environment` adds `TALLYSTREAM_*`."""

    def __init__(self, data_dir: Path, environment: dict[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("TALLYSTREAM_")}
        self.environment |= environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    def command(self, *args: str) -> list[str]:
        """Return the argv of a subcommand on this data dir."""
        return [sys.executable, "-m", "tallystream", *args, "--data-dir", str(self.data_dir)]

    def up(self, *args: str, seconds: float = READY, prefix: Sequence[str] = ()) -> None:
        """Start everything and wait until it is ready; `prefix` is put before the command."""
        log = (self.data_dir.parent / f"{self.data_dir.name}-up.log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [*prefix, *self.command("up", "--port", str(self.port), *args)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
            )
        process = self.process

        def ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"up ended with {process.returncode}:\n{Path(log.name).read_text()[-3000:]}")
            return (self.data_dir / "run.json").exists()

        eventually(ready, f"up is ready; see {log.name}", seconds)

    def down(self) -> int:
        """Stop with SIGINT and return the exit code."""
        assert self.process is not None, "it was never started"
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(COMMAND)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def kill(self) -> None:
        """Kill everything at once, as a power cut does, if it runs. The components die with `up`."""
        if self.process is None or self.process.poll() is not None:
            return
        pids = [int(component["pid"]) for component in self.run_file()["components"]] if self._ready else []
        self.process.kill()
        self.process.wait()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists(), f"{pid} is gone")  # type: ignore[misc]
        (self.data_dir / "run.json").unlink(missing_ok=True)

    @property
    def _ready(self) -> bool:
        return (self.data_dir / "run.json").exists()

    def run_file(self) -> dict[str, Any]:
        """Return run.json."""
        document: dict[str, Any] = json.loads((self.data_dir / "run.json").read_text())
        return document

    def pid(self, name: str) -> int:
        """Return the pid of a component's working process."""
        return next(int(c["pid"]) for c in self.run_file()["components"] if c["name"] == name)

    def cli(self, *args: str, code: int = 0, seconds: float = COMMAND) -> str:
        """Run a subcommand, check its exit code and return its stdout."""
        done = subprocess.run(
            self.command(*args), capture_output=True, text=True, env=self.environment, timeout=seconds, check=False
        )
        assert done.returncode == code, f"{args} exited {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def json(self, *args: str, seconds: float = COMMAND) -> Any:
        """Run a subcommand with --json and return the document."""
        return json.loads(self.cli(*args, "--json", seconds=seconds))

    def sql(self, query: str) -> list[dict[str, Any]] | None:
        """Return a query's rows; None while there is no ledger to read, because `up` does not wait for it."""
        done = subprocess.run(
            self.command("sql", query, "--json"), capture_output=True, text=True, env=self.environment,
            timeout=COMMAND, check=False,
        )  # fmt: skip
        assert done.returncode in (0, NO_LEDGER), f"{query} exited {done.returncode}\n{done.stderr[-3000:]}"
        return None if done.returncode else list(json.loads(done.stdout)["rows"])


@contextlib.contextmanager
def product(data_dir: Path, environment: dict[str, str] | None = None, *args: str) -> Iterator[Product]:
    """Run `tallystream up` for the duration of the block."""
    running = Product(data_dir, environment)
    try:
        running.up(*args)
        yield running
    finally:
        running.down()
