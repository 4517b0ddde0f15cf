"""Requests around midnight that are billed on one day and seen on the other. Pure.

If the provider reports hourly usage, the two hours around midnight are compared: what the last hour of a day lacks and
the first of the next has too much (or the reverse) has moved. Without it, the days' whole gaps bound it, and so do the
tokens that were seen in those two hours.
"""

from __future__ import annotations


def moved_by_hours(last_billed: int, last_seen: int, first_billed: int, first_seen: int) -> int:
    """Return tokens billed in the hour before midnight and seen in the one after; negative: the other way."""
    return _opposite(last_billed - last_seen, first_billed - first_seen)


def moved_by_days(gap: int, next_gap: int, last_seen: int, first_seen: int) -> int:
    """Return tokens billed on a day and seen on the next by both days' gaps (billed - seen); negative: the reverse."""
    moved = _opposite(gap, next_gap)
    return min(moved, first_seen) if moved >= 0 else -min(-moved, last_seen)


def _opposite(before: int, after: int) -> int:
    if before > 0 > after:
        return min(before, -after)
    if before < 0 < after:
        return -min(-before, after)
    return 0
