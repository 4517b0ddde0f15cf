"""Delays between attempts: doubled up to a limit, with jitter, and reset after a successful period."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.service.backoff import Backoff, FailureBackoff


def test_delays_double_to_their_limit() -> None:
    assert [Backoff(0.5, 3.0).delay(failures) for failures in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(st.floats(0.001, 100), st.floats(1, 1000), st.integers(0, 10**9))
def test_jittered_delay_stays_in_the_upper_half(first: float, factor: float, failures: int) -> None:
    longest = first * factor
    whole = Backoff(first, longest).delay(failures)
    assert 0 < whole <= longest
    assert whole / 2 <= Backoff(first, longest, jitter=True).delay(failures) <= whole


@pytest.mark.parametrize(("at_least", "delay"), [(0.0, 1.0), (0.5, 1.0), (4.0, 4.0), (600.0, 600.0)])
def test_requested_delay_of_a_server_is_respected(at_least: float, delay: float) -> None:
    assert Backoff(1.0, 30.0).delay(0, at_least=at_least) == delay


def test_backoff_resets_after_a_long_run_and_not_after_waiting() -> None:
    now = [100.0]
    failures = FailureBackoff(Backoff(1.0, 8.0), steady=60.0, now=lambda: now[0])
    assert failures.after_failure() == 1.0
    now[0] += 1.0
    assert failures.after_failure() == 2.0
    now[0] += 2.0 + 59.9
    assert failures.after_failure() == 4.0
    now[0] += 4.0 + 60.0
    assert failures.after_failure() == 1.0
