"""Runs fuzz targets: `python -m tests.fuzz [TARGET...] --seconds 600`.

With atheris (`pip install atheris`) coverage guides the mutations; without it they are random. A finding is written to
`build/fuzz` and its traceback is printed; the exit code is 1.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOUND = Path("build") / "fuzz"
ATHERIS = importlib.util.find_spec("atheris") is not None


def main() -> int:
    """Run each target in a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*")
    parser.add_argument("--seconds", type=float, default=600.0, help="for each target")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        return (guided if ATHERIS else blind)(given.targets[0], given.seconds)
    from tests.fuzz.targets import TARGETS

    FOUND.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in given.targets or TARGETS:
        argv = [sys.executable, "-m", "tests.fuzz", name, "--alone", "--seconds", str(given.seconds)]
        done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
        failed += done.returncode != 0
        said = (done.stdout + done.stderr).strip().splitlines()
        kept = (
            finding(said) if done.returncode else [line for line in said if line.startswith(("Done", "DONE", "stat::"))]
        )
        print(f"{name}: {'FOUND' if done.returncode else 'nothing found'}", *kept, sep="\n  ", flush=True)
    return 1 if failed else 0


def finding(said: list[str]) -> list[str]:
    """Return what says most about a finding: atheris prints the exception before its own report of the run."""
    begins = [at for at, line in enumerate(said) if "Uncaught Python exception" in line or line.startswith("Traceback")]
    return (said[begins[0] :] if begins else said)[-60:]


def guided(name: str, seconds: float) -> int:
    """Let atheris guide the mutations."""
    import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

    with atheris.instrument_imports(include=["tallystream"]):
        from tests.fuzz.seeds import seeds
        from tests.fuzz.targets import TARGETS, book
    book()
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(seeds(name)):
            (Path(corpus) / str(number)).write_bytes(seed)
        atheris.Setup(
            [
                name, f"-max_total_time={int(seconds)}", f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1",
                "-timeout=20", "-rss_limit_mb=2048", corpus,
            ],
            TARGETS[name],
        )  # fmt: skip
        atheris.Fuzz()
    return 0


def blind(name: str, seconds: float) -> int:
    """Change seeds at random: bytes, cuts, repeats, and pieces of other seeds."""
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import TARGETS

    target, rng, begun = TARGETS[name], random.Random(time.time_ns()), list(seeds(name)) or [b""]
    until, runs = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        data = mutated(rng, rng.choice(begun), begun)
        try:
            target(data)
        except Exception:
            (FOUND / f"{name}-{runs}").write_bytes(data)
            raise
        runs += 1
    print(f"Done: {runs} runs in {seconds:g} s")
    return 0


def mutated(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Return data with a few changes."""
    out = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(5):
            case 0:
                out[at : at + length] = rng.randbytes(length)
            case 1:
                del out[at : at + length]
            case 2:
                out[at:at] = out[at : at + length] * rng.choice((1, 2, 100))
            case 3:
                other = rng.choice(others)
                start = rng.randrange(len(other) + 1)
                out[at:at] = other[start : start + length]
            case _ if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
    return bytes(out)


if __name__ == "__main__":
    sys.exit(main())
