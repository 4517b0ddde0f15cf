"""A rolling restart with static membership moves nothing, reads nothing again and stays exact."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.chaos.rolling import run

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]


def test_nothing_moves_and_nothing_recovers_from_scratch(tmp_path: Path) -> None:
    """The session timeout is longer than a start takes on any machine; how long it takes is in docs/chaos.md."""
    done = run(tmp_path / "r", 60.0, workers=2, warm_up=2.0)
    assert done.verdict.exact, str(done.verdict)
    assert [one.exit_code for one in done.restarts] == [0, 0]
    assert [one.rebalanced for one in done.restarts] == [0, 0]
    for one in done.restarts:
        assert one.recovered * 10 <= one.length, "it read only what its store did not have"
