"""How long the supervisor waits before it restarts a component."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.service.backoff import Backoff, FailureBackoff


def test_backoff_doubles_to_its_limit_and_resets_after_a_long_run() -> None:
    backoff = FailureBackoff(Backoff(0.5, 3.0), 30.0)
    assert [backoff.after_run(1.0) for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.after_run(30.0) == 0.5
    assert backoff.after_run(29.9) == 1.0


@given(st.lists(st.floats(0, 100), max_size=50))
def test_backoff_stays_within_its_bounds(runs: list[float]) -> None:
    backoff = FailureBackoff(Backoff(0.2, 10.0), 30.0)
    assert all(0.2 <= backoff.after_run(ran) <= 10.0 for ran in runs)
