"""The state of the components on this machine."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from tallystream.schemas.errors import UnreachableError
from tallystream.schemas.run import Run, RunningComponent
from tallystream.schemas.status import ComponentReport
from tallystream.supervisor import runfile
from tallystream.supervisor.ops_client import read_report


@dataclass(frozen=True)
class ComponentStatus:
    """One component, as described by its ops port."""

    name: str
    pid: int
    ops_url: str | None
    uptime_seconds: float | None
    healthy: bool
    ready: bool
    why: str
    """The reason it gives if it is not healthy."""
    report: ComponentReport | None = None
    """Its full report; None if it does not answer."""

    @property
    def state(self) -> str:
        """Describe the state."""
        word = "ready" if self.ready else "not ready" if self.healthy else "unhealthy"
        return f"{word}: {self.why}" if self.why and not self.ready else word

    @property
    def detail(self) -> dict[str, Any] | None:
        """Return the details of its report as JSON, or None if it has none."""
        detail = self.report.detail if self.report is not None else None
        return None if detail is None else detail.model_dump(mode="json")

    @property
    def uptime(self) -> str:
        """Describe the uptime."""
        return "-" if self.uptime_seconds is None else str(timedelta(seconds=int(self.uptime_seconds)))


@dataclass(frozen=True)
class Status:
    """The supervisor and its components. `run` is None while it starts."""

    data_dir: Path
    pid: int
    run: Run | None
    components: tuple[ComponentStatus, ...]

    @property
    def ready(self) -> bool:
        """Return whether everything is ready."""
        return self.run is not None and all(component.ready for component in self.components)

    def document(self) -> dict[str, Any]:
        """Return what `status --json` prints."""
        return {
            "data_dir": str(self.data_dir),
            "pid": self.pid,
            "ready": self.ready,
            "http": self.run.http if self.run else None,
            "grpc": self.run.grpc if self.run else None,
            "console": self.run.console if self.run else None,
            "kafka": self.run.kafka if self.run else None,
            "components": [
                {
                    "name": component.name,
                    "pid": component.pid,
                    "ops_url": component.ops_url,
                    "uptime_seconds": component.uptime_seconds,
                    "healthy": component.healthy,
                    "ready": component.ready,
                    "why": component.why,
                    "detail": component.detail,
                }
                for component in self.components
            ],
            "logs": str(self.data_dir / "logs"),
            "stop": f"tallystream down --data-dir {self.data_dir}",
        }


async def collect(data_dir: Path) -> Status:
    """Query every component that runs in this data dir.

    Raises:
        UnreachableError: nothing runs there.

    """
    pid = runfile.owner(data_dir)
    if pid is None:
        raise UnreachableError(
            f"nothing runs in {data_dir}", "start it with `tallystream up`, or name another --data-dir"
        )
    run = runfile.read_live(data_dir)
    asked = await asyncio.gather(*map(_ask, run.components if run else []))
    return Status(data_dir, pid, run, tuple(asked))


async def _ask(component: RunningComponent) -> ComponentStatus:
    report = None
    healthy, ready, why = True, True, ""
    if component.ops_url is not None:
        try:
            report = await read_report(component.ops_url)
            healthy, ready = report.healthy.ok, report.ready.ok
            why = "" if healthy and ready else report.ready.why if healthy else report.healthy.why
        except UnreachableError as exc:
            healthy, ready, why = False, False, exc.message
    return ComponentStatus(
        component.name, component.pid, component.ops_url, _uptime(component.pid), healthy, ready, why, report
    )


def _uptime(pid: int) -> float | None:
    """Return the seconds since a process started, or None if it has ended or the system has no /proc."""
    try:
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
