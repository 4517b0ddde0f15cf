"""Counts the instructions of the hot paths, relative to a fixed loop, and compares them with a baseline.

    python -m benchmarks.instructions [--update] [--only CASE]

Seconds depend on the machine and on what else runs there; instructions do not. One process imports everything under
valgrind and forks for each measurement. Each case runs with few and with many rounds, and the difference is what the
additional rounds cost, without imports and warm-up. It is divided by the cost of a reference loop.
`benchmarks/baseline.json` has the ratios; a case that exceeds its ratio by more than the tolerance fails. Builds of
Python differ by more than the tolerance, so the baseline names its build, and others are measured but not judged. After
a change that is meant to cost more, or that has made something cheaper, run it with `--update` and commit the file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

BASELINE = Path(__file__).with_name("baseline.json")
TOLERANCE = 0.05
FEW, MANY = 1, 3
AT_ONCE = os.cpu_count() or 1
_COUNTED = re.compile(r"==(\d+)== I +refs: +([0-9,]+)")


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


REFERENCE = "reference"
CASES: dict[str, Callable[[int], int]] = {
    REFERENCE: reference,
    "normalise, protobuf": lambda rounds: _normalise(False, rounds),
    "normalise, JSON": lambda rounds: _normalise(True, rounds),
    "request, protobuf": lambda rounds: _request(False, rounds),
    "request, JSON": lambda rounds: _request(True, rounds),
    "fold, message of 5 events": _fold,
}
"""Each runs so many rounds and returns how many units of work they were."""


def count(names: Sequence[str]) -> None:
    """Run each case in forks of this process, and print its name, rounds, units of work and process id as JSON."""
    running: set[int] = set()
    for name in names:
        CASES[name](1)  # imports what it needs
        for rounds in (FEW, MANY):
            if len(running) == AT_ONCE:
                running.discard(_ended())
            child = os.fork()
            if not child:
                _child(name, rounds)
            running.add(child)
    while running:
        running.discard(_ended())


def _child(name: str, rounds: int) -> None:
    status = 1
    try:
        units = CASES[name](rounds)
        line = json.dumps({"case": name, "rounds": rounds, "units": units, "pid": os.getpid()})
        os.write(1, f"{line}\n".encode())
        status = 0
    finally:
        os._exit(status)


def _ended() -> int:
    child, status = os.wait()
    if status:
        raise SystemExit("a case failed, see above")
    return child


def costs(names: Sequence[str]) -> dict[str, float]:
    """Return the instructions of one unit of work of each case.

    Raises:
        SystemExit: a case failed; the message is its error output.

    """
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "valgrind"
        argv = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        argv += [f"--log-file={notes}", sys.executable, "-m", __spec__.name, "--count", *names]
        environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=1800, check=False)
        if done.returncode:
            raise SystemExit(f"{done.stdout[-500:]}{done.stderr[-2000:]}{notes.read_text()[-500:]}")
        counted = {int(pid): int(number.replace(",", "")) for pid, number in _COUNTED.findall(notes.read_text())}
    runs: dict[tuple[str, int], tuple[int, int]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            run = json.loads(line)
            runs[run["case"], run["rounds"]] = counted[run["pid"]], run["units"]
    found = {}
    for name in names:
        (few, less), (many, more) = runs[name, FEW], runs[name, MANY]
        found[name] = (many - few) / (more - less)
    return found


def compare(ratios: dict[str, float], baseline: dict[str, Any]) -> list[str]:
    """Return the cases that cost more than the baseline and its tolerance allow."""
    known = baseline["ratios"]
    return [case for case, ratio in ratios.items() if case in known and ratio > known[case] * (1 + TOLERANCE)]


def main() -> int:
    """Measure, print a table, compare; return 1 when a case has become more expensive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the baseline")
    parser.add_argument("--only", default="", help="measure cases that contain this text")
    parser.add_argument("--count", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        count(given.count)
        return 0
    if shutil.which("valgrind") is None:
        print("valgrind is not installed: `make tools` installs it")
        return 2
    baseline = json.loads(BASELINE.read_text())
    instructions = costs([REFERENCE, *(case for case in CASES if case != REFERENCE and given.only in case)])
    unit = instructions.pop(REFERENCE)
    ratios = {case: round(number / unit, 5) for case, number in instructions.items()}
    print(f"{'':28} {'instructions':>14} {'ratio':>8} {'change':>9}")
    for case, ratio in ratios.items():
        before = baseline["ratios"].get(case)
        change = "" if before is None else f"{ratio / before - 1:+9.1%}"
        print(f"{case:28} {instructions[case]:14,.0f} {ratio:8.4f} {change:>9}")
    if given.update:
        BASELINE.write_text(json.dumps({"python": sys.version, "ratios": baseline["ratios"] | ratios}, indent=2) + "\n")
        return 0
    if baseline["python"] != sys.version:
        print(f"not judged: the baseline is that of Python {baseline['python']}, this is {sys.version}")
        return 0
    dearer = compare(ratios, baseline)
    for case in dearer:
        print(f"{case} costs more than {TOLERANCE:.0%} above the baseline")
    return 1 if dearer else 0


if __name__ == "__main__":
    sys.exit(main())
