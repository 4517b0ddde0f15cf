"""Every benchmark that has a goal or a section of a page, one after the other: what `make bench` does.

    python -m benchmarks.everything [--quick] [--only NAME ...] [--pages DIR]

The peers are built before anything is measured. Each part is a process of its own and writes its section when it has
ended, so a part that fails costs no other part its figures; at the end it says what was measured and what was not, and
exits with 1 if a part failed. `--quick` measures everything so shortly that the figures mean nothing: it shows within
minutes whether every part works, and writes only to copies of the pages.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tallystream.streams.embedded.jars import default_cache_dir

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs"
BENCHMARKS, CHAOS = "benchmarks.md", "chaos.md"


class Part(NamedTuple):
    """A benchmark: its module, its arguments, those that make it short, the page it writes, and about how long it
    takes.
    """

    module: str
    arguments: tuple[str, ...]
    short: tuple[str, ...]
    page: str
    minutes: float


def parts(collector: Path, streams: Path) -> tuple[Part, ...]:
    """Return the parts, given where the peers are."""
    beside = ("--collector", str(collector / "otelcol" / "otelcol"))
    return (
        Part("gateway", ("--compiled", *beside), ("--repeats", "1", "--seconds", "0.5"), BENCHMARKS, 8),
        Part("losses", beside, ("--seconds", "1"), BENCHMARKS, 1),
        Part(
            "worker", ("--compiled", "--streams", str(streams)), ("--repeats", "1", "--events", "20000"), BENCHMARKS, 16
        ),
        Part("freshness", (), ("--repeats", "1", "--seconds", "1"), BENCHMARKS, 3),
        Part("history", (), ("--turns", "1", "--rows", "2000"), BENCHMARKS, 5),
        Part("growth", (), ("--connections", "10", "20"), BENCHMARKS, 1),
        Part("scaling", (), ("--repeats", "1", "--seconds", "1", "--events", "60000"), BENCHMARKS, 9),
        Part("starts", (), (), BENCHMARKS, 1),
        Part("neighbours", (), ("--repeats", "1", "--seconds", "1"), BENCHMARKS, 2),
        Part("hostile", (), ("--shape", "empty scopes"), BENCHMARKS, 3),
        Part("recovery", ("--compiled",), ("--rows", "2000"), CHAOS, 4),
    )


def build(collector: Path, streams: Path) -> None:
    """Build the peers, which takes some minutes the first time.

    Raises:
        subprocess.CalledProcessError: a build failed; it has said why.

    """
    for script, folder in (("build.sh", collector), ("build-streams.sh", streams)):
        subprocess.run([ROOT / "benchmarks" / "peers" / script, folder], check=True)


def measure(part: Part, pages: Path, *, quick: bool) -> bool:
    """Run a part; return whether it succeeded."""
    argv = [sys.executable, "-m", f"benchmarks.{part.module}", *part.arguments, *(part.short if quick else ())]
    return subprocess.run([*argv, "--report", pages / part.page], cwd=ROOT, check=False).returncode == 0


def run(chosen: Sequence[Part], pages: Path, *, quick: bool) -> int:
    """Measure the parts in order and tell how each ended; return the exit code."""
    outcomes: list[str] = []
    failed = 0
    for number, part in enumerate(chosen, 1):
        left = "" if quick else f", about {sum(one.minutes for one in chosen[number - 1 :]):.0f} minutes to go"
        print(f"\n{part.module} ({number} of {len(chosen)}{left})", flush=True)
        began = time.monotonic()
        succeeded = measure(part, pages, quick=quick)
        failed += not succeeded
        ended = "measured" if succeeded else "FAILED, its section is as it was"
        outcomes.append(f"  {part.module:<12} {ended} ({(time.monotonic() - began) / 60:.1f} min)")
    print("\n" + "\n".join(outcomes))
    print(f"Written to {pages}." if not failed else f"{failed} of {len(chosen)} failed; the others are in {pages}.")
    return 1 if failed else 0


def main() -> int:
    """Build the peers and measure."""
    cache = default_cache_dir()
    collector, streams = cache.with_name("tallystream-collector"), cache.with_name("tallystream-streams")
    known = parts(collector, streams)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=[part.module for part in known], metavar="NAME")
    parser.add_argument("--pages", type=Path, default=PAGES, help="the directory of the pages")
    given = parser.parse_args()
    pages: Path = given.pages
    if given.quick:
        if pages.resolve() == PAGES:
            parser.error("--quick needs --pages, a directory for copies: its figures mean nothing")
        pages.mkdir(parents=True, exist_ok=True)
        for name in (BENCHMARKS, CHAOS):
            shutil.copy(PAGES / name, pages / name)
    build(collector, streams)
    return run([part for part in known if not given.only or part.module in given.only], pages, quick=given.quick)


if __name__ == "__main__":
    sys.exit(main())
