"""FOCUS rows: price times quantity is the cost, and sums equal those of our tables or of the bill."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
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
from tests.support.focus_rows import BOOK, HOUR, bill, document, priced

from tallystream.agents.focus.columns import ALWAYS_NULL, COSTS, DECIMALS, VERSIONS, Version, columns
from tallystream.agents.focus.export import accounts_of
from tallystream.agents.focus.files import InexactAmountError, parquet_schema, write_csv, write_parquet
from tallystream.agents.focus.rows import PayingAccount, Row, estimate_rows, total, unit_prices
from tallystream.agents.focus.shared import shared_rows
from tallystream.agents.reconciliation.days import Reconciliation
from tallystream.schemas.billing.accounts import AccountLink

MANDATORY = ("BillingAccountId", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd", "ChargePeriodStart",
             "ChargePeriodEnd", "ChargeCategory", "ServiceCategory", "ServiceName", *COSTS)  # fmt: skip


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
    assert (one["SkuPriceId"], one["SkuPriceDetails"]) == (None, None), (
        "details of no price are refused by the validator"
    )
    assert (one["x_Model"], one["x_TokenKind"]) == ("in-house", "output")


def test_usage_paid_by_a_plan_has_only_a_list_cost() -> None:
    (one,) = check(list(estimate_rows(priced(output=1_000_000), BOOK, PayingAccount(plan=True))))
    assert (one["x_CostBasis"], one["ServiceName"]) == ("plan-equivalent", "OpenAI API (plan)")
    assert one["ListCost"] == 10
    assert one["BilledCost"] == one["EffectiveCost"] == one["ContractedCost"] == 0


def test_usage_marked_as_paid_by_a_plan_has_only_a_list_cost() -> None:
    found = priced(output=1_000_000)
    found["buckets"][0]["attribution"]["billing"] = "plan"
    (one,) = check(list(estimate_rows(found, BOOK)))
    assert (one["x_CostBasis"], one["ListCost"], one["BilledCost"]) == ("plan-equivalent", 10, 0)


def test_account_mapping_names_the_paying_account() -> None:
    def link(connection: str, **place: Any) -> AccountLink:
        return AccountLink(
            connection_id=connection, provider="openai", mapped_at=datetime(2026, 11, 20, tzinfo=UTC), **place
        )

    found = accounts_of(
        [
            link("codex-1", project_id="proj_a"), link("codex-2", api_key_id="key_b"), link("codex-3", billing="plan"),
            link("codex-4", project_id="proj_a"), link("codex-4", api_key_id="key_b"), link("codex-5", billing="plan"),
            link("codex-5", api_key_id="key_c"),
        ]
    )  # fmt: skip

    def columns_of(connection: str) -> tuple[Any, ...]:
        one = next(iter(check(list(estimate_rows(priced(output=1), BOOK, found["openai", connection])))))
        named = ("SubAccountId", "SubAccountName", "SubAccountType", "x_CredentialId", "ServiceName")
        return tuple(one[name] for name in named)

    assert columns_of("codex-1") == ("proj_a", "proj_a", "Project", None, "OpenAI API")
    assert columns_of("codex-2") == (None, None, None, "key_b", "OpenAI API")
    assert columns_of("codex-3") == (None, None, None, None, "OpenAI API (plan)")
    assert columns_of("codex-4") == (None, None, None, None, "OpenAI API"), "two accounts cannot be told apart"
    assert columns_of("codex-5") == (None, None, None, "key_c", "OpenAI API"), "reconciled with the key's bill"
    statement = bill() | {"projects": ["proj_a"], "api_keys": []}
    assert {one["SubAccountId"] for one in shared_rows(statement, [], BOOK)} == {"proj_a"}


def test_bill_rows_add_up_to_the_bill() -> None:
    statement = bill()
    rows = check(list(shared_rows(statement, [], BOOK)))
    assert total(rows) == Decimal(statement["bill_usd"]) == Decimal("18.250001")
    assert {one["x_CostBasis"] for one in rows} == {"reconciled"}
    assert [one["ChargeDescription"] for one in rows if one["SkuId"] is None] == ["web search tool calls"]
    assert list(shared_rows({"bill_usd": None}, [], BOOK)) == []


@pytest.mark.parametrize("version", VERSIONS)
def test_csv_and_parquet_contain_the_same_exact_rows(version: Version, tmp_path: Path) -> None:
    rows = [*estimate_rows(priced(input_uncached=412_345, output=18_231), BOOK, version=version)]
    rows += shared_rows(bill(), [], BOOK, version)
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
    rows = list(shared_rows(bill(), [], BOOK))
    rows[0]["BilledCost"] = Decimal("1E-19")
    with pytest.raises(InexactAmountError, match="BilledCost"):
        write_parquet(rows, tmp_path / "focus.parquet")
    assert write_csv(rows, io.StringIO()) == len(rows)


TIERS = st.sampled_from([None, "default", "priority"])
KINDS = ("input_uncached", "cache_read", "output")
bill_lines = st.dictionaries(
    st.tuples(st.sampled_from(["gpt-5-codex", "gpt-9"]), st.sampled_from(["", "priority | "]),
              st.sampled_from(["input", "cached input", "output"])),
    st.tuples(st.decimals(0, 10**4, places=15, allow_nan=False), st.integers(1, 10**6)), max_size=6,
)  # fmt: skip
usage = st.lists(
    st.tuples(st.sampled_from(["gpt-5-codex-2026-01-01", "gpt-5-codex", "gpt-7"]), TIERS, st.sampled_from(KINDS),
              st.integers(1, 10**6), st.sampled_from(["payments", "search"])), max_size=6,
)  # fmt: skip


@given(bill_lines, usage)
def test_bill_is_shared_exactly_among_its_users(
    lines: dict[tuple[str, str, str], tuple[Decimal, int]], seen: list[tuple[Any, ...]]
) -> None:
    view = Reconciliation(BOOK)
    rows = [
        cost(f"{tier}{model}, {kind}", f"{amount:f}", tokens) for (model, tier, kind), (amount, tokens) in lines.items()
    ]
    view.record(record("/organization/costs", DAY, [*rows, cost("web search tool calls", "1.25")]))
    documents = []
    for number, (model, tier, kind, tokens, team) in enumerate(seen):
        key, value = row("codex-1", HOUR, model, None, tier=tier, session=str(number), **{kind: tokens})
        view.row(key, value, 0)
        documents.append(orjson.loads(value))
        documents[-1]["buckets"][0]["attribution"] = {"team": team}
    statement = take(view)["openai", "all", DAY]
    shared = check(list(shared_rows(statement, documents, BOOK)))
    assert total(shared) == Decimal(statement["bill_usd"])
    assert {one["x_CostBasis"] for one in shared} == {"reconciled"}
    # Every token that telemetry has is there once, with its team; the rest of the bill's has none.
    by_team: dict[str, int] = {}
    for one in shared:
        if one["x_SessionId"] is not None:
            team = json.loads(one["Tags"])["team"]
            by_team[team] = by_team.get(team, 0) + int(one["ConsumedQuantity"])
    wanted: dict[str, int] = {}
    for _, _, _, tokens, team in seen:
        wanted[team] = wanted.get(team, 0) + tokens
    assert by_team == wanted


def test_usage_above_the_billed_tokens_shares_the_line() -> None:
    view = Reconciliation(BOOK)
    view.record(record("/organization/costs", DAY, [cost("gpt-5-codex, output", "9", 900_000)]))
    documents = []
    for session, tokens in (("a", 250_000), ("b", 750_000)):
        key, value = row("codex-1", HOUR, "gpt-5-codex", None, session=session, output=tokens)
        view.row(key, value, 0)
        documents.append(orjson.loads(value))
    shared = check(list(shared_rows(take(view)["openai", "all", DAY], documents, BOOK)))
    assert {one["x_SessionId"]: one["BilledCost"] for one in shared} == {"a": Decimal("2.25"), "b": Decimal("6.75")}
