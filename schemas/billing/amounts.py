"""Amounts of money as providers transmit them: a JSON string or number with any exponent, read exactly.

`"0.000004500000000000000000000000000000000"`, `"0E-6176"`, `1.0E-5` and `45` all occur in live responses. Trailing
zeros say how precisely an amount was transmitted (`Amount.ulp`) and do not change what it is worth.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

MAX_TEXT = 8192
"""Longest accepted amount, in characters. The longest 128-bit decimal without an exponent has 6,180."""
MIN_EXPONENT, MAX_MAGNITUDE = -6176, 40
"""Smallest exponent of the last digit (that of a 128-bit decimal) and largest exponent of the first digit."""
FIELDS = frozenset({"value", "amount", "list_amount", "estimated_cost", "quantity"})
"""Keys under which providers write amounts and quantities as strings."""
CENT, MICRO = Fraction(1, 100), Fraction(1, 10**6)
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,6})?", re.ASCII)


@dataclass(frozen=True)
class Amount:
    """An exact amount. `ulp` is what one in its last transmitted digit is worth: "4.50" has 1/100.

    `ulp` is never more than a hundredth of the unit, because "45" does not mean "rounded to whole dollars". JSON
    numbers are written as short as possible, so their last digit says nothing about precision: their `ulp` is at most a
    millionth.
    """

    value: Fraction
    ulp: Fraction


def read_amount(raw: object) -> Amount:
    """Return the amount in a JSON value (`schemas.exact`: int, Decimal or str).

    Raises:
        ValueError: it is not a finite decimal number, or is beyond what a 128-bit decimal can hold.

    """
    number = read_decimal(raw)
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int)
    if number == 0:
        return Amount(Fraction(0), Fraction(0))
    coarsest = CENT if isinstance(raw, str) else MICRO
    return Amount(Fraction(number), min(Fraction(10) ** exponent, coarsest))


def normalised(row: object) -> Any:
    """Return the row with each amount in one canonical form, however it was written.

    Two polls that differ only in trailing zeros, in an exponent, or in string versus number then have the same digest,
    because nothing was restated. Values that are not numbers are left unchanged.
    """
    if isinstance(row, dict):
        return {key: _worth(item) if key in FIELDS else normalised(item) for key, item in row.items()}
    return [normalised(item) for item in row] if isinstance(row, list) else row


def _worth(value: object) -> Any:
    if isinstance(value, dict | list):
        return normalised(value)
    try:
        return read_decimal(value)
    except ValueError:
        return value


def read_decimal(raw: object) -> Decimal:
    """Return the amount in a JSON value as a Decimal, with the digits as transmitted.

    Raises:
        ValueError: as `read_amount`.

    """
    if isinstance(raw, bool) or not isinstance(raw, int | Decimal | str):
        raise ValueError(f"an amount is a decimal number, not {_shown(raw)}")  # noqa: TRY004 - one error for all inputs
    if isinstance(raw, str):
        text = raw.strip()
        if len(text) > MAX_TEXT or not _NUMBER.fullmatch(text):
            raise ValueError(f"an amount is a decimal number, not {_shown(raw)}")
        raw = Decimal(text)
    number = Decimal(raw)
    if not number.is_finite():
        raise ValueError(f"an amount is a decimal number, not {_shown(raw)}")
    if number == 0:
        return Decimal(0)
    exponent = number.as_tuple().exponent
    if number.adjusted() > MAX_MAGNITUDE or (isinstance(exponent, int) and exponent < MIN_EXPONENT):
        raise ValueError(f"the amount {_shown(raw)} is beyond what a 128-bit decimal holds")
    return number


def _shown(raw: object) -> str:
    text = repr(str(raw)) if isinstance(raw, str) else str(raw)
    return text if len(text) <= 40 else f"{text[:37]}..."
