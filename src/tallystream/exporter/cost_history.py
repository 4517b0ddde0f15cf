"""Compares the cost of an hour with the same hour of earlier days, as input for anomaly alerts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from tallystream.schemas.money import PICO

DAYS = 14
"""Number of earlier days to compare with."""


@dataclass(frozen=True)
class HourHistory:
    """Costs in dollars, as floats. They are for display and must not be added up."""

    cost: float
    days: int
    """Number of earlier days with data, which begins with the first hour that has any cost."""
    mean: float
    deviation: float
    """Population standard deviation."""
    most: float


def history(hours: Mapping[tuple[int, str], int], hour: int) -> HourHistory:
    """Compare `hour` with the same hour of earlier days; `hours` are pico-dollars by (hour, connection).

    An hour without cost counts as 0 if it is after the first hour with any cost.
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
