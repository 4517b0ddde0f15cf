"""Adds up rows for documents: ints, money as pico-dollars, and the two forms of money in a document."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tallystream.schemas.money import to_pico, to_usd
from tallystream.schemas.rows import SUM_COUNTS, counts_of


class DocumentTotals:
    """Sums of cost rows (`schemas.rows.Sums`)."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(SUM_COUNTS, 0)
        self._cost: int | None = None
        self._reported: int | None = None

    def add(self, sums: Mapping[str, Any]) -> None:
        """Add a row's sums."""
        counts = self._counts
        for name, number in zip(SUM_COUNTS, counts_of(sums), strict=True):
            counts[name] += number
        if (cost := sums["cost_usd"]) is not None:
            self._cost = (self._cost or 0) + to_pico(cost)
        if (reported := sums["reported_cost_usd"]) is not None:
            self._reported = (self._reported or 0) + to_pico(reported)

    def fields(self) -> dict[str, Any]:
        """Return the fields of a document: `cost_usd` is the exact decimal text, `cost` the same as a JSON number."""
        return {
            **self._counts,
            **money("cost", "cost_usd", self._cost),
            **money("reported_cost", "reported_cost_usd", self._reported),
        }


def money(number: str, text: str, pico: int | None) -> dict[str, Any]:
    """Return an amount as a number and as text; both null if it is missing."""
    usd = None if pico is None else to_usd(pico)
    return {number: None if usd is None else Decimal(usd), text: usd}
