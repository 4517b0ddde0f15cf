"""How pages write amounts."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystream.console.format import signed


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        (None, "–"), ("0", "$0.00"), ("8.45", "+$8.45"), ("-12.4583345", "-$12.46"), ("0.7", "+$0.70"),
        ("1234567.891", "+$1,234,567.89"), ("0.0000000022", "+$0.0000000022"), ("-0.00123457", "-$0.0012"),
    ],
)  # fmt: skip
def test_difference_is_shown_with_its_sign(usd: str | None, shown: str) -> None:
    assert signed(usd) == shown


@given(st.decimals(-(10**12), 10**12, allow_nan=False, places=20))
def test_nonzero_difference_is_never_shown_as_zero(amount: Decimal) -> None:
    text = signed(f"{amount:f}")
    assert "E" not in text
    worth = Decimal(text.replace("$", "").replace(",", ""))
    assert bool(worth) == bool(amount)
    assert abs(worth - amount) <= max(Decimal("0.005"), abs(amount) / 10)
