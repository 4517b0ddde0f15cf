"""UTC hours by event time. An hour is an int: whole hours since 1970-01-01T00:00:00Z."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

HOUR_NS = 3_600_000_000_000
HOUR_MS = 3_600_000
GRACE_NS = HOUR_NS
"""An hour is final this long after its end: events that arrive later produce a higher version and count as late."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def hour_of(at_ns: int) -> int:
    """Return the hour of a time in ns since the epoch."""
    return at_ns // HOUR_NS


@lru_cache(maxsize=16_384)
def hour_iso(hour: int) -> str:
    """Return the hour's start: 495_000 -> "2026-06-21T00:00:00Z"."""
    return (_EPOCH + timedelta(hours=hour)).strftime("%Y-%m-%dT%H:00:00Z")


@lru_cache(maxsize=16_384)
def hour_from_iso(text: str) -> int:
    """Return the hour that `hour_iso` wrote."""
    at = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return int((at - _EPOCH).total_seconds()) // 3600


def last_final_hour(now_ns: int) -> int:
    """Return the newest hour that is final at a time in ns since the epoch."""
    return (now_ns - GRACE_NS) // HOUR_NS - 1


def is_final(hour: int, now_ns: int) -> bool:
    """Tell whether an hour is final at a time in ns since the epoch."""
    return hour <= last_final_hour(now_ns)
