"""Rate limits of Port: a steady rate with bursts above it, and the counts in its headers.

A route family may be called `limit` times in each period of 300 s. Within it, calls are taken from a token
bucket of size `burst` that fills at limit / 300 per second. A client that exceeds the steady rate is therefore refused
once it has used up the burst, even if calls of the period remain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PERIOD = 300
DEFAULTS = {
    "entities-bulk": (35_000, 3_500),
    "entities": (35_000, 3_500),
    "search": (35_000, 3_500),
    "entity-upsert": (10_000, 200),
    "blueprints": (15_000, 1_500),
    "other": (15_000, 1_500),
    "unauthenticated": (100, 10),
}
"""Calls per period and burst, by route family, for an organisation, as documented by Port."""


@dataclass
class _Family:
    limit: int
    burst: int
    tokens: float
    filled_at: float
    began: float
    used: int = 0
    refused: int = 0
    calls: int = 0


class RateLimits:
    """The limits of one organisation. Times are seconds of a clock that never goes back."""

    def __init__(self, now: float) -> None:
        self._families = {name: _Family(limit, burst, burst, now, now) for name, (limit, burst) in DEFAULTS.items()}

    def add(self, name: str, limit: int, burst: int, now: float) -> None:
        """Add a family."""
        self._families[name] = _Family(limit, burst, burst, now, now)

    def configure(self, name: str, limit: int, burst: int) -> None:
        """Change a family's limit and reset its counts.

        Raises:
            KeyError: the family is not known.

        """
        have = self._families[name]
        self._families[name] = _Family(limit, burst, burst, have.filled_at, have.filled_at)

    def take(self, name: str, now: float, wall: float) -> tuple[bool, dict[str, str]]:
        """Count a call; return whether it is allowed, and the headers to answer with (`wall`: since the epoch)."""
        family = self._families[name]
        family.calls += 1
        if now - family.began >= PERIOD:
            family.began += (now - family.began) // PERIOD * PERIOD
            family.used = 0
        family.tokens = min(family.burst, family.tokens + (now - family.filled_at) * family.limit / PERIOD)
        family.filled_at = now
        allowed = family.used < family.limit and family.tokens >= 1
        if allowed:
            family.used += 1
            family.tokens -= 1
        else:
            family.refused += 1
        return allowed, {
            "x-ratelimit-period": str(PERIOD),
            "x-ratelimit-limit": str(family.limit),
            "x-ratelimit-remaining": str(family.limit - family.used),
            "x-ratelimit-reset": str(int(wall + family.began + PERIOD - now)),
        }

    def state(self) -> dict[str, Any]:
        """Return each family's counts since it was configured."""
        return {
            name: {"limit": one.limit, "burst": one.burst, "calls": one.calls, "refused": one.refused}
            for name, one in self._families.items()
        }
