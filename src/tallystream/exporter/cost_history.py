"""What an hour cost, and what the same hour of earlier days did: the inputs of an anomaly alert, no verdict."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from tallystream.schemas.money import PICO

DAYS = 14
"""Earlier days looked at."""


@dataclass(frozen=True)
class HourHistory:
    """Costs in dollars, as floats: for looking at, never for adding up."""

    cost: float
    days: int
    """Earlier days that are known: since the first hour with any cost."""
    mean: float
    deviation: float
    """Population standard deviation."""
    most: float


def history(hours: Mapping[tuple[int, str], int], hour: int) -> HourHistory:
    """Return `hour` beside the same hour of the days before; `hours` are pico-dollars by (hour, connection).

    An hour without cost, after the first with any, counts as 0.
    """
    totals: dict[int, int] = {}
    for (at, _), pico in hours.items():
        totals[at] = totals.get(at, 0) + pico
    first = min(totals, default=hour)
    past = [totals.get(at, 0) / PICO for day in range(1, DAYS + 1) if (at := hour - 24 * day) >= first]
    return HourHistory(
        totals.get(hour, 0) / PICO,
        len(past),
        statistics.fmean(past) if past else 0.0,
        statistics.pstdev(past) if past else 0.0,
        max(past, default=0.0),
    )
