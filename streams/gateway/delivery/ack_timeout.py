"""How long a request waits for Kafka's ack before it goes to the spool: a multiple of the current ack times."""

from __future__ import annotations

GAIN = 1 / 8
DEVIATION_GAIN = 1 / 4
"""As in TCP's retransmission timer (RFC 6298, 2.3), with twice the mean as the minimum."""


class AckTimeout:
    """`seconds` is never below `least` nor above `most`, whatever was measured.

    With a fixed timeout, a Kafka whose acks always take a little longer would be considered unavailable in every round,
    and every message would be both sent and fsynced.
    """

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = max(least, most)
        self._mean = 0.0
        self._deviation = 0.0

    @property
    def seconds(self) -> float:
        """Return the timeout."""
        return min(self._most, max(self._least, self._mean + max(4 * self._deviation, self._mean)))

    def measured(self, seconds: float) -> None:
        """Record the duration of an ack in seconds. An ack that came after an outage counts as `most`."""
        seconds = min(seconds, self._most)
        if not self._mean:
            self._mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += DEVIATION_GAIN * (abs(seconds - self._mean) - self._deviation)
        self._mean += GAIN * (seconds - self._mean)
