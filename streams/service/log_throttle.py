"""A log throttle for events that anyone can trigger at will: logged at first, then at most every few seconds."""

from __future__ import annotations

import structlog

from tallystream.streams.service.clock import Clock

EVERY = 5.0
log = structlog.get_logger()


class LogThrottle:
    """One kind of event. `suppressed` in a line is the number of events since the previous line."""

    def __init__(self, clock: Clock, event: str) -> None:
        self._clock = clock
        self._event = event
        self._next = float("-inf")
        self._suppressed = 0

    def warning(self, **fields: object) -> None:
        """Log the event, unless it has just been logged."""
        now = self._clock.monotonic()
        if now < self._next:
            self._suppressed += 1
            return
        log.warning(self._event, suppressed=self._suppressed, **fields)
        self._next, self._suppressed = now + EVERY, 0
