"""The long run: `python -m tests.chaos [--kinds worker=30,gateway=20] [--report docs/chaos.md]`.

Exits 0 when everything is exact and 4 when it is not; the folder with logs and data is kept then. The logs of processes
that ended by themselves are always kept.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos import broker_clock, report
from tests.chaos.campaign import NEEDS_BROKERS, NEEDS_CLOCK, NEEDS_PROXY, NEEDS_SMALL_DISK, run
from tests.chaos.ends import FOLDER, say
from tests.chaos.faults import KINDS
from tests.chaos.toxiproxy import executable

LONG = {
    "worker": 36, "workers": 4, "store": 6, "join": 8, "zombie": 8, "gateway": 26, "broker": 8, "broker-pause": 2,
    "broker-slow": 3, "everything": 5, "sigterm": 3, "disk-spool": 3, "disk-store": 3, "changelog-refuses": 3,
    "poison": 2, "power-cut": 4, "store-swapped": 4, "spool-held": 2, "disk-start": 2,
    "broker-clock": 2, "two-gateways": 2, "price-book": 3, "eviction": 2,
    "reprice": 3, "moved": 3, "companions": 4, "disk-companions": 2,
}  # fmt: skip
SHAPING = {"brokers", "kinds", "workers", "rate", "agents", "requests", "seed"}
"""Options that change what a run does; the others only say where to write the results."""

REPLICATED = {
    "leader": 6, "leader-zombie": 2, "two-leaders": 2, "broker-rolling": 2, "worker": 4, "gateway": 4, "zombie": 2,
    "everything": 1,
}  # fmt: skip
SECTIONS = {1: ("kills", "The long run"), 3: ("brokers", "Three brokers, replication 3")}


def plan_of(text: str | None, brokers: int) -> dict[str, int]:
    """Return how often each kind of fault happens."""
    if not text:
        return LONG if brokers == 1 else REPLICATED
    plan = {}
    for part in text.split(","):
        name, _, count = part.partition("=")
        if name not in KINDS:
            sys.exit(f"there is no kind {name!r}; kinds: {', '.join(KINDS)}")
        plan[name] = int(count or 1)
    return plan


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kinds", help=f"name=count,...; kinds: {', '.join(KINDS)}")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=1, help="3: with replication")
    parser.add_argument("--rate", type=float, default=100.0, help="OTLP requests a second")
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--requests", type=int, help="the fleet's whole work; by default it ends with the faults")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--report", type=Path, help="Markdown file whose section is to be replaced")
    parser.add_argument("--section", help="of that file")
    parser.add_argument("--title")
    parser.add_argument("--folder", type=Path, help="where to keep data and logs")
    arguments = parser.parse_args()
    plan = [name for name, count in plan_of(arguments.kinds, arguments.brokers).items() for _ in range(count)]
    if os.geteuid() != 0 and (left_out := sorted(NEEDS_SMALL_DISK & set(plan))):
        say(f"left out, for they mount disks and need root: {', '.join(left_out)}")
        plan = [name for name in plan if name not in NEEDS_SMALL_DISK]
    if not broker_clock.available() and (left_out := sorted(NEEDS_CLOCK & set(plan))):
        say(f"left out, for they need Linux and a C compiler: {', '.join(left_out)}")
        plan = [name for name in plan if name not in NEEDS_CLOCK]
    if arguments.brokers == 1 and (left_out := sorted(NEEDS_BROKERS & set(plan))):
        sys.exit(f"{', '.join(left_out)} need --brokers 3")
    if executable() is None and (left_out := sorted(NEEDS_PROXY & set(plan))):
        sys.exit(f"{', '.join(left_out)} need toxiproxy: TALLYSTREAM_TOXIPROXY names its server")
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="tallystream-chaos-"))
    say(f"{len(plan)} faults in {folder}")
    outcome = run(
        folder, plan, workers=arguments.workers, rate=arguments.rate, seed=arguments.seed,
        clocks=arguments.requests is None, agents=arguments.agents, requests=arguments.requests,
        brokers=arguments.brokers,
    )  # fmt: skip
    if arguments.report:
        told = [
            f"--{name} {shlex.quote(str(value))}"
            for name, value in vars(arguments).items()
            if name in SHAPING and value != parser.get_default(name)
        ]
        command = " ".join(("python -m tests.chaos", *told)) if told else "make chaos"
        section, title = SECTIONS[arguments.brokers]
        text = report.render(outcome, command, arguments.title or title)
        report.write(arguments.report, arguments.section or section, text)
    if not outcome.verdict.exact:
        say(f"logs and data are in {folder}")
        sys.exit(4)
    if arguments.folder is None:
        remove_all_but_ends(folder)


def remove_all_but_ends(folder: Path) -> None:
    """Remove the data of an exact run. The logs of processes that ended by themselves stay, for they need a look."""
    for one in folder.iterdir():
        if one.name == FOLDER:
            say(f"the logs of processes that ended by themselves are in {one}")
        elif one.is_dir():
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink()
    with contextlib.suppress(OSError):  # it holds such logs
        folder.rmdir()


if __name__ == "__main__":
    main()
