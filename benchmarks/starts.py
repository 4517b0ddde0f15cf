"""How long commands take that people type, beside a running deployment with a fleet's costs.

    python -m benchmarks.starts [--report docs/benchmarks.md]

Each is run several times in turn, as a process of its own: seconds until it has ended, and its CPU time. Python without
any program is listed for comparison.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import machine, replace_section
from tests.support.product import Product, product

TURNS = 9
COMMANDS = (("--help",), ("status",), ("cost", "sessions"), ("cost", "models"))


def run(argv: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Return how long a command took, and its CPU time, in seconds.

    Raises:
        CalledProcessError: it failed.

    """
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(argv, env=environment, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def measure(running: Product) -> dict[str, list[tuple[float, float]]]:
    """Return the figures of each command."""
    argvs = {"python -c pass": [sys.executable, "-c", "pass"]}
    for command in COMMANDS:
        argv = running.command(*command)
        argvs[f"tallystream {' '.join(command)}"] = argv[:-2] if command == ("--help",) else argv
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in argvs}
    for _ in range(TURNS):
        for name, argv in argvs.items():
            spent[name].append(run(argv, running.environment))
    return spent


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, product(Path(directory) / "data") as running:
        made = Path(directory) / "connection.json"
        made.write_text(running.cli("connections", "create", "codex", "--json"))
        fleet = ("--agents", "20", "--requests", "2000", "--seed", "7", "--client", "mixed")
        running.cli("simulate", "--connection", str(made), *fleet, seconds=300)
        running.cli("wait", "--caught-up", seconds=300)
        spent = measure(running)
    lines = [
        f"{machine()}, load average {os.getloadavg()[0]:.1f}; median of {TURNS} runs.",
        "",
        "| command | seconds | CPU seconds |",
        "|---|---:|---:|",
    ]
    for name, figures in spent.items():
        wall, cpu = (statistics.median(column) for column in zip(*figures, strict=True))
        lines.append(f"| `{name}` | {wall:.2f} | {cpu:.2f} |")
    text = "\n".join(lines)
    print(text)
    if given.report:
        replace_section(given.report, "starts", f"{text}\n")


if __name__ == "__main__":
    main()
