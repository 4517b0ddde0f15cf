"""A rolling restart with static membership moves no partition, reads nothing again and stays exact."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chaos.rolling import run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SESSION_TIMEOUT = 30.0
"""Longer than a start takes on a busy machine; docs/chaos.md has the figures for the default."""


def test_rolling_restart_moves_no_partitions_and_keeps_local_state(tmp_path: Path) -> None:
    done = run(tmp_path / "r", SESSION_TIMEOUT, rate=40.0, warm_up=1.0)
    assert done.verdict.exact, str(done.verdict)
    assert [one.worker for one in done.restarts] == ["worker-1", "worker-2", "worker-3"]
    assert [one.exit_code for one in done.restarts] == [0, 0, 0]
    assert [one.rebalanced for one in done.restarts] == [0, 0, 0], "the others did not notice"
    assert [one.recovered for one in done.restarts] == [0, 0, 0], "each store had everything"
    assert all(one.length > 0 for one in done.restarts), "there was something to read"
    assert sorted(done.stops) == list(range(6))
    assert max(done.stops.values()) > 0, "messages waited for their rows"
