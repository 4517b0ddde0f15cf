"""The compiled form passes the tests of the modules that are compiled, and says which form it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.compiled import ROOT, compiled_copy, paths

import tallystream
from tallystream.schemas.compiled import COMPILED

TESTED = (
    "tests/unit/otlp",
    "tests/unit/clients",
    "tests/unit/schemas",
    "tests/unit/gateway",
    "tests/unit/pricing",
    "tests/unit/session_cost",
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("there is no C compiler here")
    # without optimisation, because the C compiler's share of the time is the larger one
    return compiled_copy(tmp_path_factory.mktemp("compiled") / "project", optimise=0)


def run(copy: Path, *args: str) -> str:
    """Run Python on the compiled copy; return what it prints."""
    environment = os.environ | {"PYTHONPATH": paths(copy), "TALLYSTREAM_TEST_PROFILE": "quick"}
    done = subprocess.run(
        [sys.executable, *args], cwd=copy, env=environment, capture_output=True, text=True, check=False, timeout=1500
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.thorough
@pytest.mark.timeout(1800)  # on a busy machine it takes minutes
def test_compiled_form_passes_the_same_tests(copy: Path) -> None:
    program = "import tallystream.streams.gateway.http.handler as h, tallystream.schemas.compiled as c\n"
    assert run(copy, "-c", f"{program}print(c.COMPILED, h.__file__)").startswith(f"True {copy}")
    shown = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not thorough", *TESTED)
    assert int(re.findall(r"([0-9]+) passed", shown)[0]) > 1_000
    assert run(copy, "-m", "tallystream", "--version") == f"tallystream {tallystream.__version__} (compiled)\n"


def test_sources_are_interpreted_unless_they_were_compiled() -> None:
    assert not COMPILED
    assert not list(ROOT.glob("s*/**/*.so"))
