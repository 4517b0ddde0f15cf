"""The sums of a bucket, the same everywhere: one list of ints, in the order of these indices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tallystream.schemas.money import to_usd

(
    REQUESTS,
    INPUT,
    READ,
    WRITE_5M,
    WRITE_1H,
    OUTPUT,
    REASONING,
    TOOL,
    COST,
    UNPRICED,
    REPORTED,
    REPORTS,
    LATE,
    INCONSISTENT,
) = range(14)
"""COST and REPORTED are pico-dollars; REPORTS counts the requests whose client reported a cost."""
WIDTH = 14
MAX_COUNT = 2**53 - 1
"""Counts in rows are capped here, so that every JSON reader can represent them."""


def zero() -> list[int]:
    """Return empty sums."""
    return [0] * WIDTH


def widened(sums: Iterable[int]) -> list[int]:
    """Return sums that an older version wrote, which knew fewer, in today's width."""
    found = list(sums)
    return found if len(found) == WIDTH else found + [0] * (WIDTH - len(found))


def to_fields(sums: Sequence[int]) -> dict[str, Any]:
    """Return the fields of `schemas.rows.Sums`."""
    requests, plain, read, write_5m, write_1h, output, reasoning, tool, cost, unpriced, reported, reports, *rest = sums
    late, inconsistent = rest
    total = plain + read + write_5m + write_1h + output + tool
    fields = {
        "requests": requests,
        "input_uncached": plain,
        "cache_read": read,
        "cache_write_5m": write_5m,
        "cache_write_1h": write_1h,
        "output": output,
        "reasoning": reasoning,
        "tool": tool,
        "total_tokens": total,
        "cost_usd": to_usd(cost) if requests > unpriced else None,
        "reported_cost_usd": to_usd(reported) if reports else None,
        "unpriced_requests": unpriced,
        "late_events": late,
        "inconsistent": inconsistent,
    }
    if total > MAX_COUNT:
        return {name: min(value, MAX_COUNT) if type(value) is int else value for name, value in fields.items()}
    return fields
