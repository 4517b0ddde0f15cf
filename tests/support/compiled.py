"""Makes a copy of the project with the hot modules compiled, so that no stale library ever lies beside the sources.

    python -m tests.support.compiled build/compiled

Whatever runs with `paths()` of the copy as PYTHONPATH uses the compiled form.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = ("agents", "schemas", "streams", "src", "tests", "benchmarks", "docs", "deploy", "examples", "requirements")
_NOT_COPIED = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")


def paths(directory: Path) -> str:
    """Return PYTHONPATH for the copy."""
    return os.pathsep.join([str(directory / "src"), str(directory)])


def compiled_copy(directory: Path, *, optimise: int = 3) -> Path:
    """Copy the project into an empty or missing directory and compile it there; return the directory.

    Raises:
        RuntimeError: mypyc or the C compiler failed; the message has what they printed.

    """
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, directory / name, symlinks=True, ignore=_NOT_COPIED)
    for file in ROOT.iterdir():
        if file.is_file():
            shutil.copy(file, directory)
    done = subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", str(os.cpu_count() or 1)],
        cwd=directory,
        env=os.environ | {"TALLYSTREAM_COMPILE": "1", "TALLYSTREAM_COMPILE_LEVEL": str(optimise), "MYPYPATH": "src"},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-4000:])
    return directory


def main() -> None:
    """Compile a copy and say how to use it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory.resolve()
    if directory.exists():
        shutil.rmtree(directory)
    compiled_copy(directory)
    sys.stdout.write(f"PYTHONPATH={paths(directory)}\n")


if __name__ == "__main__":
    main()
