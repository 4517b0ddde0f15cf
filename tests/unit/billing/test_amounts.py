"""Amounts as providers write them."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.schemas import exact
from tallystream.schemas.billing.amounts import normalised, read_amount
from tallystream.schemas.openai import digest


@pytest.mark.parametrize(
    ("raw", "value", "ulp"),
    [
        ("0.000004500000000000000000000000000000000", Fraction(45, 10**7), Fraction(1, 10**39)),
        ("0E-6176", 0, 0),
        (Decimal("0E-6176"), 0, 0),
        ("1E-6176", Fraction(1, 10**6176), Fraction(1, 10**6176)),
        (Decimal("1.0E-5"), Fraction(1, 10**5), Fraction(1, 10**6)),
        ("45.00", 45, Fraction(1, 100)),
        (45, 45, Fraction(1, 10**6)),
        ("45", 45, Fraction(1, 100)),
        (Decimal("4.5"), Fraction(9, 2), Fraction(1, 10**6)),
        ("-3.5", Fraction(-7, 2), Fraction(1, 100)),
        ("1e3", 1000, Fraction(1, 100)),
    ],
)
def test_amount_keeps_every_transmitted_digit(raw: str | int | Decimal, value: Fraction, ulp: Fraction) -> None:
    amount = read_amount(raw)
    assert (amount.value, amount.ulp) == (value, ulp)


@pytest.mark.parametrize("raw", [None, True, "", "NaN", "Infinity", "1_000", "1,5", "0x1", "1E+41", "1E-6177", "٣", []])
def test_invalid_amounts_are_refused_with_a_reason(raw: object) -> None:
    with pytest.raises(ValueError, match="amount"):
        read_amount(raw)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=40, min_value=-(10**12), max_value=10**12))
def test_equal_amounts_have_equal_digests(number: Decimal) -> None:
    spellings = [f"{number:f}", f"{number:f}0000", f"{number:E}", exact.loads(f"{number:f}"), number]
    rows = [{"amount": {"value": spelling, "currency": "usd"}, "line_item": "x"} for spelling in spellings]
    assert len({digest([row]) for row in rows}) == 1
    assert digest([{"amount": {"value": str(number + 1), "currency": "usd"}, "line_item": "x"}]) != digest(rows[:1])


def test_names_that_look_like_numbers_are_kept() -> None:
    assert normalised({"project_name": "1.10", "amount": "1.10"}) == {"project_name": "1.10", "amount": Decimal("1.1")}


def test_zero_with_any_exponent_is_read() -> None:
    assert exact.loads('{"value": 0E-6176}') == {"value": 0}
    assert exact.loads('{"value": 1E-6176}') == {"value": Decimal("1E-6176")}
