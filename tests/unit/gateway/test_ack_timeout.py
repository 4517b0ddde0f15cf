"""The timeout for acknowledgements adapts to their duration, within its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.gateway.delivery.ack_timeout import AckTimeout


def test_ack_timeout_stays_at_its_minimum_with_a_fast_kafka() -> None:
    timeout = AckTimeout(0.25, 1.0)
    for _ in range(100):
        timeout.measured(0.01)
    assert timeout.seconds == 0.25


def test_ack_timeout_follows_a_slow_kafka() -> None:
    timeout = AckTimeout(0.25, 1.0)
    for _ in range(20):
        timeout.measured(0.3)
    assert 0.6 <= timeout.seconds <= 1.0


def test_ack_timeout_recovers_soon_after_an_outage() -> None:
    timeout = AckTimeout(0.25, 1.0)
    timeout.measured(0.01)
    timeout.measured(600.0)
    for _ in range(30):
        timeout.measured(0.01)
    assert timeout.seconds == 0.25


@given(st.lists(st.floats(0, 1e6)))
def test_ack_timeout_stays_within_its_bounds(measured: list[float]) -> None:
    timeout = AckTimeout(0.25, 1.0)
    for one in measured:
        timeout.measured(one)
        assert 0.25 <= timeout.seconds <= 1.0
