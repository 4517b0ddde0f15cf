"""Converts fractions to decimal texts whose sums stay exact. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from tallystream.agents.reconciliation.split import Causes

DIGITS = 18
"""Minimum decimals of parts; the remainder of a quotient goes to the parts with the largest remainders."""
PRICE_DIGITS = 12
MTOK = 10**6


def text(value: Fraction) -> str:
    """Return a fraction whose denominator divides a power of ten as its shortest decimal text.

    Raises:
        ValueError: it is not a finite decimal.

    """
    return _render(_units(value, places(value)), places(value))


def places(value: Fraction) -> int:
    """Return how many decimals a fraction has.

    Raises:
        ValueError: it is not a finite decimal.

    """
    denominator, twos, fives = value.denominator, 0, 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    if denominator != 1:
        raise ValueError(f"{value} is not a finite decimal")
    return max(twos, fives)


def parts(causes: Mapping[str, Fraction], whole: Fraction) -> dict[str, str]:
    """Return the causes as decimals that add up to exactly `whole`, as the fractions do."""
    digits = max(DIGITS, places(whole))
    exact = {name: value * 10**digits for name, value in causes.items()}
    units = {name: value.__floor__() for name, value in exact.items()}
    rest = _units(whole, digits) - sum(units.values())
    for name in sorted(exact, key=lambda name: (units[name] - exact[name], name))[:rest]:
        units[name] += 1
    return {name: _render(count, digits) for name, count in units.items()}


def add(all_causes: list[dict[str, str]], names: tuple[str, ...]) -> Causes:
    """Return the exact sums of causes as they were written."""
    return {name: sum((Fraction(one[name]) for one in all_causes), Fraction(0)) for name in names}


def rounded(value: Fraction | None, digits: int = PRICE_DIGITS) -> str | None:
    """Return a value with at most so many decimals, half to even; None stays None."""
    if value is None:
        return None
    return _render(round(value * 10**digits), digits)


def per_million(price: Fraction | None) -> str | None:
    """Convert dollars per token to dollars per million tokens."""
    return rounded(None if price is None else price * MTOK)


def _units(value: Fraction, digits: int) -> int:
    scaled: Fraction = value * 10**digits
    assert scaled.denominator == 1
    return int(scaled)


def _render(units: int, digits: int) -> str:
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}".rstrip("0").rstrip(".") if digits and part else f"{sign}{whole}"
