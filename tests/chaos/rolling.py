"""A rolling restart under load: `python -m tests.chaos.rolling [--report docs/chaos.md]`.

With `--from REVISION` it tests an upgrade: all processes start as that revision, and each is restarted as this version.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tests.chaos import ledger as accounts
from tests.chaos import report
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Ring
from tests.chaos.load import Fleet, Fleetwise
from tests.chaos.oracle import Verdict, judge
from tests.chaos.parts import ROOT, Part
from tests.support.waiting import eventually


@dataclass
class Restart:
    """The restart of one worker. `recovered` is the number of changelog records it read again, `length` their total."""

    worker: str
    exit_code: int
    away: float
    """Seconds from SIGTERM until the new process folds."""
    recovered: int
    length: int
    rebalanced: int
    """Rebalances of the other workers meanwhile."""


@dataclass
class Rolling:
    session_timeout: float
    restarts: list[Restart] = field(default_factory=list)
    stops: dict[int, float] = field(default_factory=dict)
    """By partition: the longest time that a message waited for its row, in seconds."""
    verdict: Verdict = field(default_factory=Verdict)


def run(
    folder: Path, session_timeout: float, *, workers: int = 3, rate: float = 100.0, warm_up: float = 5.0,
    old: Path | None = None,
) -> Rolling:  # fmt: skip
    """Restart each worker once, one after the other, as an upgrade would. `old` is the source tree to start with."""
    done = Rolling(session_timeout)
    environment = {"TALLYSTREAM_WORKER_SESSION_TIMEOUT": f"PT{session_timeout:g}S"}
    if old is not None:
        environment["PYTHONPATH"] = str(old / "src")
    with Cluster(folder, workers=workers, environment=environment) as cluster:
        cluster.environment["PYTHONPATH"] = str(ROOT / "src")
        fleet = Fleet(f"http://127.0.0.1:{cluster.port}", cluster.connect(), Fleetwise(rate, 6))
        fleet.start()
        try:
            time.sleep(warm_up)
            began = time.time()
            for worker in cluster.workers:
                others = [one for one in cluster.workers if one is not worker]
                before = sum(one.metric("tallystream_worker_rebalances_total") for one in others)
                exits, starts, since = len(worker.exits), worker.starts, time.monotonic()
                worker.environment = cluster.environment | {"TALLYSTREAM_WORKER_MEMBERSHIP": "static"}
                worker.signal(signal.SIGTERM)
                eventually(partial(_folds_again, worker, starts), "it folds again", 180)
                away = time.monotonic() - since
                cluster.settled()
                after = sum(one.metric("tallystream_worker_rebalances_total") for one in others)
                done.restarts.append(
                    Restart(
                        worker.name, worker.exits[exits], away,
                        int(worker.metric("tallystream_worker_recovered_records_total")),
                        sum(cluster.witness.snapshot().log_ends.values()), int(after - before),
                    )
                )  # fmt: skip
            if old is not None:
                _upgrade(cluster)
            ended = time.time()
        finally:
            fleet.stop()
        done.verdict = judge(Ring(cluster, fleet), [], [fleet], fresh=False)
        done.stops = done.verdict.figures["stops"] = stops(done.verdict.book, began, ended)
    return done


def _upgrade(cluster: Cluster) -> None:
    """Restart the other components as this version, under load, because `wait` reads their status."""
    for part in cluster.parts:
        if part not in cluster.workers:
            starts = part.starts
            part.environment = cluster.environment
            part.signal(signal.SIGTERM)
            eventually(partial(_ready_again, part, starts), f"{part.name} is ready", 180)


def _ready_again(part: Part, starts: int) -> bool:
    return part.starts > starts and part.ready


def _folds_again(worker: Part, starts: int) -> bool:
    return worker.starts > starts and bool(worker.partitions)


def stops(book: accounts.Ledger, since: float, until: float) -> dict[int, float]:
    """Return by partition the longest time that a message of that period waited for its row."""
    found = {}
    for p, log in book.usage.items():
        alone = accounts.Ledger(usage={p: log}, row_log=book.row_log)
        found[p] = max(accounts.freshness(alone, since, until), default=0.0)
    return found


def render(done: Rolling, command: str, title: str) -> str:
    """Return the section of the report."""
    longest = max(done.stops.values())
    held = "within" if longest <= done.session_timeout else "beyond"
    lines = [
        f"## {title}, session timeout {done.session_timeout:.0f} s",
        "",
        report.header(command),
        "",
        (
            f"Three workers with static membership, each stopped with SIGTERM and started again under"
            f" {done.verdict.figures['requests_per_s']} requests/s, one after the other. The longest time that a"
            f" message waited for its row: {longest:.1f} s, {held} the session timeout of {done.session_timeout:.0f} s."
            f" Rows: {'**exact**' if done.verdict.exact else str(done.verdict)}."
        ),
        "",
        "| worker | exit code | folds again after | changelog records read again | of | rebalances of others |",
        "|---|---:|---:|---:|---:|---:|",
        *[
            f"| {one.worker} | {one.exit_code} | {one.away:.1f} s | {one.recovered:,} | {one.length:,} |"
            f" {one.rebalanced} |"
            for one in done.restarts
        ],
        "",
        "| partition | longest wait |",
        "|---|---:|",
        *[f"| {p} | {seconds:.1f} s |" for p, seconds in sorted(done.stops.items())],
    ]
    return "\n".join(lines)


def tree(revision: str, folder: Path) -> Path:
    """Return the sources of a revision, unpacked."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", revision], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "x", "-C", str(folder)], input=archive, check=True)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.rolling", description=__doc__)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--session-timeout", type=float, default=6.0, help="seconds")
    parser.add_argument("--from", dest="revision", help="what to upgrade from, as git names it")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallystream-rolling-") as folder:
        old = tree(arguments.revision, Path(folder) / "old") if arguments.revision else None
        done = run(Path(folder) / "run", arguments.session_timeout, old=old)
    command = f"python -m tests.chaos.rolling --session-timeout {arguments.session_timeout:g}"
    section, title = "rolling", "Rolling restart"
    if old is not None:
        command += f" --from {arguments.revision}"
        section, title = "upgrade", f"Upgrade from {arguments.revision}"
    text = render(done, command, title)
    sys.stdout.write(f"{text}\n{done.verdict}\n")
    if arguments.report:
        report.write(arguments.report, section, text)
    sys.exit(0 if done.verdict.exact else 4)


if __name__ == "__main__":
    main()
