"""The timeout follows what acks take, within its bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tallystream.streams.gateway.delivery.ack_timeout import AckTimeout


def test_a_quick_kafka_leaves_it_at_its_least() -> None:
    timeout = AckTimeout(0.25, 1.0)
    for _ in range(100):
        timeout.measured(0.01)
    assert timeout.seconds == 0.25


def test_a_kafka_that_steadily_takes_longer_is_waited_for() -> None:
    timeout = AckTimeout(0.25, 1.0)
    for _ in range(20):
        timeout.measured(0.3)
    assert 0.6 <= timeout.seconds <= 1.0


def test_an_outage_is_forgotten_soon() -> None:
    timeout = AckTimeout(0.25, 1.0)
    timeout.measured(0.01)
    timeout.measured(600.0)
    for _ in range(30):
        timeout.measured(0.01)
    assert timeout.seconds == 0.25


@given(st.lists(st.floats(0, 1e6)))
def test_it_is_never_outside_its_bounds(measured: list[float]) -> None:
    timeout = AckTimeout(0.25, 1.0)
    for one in measured:
        timeout.measured(one)
        assert 0.25 <= timeout.seconds <= 1.0
