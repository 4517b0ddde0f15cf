"""Which rows of a bill can be mapped: those whose amounts can be read.

A mapping says `(.total_usage // 0) / 100`, so an amount that is missing would become 0 in Port and overwrite the right
one. Such a row is left out and reported, and its entity stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Context, Decimal, Inexact
from typing import Any

from tallystream.agents.port_sink.documents.base import LeftOutRecord
from tallystream.schemas.billing.amounts import read_decimal

DASHBOARD, COSTS = "/dashboard/billing/usage", "/organization/costs"
_EXACT = Context(prec=7000, traps=[Inexact])
"""Holds the sum of any two amounts that `read_decimal` accepts."""


def usable(kind: str, rows: Iterable[Any]) -> tuple[list[Any], list[LeftOutRecord]]:
    """Return the rows of an answer as documents have them, and those that cannot be used.

    Rows of the dashboard get `total_usage`, the sum of their line items in cents. A bucket of costs is usable if all of
    its rows are.
    """
    found: list[Any] = []
    refused: list[LeftOutRecord] = []
    for index, row in enumerate(rows):
        try:
            found.append(_checked(kind, row))
        except _AmountError as exc:
            refused.append(LeftOutRecord(index, row, exc.field, str(exc)))
    return found, refused


class _AmountError(ValueError):
    """The value of a row in `field` is not an amount."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field


def _checked(kind: str, row: Any) -> Any:
    if not isinstance(row, Mapping):
        return row
    if kind == DASHBOARD and "total_usage" not in row:
        return {**row, "total_usage": _total(row.get("line_items"))}
    if kind == COSTS:
        results = row.get("results")
        for cost in results if isinstance(results, list) else [row]:
            amount = cost.get("amount") if isinstance(cost, Mapping) else None
            _amount(amount.get("value") if isinstance(amount, Mapping) else None, "amount")
    return row


def _total(items: Any) -> Decimal:
    if not isinstance(items, list):
        raise _AmountError("line_items", f"line_items is {_shown(items)} where a list belongs")
    total = Decimal(0)
    for item in items:
        total = _EXACT.add(total, _amount(item.get("cost") if isinstance(item, Mapping) else None, "line_items.cost"))
    return total


def _amount(value: Any, field: str) -> Decimal:
    if value is None:
        raise _AmountError(field, "an amount is null")
    try:
        return read_decimal(value)
    except ValueError as exc:
        raise _AmountError(field, str(exc)) from None


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)[:40]
