"""No hot path has become more expensive than the committed baseline says, counted in instructions."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from benchmarks.instructions import BASELINE, CASES, REFERENCE, TOLERANCE, compare


def test_a_tenth_more_is_too_much_and_the_baseline_is_not() -> None:
    baseline = json.loads(BASELINE.read_text())
    ratios = baseline["ratios"]
    assert ratios.keys() == CASES.keys() - {REFERENCE}
    assert compare(ratios, baseline) == []
    for case in ratios:
        assert compare(ratios | {case: ratios[case] * 1.1}, baseline) == [case]
    assert compare({case: ratio * (1 + TOLERANCE / 2) for case, ratio in ratios.items()}, baseline) == []


@pytest.mark.thorough
@pytest.mark.timeout(1_800)
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed: make tools")
def test_hot_paths_cost_what_the_baseline_says() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.instructions"], capture_output=True, text=True, check=False, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(case in done.stdout for case in CASES if case != REFERENCE), done.stdout
