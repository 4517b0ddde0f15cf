"""Counts the instructions of the hot paths, relative to a fixed loop, and compares them with a baseline.

    python -m benchmarks.instructions [--update] [--only CASE]

Seconds depend on the machine and on what else runs there; instructions do not. Each case runs under valgrind with few
and with many rounds, and the difference is what the additional rounds cost, without imports and warm-up. It is divided
by the cost of a reference loop, so that another build of Python shifts both. `benchmarks/baseline.json` has the ratios;
a case that exceeds its ratio by more than the tolerance fails. After a change that is meant to cost more, or that has
made something cheaper, run it with `--update` and commit the file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.05
FEW, MANY = 1, 3
_COUNTED = re.compile(r"I +refs: +([0-9,]+)")


def reference(rounds: int) -> int:
    """Run a loop of what Python programs mostly do: calls, attributes, dicts, texts and integers."""

    class Point:
        __slots__ = ("x",)

        def __init__(self, x: int) -> None:
            self.x = x

        def moved(self, by: int) -> Point:
            return Point(self.x + by)

    seen: dict[str, int] = {}
    for _ in range(rounds):
        point = Point(0)
        for step in range(2_000):
            point = point.moved(step)
            name = f"key-{step % 100}".upper()
            seen[name] = seen.get(name, 0) + point.x
    return rounds


# Each case imports what it needs, because imports are the larger part of the time under valgrind.
def _normalise(json_: bool, rounds: int) -> int:
    from benchmarks.normalise import bodies

    from tallystream.schemas.clients import normalise_logs
    from tallystream.schemas.otlp import Encoding
    from tallystream.schemas.packing import messages

    encoding = Encoding.JSON if json_ else Encoding.PROTOBUF
    made = bodies(encoding, 24, 2)
    for _ in range(rounds):
        for body in made:
            for pack in normalise_logs(body, encoding).packs:
                list(messages(pack, "codex-7f3a", str))
    return rounds * len(made)


def _request(json_: bool, rounds: int) -> int:
    from benchmarks.handler import serve

    from tallystream.schemas.otlp import Encoding

    return serve(Encoding.JSON if json_ else Encoding.PROTOBUF, rounds)


def _fold(rounds: int) -> int:
    from benchmarks.usage_messages import messages as usage_messages
    from tests.support.stepped_fold import NOW, Message, Stepped, session_cost

    one = Stepped(0, session_cost())
    count = 200
    for done in range(rounds):
        made = [
            Message(done * count + offset, value, key)
            for offset, (key, value) in enumerate(usage_messages(count * 5, 5, seed=done, now=NOW, sessions=40))
        ]
        for start in range(0, count, 50):
            one.fold(made[start : start + 50])
            one.commit()
    return rounds * count


CASES: dict[str, Callable[[int], int]] = {
    "reference": reference,
    "normalise, protobuf": lambda rounds: _normalise(False, rounds),
    "normalise, JSON": lambda rounds: _normalise(True, rounds),
    "request, protobuf": lambda rounds: _request(False, rounds),
    "request, JSON": lambda rounds: _request(True, rounds),
    "fold, message of 5 events": _fold,
}
"""Each runs so many rounds and returns how many units of work they were."""


def counted(case: str, rounds: int) -> tuple[int, int]:
    """Return the instructions of a process that runs a case, and its units of work."""
    argv = [
        "valgrind",
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
        sys.executable,
        "-m",
        __spec__.name,
    ]
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*argv, "--run", case, "--rounds", str(rounds)], env=environment, capture_output=True, text=True, timeout=900,
        check=False,
    )  # fmt: skip
    found = _COUNTED.search(done.stderr)
    if done.returncode or found is None:
        raise SystemExit(f"{case}: {done.stderr[-2000:]}")
    return int(found[1].replace(",", "")), int(done.stdout.split()[-1])


def cost(case: str) -> float:
    """Return the instructions of one unit of work."""
    few, less = counted(case, FEW)
    many, more = counted(case, MANY)
    return (many - few) / (more - less)


def main() -> int:
    """Measure, print a table, compare; return 1 when a case has become more expensive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument("--only", help="measure cases that contain this text")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(CASES[given.run](given.rounds))
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: `make tools` installs it")
        return 2
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"ratios": {}}
    unit = cost("reference")
    ratios: dict[str, float] = {}
    dearer = []
    print(f"{'':28} {'instructions':>14} {'ratio':>8} {'baseline':>9}")
    for case in CASES:
        if case == "reference" or (given.only and given.only not in case):
            continue
        instructions = cost(case)
        ratios[case] = round(instructions / unit, 5)
        before = baseline["ratios"].get(case)
        change = "" if before is None else f"{ratios[case] / before - 1:+9.1%}"
        print(f"{case:28} {instructions:14,.0f} {ratios[case]:8.4f} {change:>9}", flush=True)
        if before is not None and ratios[case] > before * (1 + TOLERANCE):
            dearer.append(case)
    if given.update:
        version = platform.python_version()
        BASELINE.write_text(json.dumps({"python": version, "ratios": baseline["ratios"] | ratios}, indent=2) + "\n")
        return 0
    for case in dearer:
        print(f"{case} costs more than {TOLERANCE:.0%} above the baseline of Python {baseline['python']}")
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
