"""Our files against a table of FOCUS 1.4's dataset Cost and Usage: columns, types, nulls, values and relations.

The FinOps Foundation's validator has no rules of 1.4 that it could read, so the table stands in for them. It was
written from the specification: each column with its data type, whether it may be null, and when it must be present.
"""

from __future__ import annotations

import csv
import io
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from tests.support.focus_rows import every_kind

from tallystream.agents.focus.columns import columns
from tallystream.agents.focus.files import parquet_schema, write_csv
from tallystream.agents.focus.rows import Row

ALWAYS, RECOMMENDED = "mandatory", "recommended"
OURS = {"accounts of several types", "invoices", "list prices", "negotiated prices", "pricing categories",
        "sub-accounts", "tags", "unit prices", "usage"}  # fmt: skip
"""Conditions of columns that apply to what we export. Others are left out, or null for readers that expect them."""
NOT_OURS = {"capacity reservations", "commitment discounts", "commitment programs", "contract commitments",
            "other pricing currency", "regions", "resources", "split costs"}  # fmt: skip


class Column(NamedTuple):
    """A column: its type, whether it may be null, when it must be present, and its values where they are listed."""

    kind: str
    null: bool
    present: str
    values: tuple[str, ...] = ()


def _table() -> dict[str, Column]:
    text, amount, moment, document = "text", "decimal", "time", "json"
    once = {
        "BilledCost": Column(amount, False, ALWAYS),
        "BillingAccountId": Column(text, False, ALWAYS),
        "BillingAccountName": Column(text, True, ALWAYS),
        "BillingAccountType": Column(text, False, "accounts of several types"),
        "BillingCurrency": Column(text, False, ALWAYS, ("USD",)),
        "BillingPeriodEnd": Column(moment, False, ALWAYS),
        "BillingPeriodStart": Column(moment, False, ALWAYS),
        "ChargeCategory": Column(text, False, ALWAYS, ("Usage", "Purchase", "Tax", "Credit", "Adjustment")),
        "ChargeClass": Column(text, True, ALWAYS, ("Correction",)),
        "ChargeDescription": Column(text, True, ALWAYS),
        "ChargeFrequency": Column(text, False, RECOMMENDED, ("One-Time", "Recurring", "Usage-Based")),
        "ChargePeriodEnd": Column(moment, False, ALWAYS),
        "ChargePeriodStart": Column(moment, False, ALWAYS),
        "CommitmentProgramEligibilityDetails": Column(document, True, "commitment programs"),
        "ConsumedQuantity": Column(amount, True, "usage"),
        "ConsumedUnit": Column(text, True, "usage", ("Tokens",)),
        "ContractApplied": Column(document, True, "contract commitments"),
        "ContractedCost": Column(amount, False, ALWAYS),
        "ContractedUnitPrice": Column(amount, True, "negotiated prices"),
        "EffectiveCost": Column(amount, False, ALWAYS),
        "HostProviderName": Column(text, False, ALWAYS),
        "InvoiceDetailId": Column(text, True, "invoices"),
        "InvoiceId": Column(text, True, "invoices"),
        "InvoiceIssuerName": Column(text, False, ALWAYS),
        "ListCost": Column(amount, False, ALWAYS),
        "ListUnitPrice": Column(amount, True, "list prices"),
        "PricingCategory": Column(text, True, "pricing categories", ("Standard", "Dynamic", "Committed", "Other")),
        "PricingCurrency": Column(text, False, "other pricing currency", ("USD",)),
        "PricingCurrencyContractedUnitPrice": Column(amount, True, "other pricing currency"),
        "PricingCurrencyEffectiveCost": Column(amount, False, "other pricing currency"),
        "PricingCurrencyListUnitPrice": Column(amount, True, "other pricing currency"),
        "PricingQuantity": Column(amount, True, ALWAYS),
        "PricingUnit": Column(text, True, ALWAYS, ("1000000 Tokens",)),
        "ServiceCategory": Column(text, False, ALWAYS, ("AI and Machine Learning",)),
        "ServiceName": Column(text, False, ALWAYS),
        "ServiceProviderName": Column(text, False, ALWAYS),
        "ServiceSubcategory": Column(text, False, RECOMMENDED, ("Generative AI",)),
        "SkuId": Column(text, True, "unit prices"),
        "SkuMeter": Column(text, True, "unit prices"),
        "SkuPriceDetails": Column(document, True, "unit prices"),
        "SkuPriceId": Column(text, True, "unit prices"),
        "SubAccountId": Column(text, True, "sub-accounts"),
        "SubAccountName": Column(text, True, "sub-accounts"),
        "SubAccountType": Column(text, True, "sub-accounts"),
        "Tags": Column(document, True, "tags"),
        "AvailabilityZone": Column(text, True, RECOMMENDED),
        "AllocatedMethodDetails": Column(document, True, "split costs"),
        "AllocatedTags": Column(document, True, "split costs"),
        "CommitmentDiscountQuantity": Column(amount, True, "commitment discounts"),
        "CapacityReservationId": Column(text, True, "capacity reservations"),
        "CapacityReservationStatus": Column(text, True, "capacity reservations", ("Used", "Unused")),
    }
    for condition, names in (
        ("split costs", ("AllocatedMethodId", "AllocatedResourceId", "AllocatedResourceName")),
        ("regions", ("RegionId", "RegionName")),
        ("resources", ("ResourceId", "ResourceName", "ResourceType")),
        (
            "commitment discounts",
            tuple(f"CommitmentDiscount{what}" for what in ("Category", "Id", "Name", "Status", "Type", "Unit")),
        ),
    ):
        once |= dict.fromkeys(names, Column(text, True, condition))
    return once


