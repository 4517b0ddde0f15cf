"""Bills whose amounts cannot be read are left out, and never become 0."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from tallystream.agents.port_sink.documents.amounts import usable

DASHBOARD, COSTS = "/dashboard/billing/usage", "/organization/costs"
GOOD_DAY = {"line_items": [{"name": "a", "cost": Decimal("1.5")}, {"name": "b", "cost": "0E-6176"}]}
GOOD_COST = {"amount": {"value": "12.5", "currency": "usd"}}


@pytest.mark.parametrize(
    ("kind", "row", "field"),
    [
        (DASHBOARD, {"line_items": None}, "line_items"),
        (DASHBOARD, {}, "line_items"),
        (DASHBOARD, {"line_items": {"cost": 1}}, "line_items"),
        (DASHBOARD, {"line_items": [{"cost": None}]}, "line_items.cost"),
        (DASHBOARD, {"line_items": [{"cost": 1}, {}]}, "line_items.cost"),
        (DASHBOARD, {"line_items": [{"cost": "n/a"}]}, "line_items.cost"),
        (DASHBOARD, {"line_items": [{"cost": True}]}, "line_items.cost"),
        (DASHBOARD, {"line_items": ["1"]}, "line_items.cost"),
        (COSTS, {"amount": None}, "amount"),
        (COSTS, {}, "amount"),
        (COSTS, {"amount": {"value": None, "currency": "usd"}}, "amount"),
        (COSTS, {"results": [GOOD_COST, {"amount": {"value": "NaN"}}]}, "amount"),
    ],
)
def test_unreadable_amount_refuses_only_its_row(kind: str, row: Any, field: str) -> None:
    good = GOOD_DAY if kind == DASHBOARD else GOOD_COST
    found, refused = usable(kind, [good, row, good])
    assert len(found) == 2
    (left_out,) = refused
    assert (left_out.place, left_out.record, left_out.field) == (1, row, field)
    assert left_out.reason


def test_sums_are_exact() -> None:
    items = [{"cost": Decimal("0.1")}, {"cost": "1E-40"}, {"cost": 10**30}]
    (found,), _ = usable(DASHBOARD, [{"line_items": items}])
    assert found["total_usage"] == Decimal("1000000000000000000000000000000." + "1" + "0" * 38 + "1")
    (empty,), _ = usable(DASHBOARD, [{"line_items": []}])
    assert empty["total_usage"] == 0


def test_other_kinds_and_rows_with_totals_are_unchanged() -> None:
    rows = [{"id": "m", "amount": None}, "text", {"line_items": None}]
    assert usable("/models", rows) == (rows, [])
    assert usable(DASHBOARD, [{"total_usage": 5}]) == ([{"total_usage": 5}], [])
