"""Many invalid requests must not flood the log, but must still be reported."""

from __future__ import annotations

from structlog.testing import capture_logs
from tests.support.clock import HandClock

from tallystream.streams.service.log_throttle import EVERY, LogThrottle


def test_first_event_is_logged_and_the_rest_counted() -> None:
    clock = HandClock()
    seldom = LogThrottle(clock, "not_http")
    with capture_logs() as lines:
        for _ in range(1000):
            seldom.warning(status=400)
        clock.seconds += EVERY
        seldom.warning(status=400)
        clock.seconds += EVERY
        seldom.warning(status=431)
    assert [(line["event"], line["status"], line["suppressed"]) for line in lines] == [
        ("not_http", 400, 0),
        ("not_http", 400, 999),
        ("not_http", 431, 0),
    ]
