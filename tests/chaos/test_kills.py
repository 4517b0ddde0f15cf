"""Bounded chaos: every test run kills the product's processes at least a dozen times, and everything stays exact."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chaos import broker_clock
from tests.chaos.campaign import run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

PLAN = (
    *["worker"] * 2,
    *["gateway"] * 2,
    "workers",
    "broker",
    "everything",
    "zombie",
    "poison",
    "power-cut",
    "store-swapped",
    "spool-held",
    *(["broker-clock"] if broker_clock.available() else []),
)


def test_rows_are_exact_under_constant_kills(tmp_path: Path) -> None:
    outcome = run(tmp_path / "c", PLAN, seed=11, clocks=True, between=(0.1, 0.8))
    assert outcome.verdict.exact, str(outcome.verdict)
    assert sum(blow.kills for blow in outcome.blows) >= 12
    assert all(blow.unacked > 0 for blow in outcome.blows if blow.kills or blow.kind == "zombie"), outcome.blows