TABLE = _table()
PARQUET = {"text": pa.string(), "json": pa.string(), "decimal": pa.decimal128(38, 18),
           "time": pa.timestamp("us", tz="UTC")}  # fmt: skip

OF_A_PRICE = ("PricingQuantity", "PricingCategory", "ListUnitPrice", "ContractedUnitPrice")


@cache
def rows() -> tuple[Row, ...]:
    return tuple(every_kind("1.4"))


def test_the_table_is_whole_and_every_column_that_applies_is_there() -> None:
    assert len(TABLE) == 65
    assert {column.present for column in TABLE.values()} == {ALWAYS, RECOMMENDED, *OURS, *NOT_OURS}
    written = columns("1.4")
    assert len(set(written)) == len(written)
    assert {name for name in written if name not in TABLE} == {name for name in written if name.startswith("x_")}
    missing = {name: TABLE[name].present for name in TABLE if name not in written}
    assert set(missing.values()) <= {"split costs", "commitment programs", "contract commitments"}, missing
    assert all(TABLE[name].present in NOT_OURS for name in missing)


@pytest.mark.parametrize("name", [name for name in columns("1.4") if name in TABLE])
def test_a_column_has_its_type_its_values_and_nulls_only_where_they_are_allowed(name: str) -> None:
    column = TABLE[name]
    assert parquet_schema("1.4").field(name).type == PARQUET[column.kind]
    found = [row[name] for row in rows()]
    assert column.null or None not in found
    for value in found:
        if value is None:
            continue
        assert value != "", "a text without characters must be null"
        assert not column.values or value in column.values
        match column.kind:
            case "json":
                assert type(json.loads(value)) is dict
            case "decimal":
                assert isinstance(value, Decimal)
                assert value.is_finite()
            case "time":
                assert isinstance(value, datetime)
                assert value.utcoffset() == UTC.utcoffset(None)
            case _:
                assert type(value) is str


def test_columns_relate_to_each_other_as_they_must() -> None:
    sku_of: dict[str, str] = {}
    for row in rows():
        start, end = row["ChargePeriodStart"], row["ChargePeriodEnd"]
        assert row["BillingPeriodStart"] <= start < end <= row["BillingPeriodEnd"]
        assert (row["BillingPeriodStart"].day, row["BillingPeriodEnd"].day) == (1, 1)
        both = (
            ("PricingQuantity", "PricingUnit"),
            ("ConsumedQuantity", "ConsumedUnit"),
            ("SubAccountId", "SubAccountType"),
        )
        for one, other in both:
            assert (row[one] is None) == (row[other] is None)
        if row["SkuPriceId"] is None:
            assert all(row[name] is None for name in OF_A_PRICE)
            assert row["SkuPriceDetails"] is None
        else:
            assert sku_of.setdefault(row["SkuPriceId"], row["SkuId"]) == row["SkuId"]
            assert all(row[name] is not None for name in (*OF_A_PRICE, "SkuId", "SkuMeter", "ConsumedQuantity"))
            for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
                assert row[cost] == row[price] * row["PricingQuantity"]
        assert row["InvoiceId"] is not None or row["InvoiceDetailId"] is None
        assert row["PricingCurrency"] == row["BillingCurrency"]
        for name in ("ListUnitPrice", "ContractedUnitPrice", "EffectiveCost"):
            assert row[f"PricingCurrency{name}"] == row[name], "one currency"
        details = json.loads(row["SkuPriceDetails"] or "{}")
        assert all(key.startswith("x_") for key in details), "properties of our own"


def test_only_usage_without_a_price_and_products_have_no_sku_price() -> None:
    """What is not kept: usage must have a SkuPriceId, and no ConsumedQuantity without one. A price that the book does
    not have would have to be made up, and 0 would look free; the tokens stay, because they were used.
    """
    without = [row for row in rows() if row["SkuPriceId"] is None]
    assert {row["x_CostBasis"] for row in without} == {"unpriced", "reconciled"}
    for row in without:
        if row["x_CostBasis"] == "unpriced":
            assert row["BilledCost"] == 0 < row["ConsumedQuantity"]
        else:
            assert row["ConsumedQuantity"] is None


def test_numbers_and_times_are_written_as_the_specification_wants() -> None:
    out = io.StringIO(newline="")
    write_csv(rows(), out, "1.4")
    formats = {
        "decimal": re.compile(r"-?\d+\.\d+"),
        "time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
        "json": re.compile(r"\{.*\}"),
    }
    written: list[dict[str, Any]] = list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))
    assert len(written) == len(rows())
    for row in written:
        for name, column in TABLE.items():
            if row.get(name) and column.kind in formats:
                assert formats[column.kind].fullmatch(row[name]), f"{name}: {row[name]}"
