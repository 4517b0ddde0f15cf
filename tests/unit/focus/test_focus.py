"""FOCUS rows: price times quantity is the cost, and sums equal those of our tables or of the bill."""

from __future__ import annotations

import csv
import io
import json
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.bills import DAY, cost, record, row, take

from tallystream.agents.focus.columns import ALWAYS_NULL, COSTS, DECIMALS, VERSIONS, Version, columns
from tallystream.agents.focus.files import InexactAmountError, parquet_schema, write_csv, write_parquet
from tallystream.agents.focus.rows import Row, bill_rows, estimate_rows, total, unit_prices
from tallystream.agents.pricing import Book
from tallystream.agents.reconciliation.days import Reconciliation

BOOK = Book()
HOUR = f"{DAY}T09:00:00Z"
MANDATORY = ("BillingAccountId", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart",
             "ChargePeriodEnd", "ChargeCategory", "ServiceCategory", "ServiceName", *COSTS)  # fmt: skip


def priced(**counts: int) -> dict[str, Any]:
    kinds = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output")
    at_ns = 1_795_255_200 * 10**9
    pico = BOOK.price("openai", "gpt-5-codex", None, at_ns, *(counts.get(kind, 0) for kind in kinds))
    assert pico is not None
    return document("gpt-5-codex", str(Decimal(pico).scaleb(-12)), **counts)


def document(model: str, usd: str | None, **counts: Any) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(row("codex-1", HOUR, model, usd, **counts)[1])
    found["buckets"][0]["attribution"] = {"team": "payments", "repo": "=HYPERLINK()", "user": "u_1"}
    return found


def check(rows: list[Row], version: Version = "1.4") -> list[Row]:
    """Check the rules that every row must obey."""
    for one in rows:
        assert tuple(one) == columns(version) or set(one) == set(columns(version))
        assert all(one[name] is not None for name in MANDATORY)
        assert all(one[name] is None for name in ALWAYS_NULL)
        if one["PricingQuantity"] is not None:
            quantity = Fraction(one["PricingQuantity"])
            assert Fraction(one["ListUnitPrice"]) * quantity == Fraction(one["ListCost"])
            assert Fraction(one["ContractedUnitPrice"]) * quantity == Fraction(one["ContractedCost"])
            assert quantity * 10**6 == Fraction(one["ConsumedQuantity"])
        else:
            assert one["SkuPriceId"] is None
            assert one["ListUnitPrice"] is None
    return rows


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(1, 10**7))
def test_estimates_add_up_to_the_cost_tables(fresh: int, cached: int, output: int) -> None:
    one = priced(input_uncached=fresh, cache_read=cached, output=output)
    rows = check(list(estimate_rows(one, BOOK)))
    assert total(rows) == Decimal(one["buckets"][0]["cost_usd"])
    assert sum(int(each["ConsumedQuantity"]) for each in rows) == fresh + cached + output
    assert {each["x_CostBasis"] for each in rows} == {"estimate"}


@given(st.integers(0, 10**15), st.integers(1, 10**8), st.integers(1, 10**8))
def test_rows_of_another_price_book_add_up(pico: int, fresh: int, output: int) -> None:
    one = document("gpt-5-codex", str(Decimal(pico).scaleb(-12)), input_uncached=fresh, output=output)
    assert total(check(list(estimate_rows(one, BOOK)))) == Decimal(pico).scaleb(-12)


@given(st.fractions(0, 10**6, max_denominator=1).map(lambda whole: whole / 10**7), st.integers(1, 10**9))
def test_unit_prices_multiply_to_any_cost(amount: Fraction, tokens: int) -> None:
    parts = list(unit_prices(amount, tokens))
    assert sum(count for count, _ in parts) == tokens
    assert sum((count * price for count, price in parts), Fraction(0)) == amount


def test_unpriced_usage_has_no_cost_and_is_marked() -> None:
    (one,) = check(list(estimate_rows(document("in-house", None, output=7), BOOK)))
    assert one["x_CostBasis"] == "unpriced"
    assert (one["BilledCost"], one["ConsumedQuantity"], one["PricingQuantity"]) == (0, 7, None)


def test_usage_paid_by_a_plan_has_only_a_list_cost() -> None:
    (one,) = check(list(estimate_rows(priced(output=1_000_000), BOOK, plans={"codex-1"})))
    assert (one["x_CostBasis"], one["ServiceName"]) == ("plan-equivalent", "OpenAI API (plan)")
    assert one["ListCost"] == 10
    assert one["BilledCost"] == one["EffectiveCost"] == one["ContractedCost"] == 0


def bill() -> dict[str, Any]:
    view = Reconciliation(BOOK)
    view.record(
        record(
            "/organization/costs",
            DAY,
            [
                cost("gpt-5-codex, input", "10.000001", 3_000_000),
                cost("priority | gpt-5-codex, output", "7", 3),
                cost("gpt-5-codex, output", "0E-6176", 500),
                cost("web search tool calls", "1.25"),
            ],
        )
    )
    view.row(*row("codex-1", HOUR, "gpt-5-codex", "1.25", input_uncached=1_000_000), 0)
    return take(view)["openai", "all", DAY]


def test_bill_rows_add_up_to_the_bill() -> None:
    statement = bill()
    rows = check(list(bill_rows(statement)))
    assert total(rows) == Decimal(statement["bill_usd"]) == Decimal("18.250001")
    assert {one["x_CostBasis"] for one in rows} == {"reconciled"}
    assert [one["ChargeDescription"] for one in rows if one["SkuId"] is None] == ["web search tool calls"]
    assert list(bill_rows({"bill_usd": None})) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_csv_and_parquet_contain_the_same_exact_rows(version: Version, tmp_path: Path) -> None:
    rows = [*estimate_rows(priced(input_uncached=412_345, output=18_231), BOOK, version=version)]
    rows += bill_rows(bill(), version)
    check(rows, version)
    out = io.StringIO()
    assert write_csv(rows, out, version) == len(rows)
    read = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert write_parquet(rows, tmp_path / "focus.parquet", version) == len(rows)
    table = pq.read_table(tmp_path / "focus.parquet")
    assert table.schema == parquet_schema(version)
    assert table.schema.field("BilledCost").type == pa.decimal128(38, 18)
    for text, stored, one in zip(read, table.to_pylist(), rows, strict=True):
        assert tuple(text) == columns(version)
        for name in DECIMALS:
            if one[name] is None:
                assert (text[name], stored[name]) == ("", None)
            else:
                assert "E" not in text[name]
                assert "." in text[name]
                assert Decimal(text[name]) == stored[name] == one[name]
        assert text["ChargePeriodStart"].endswith("Z")
        assert not text["Tags"] or isinstance(json.loads(text["Tags"]), dict)


def test_too_many_decimals_for_parquet_are_refused(tmp_path: Path) -> None:
    rows = list(bill_rows(bill()))
    rows[0]["BilledCost"] = Decimal("1E-19")
    with pytest.raises(InexactAmountError, match="BilledCost"):
        write_parquet(rows, tmp_path / "focus.parquet")
    assert write_csv(rows, io.StringIO()) == len(rows)
