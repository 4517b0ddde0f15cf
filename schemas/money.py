"""Money: int pico-dollars (1e-12 USD) inside, a decimal string outside, never a float.

Every price of the book is a whole number of pico-dollars a token (a price of $0.000001 per million tokens is one).
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation, localcontext

PICO = 10**12


def to_usd(pico: int) -> str:
    """Return pico-dollars as the shortest exact decimal string: 1_250_000_000_000 -> "1.25"."""
    sign = "-" if pico < 0 else ""
    whole, part = divmod(abs(pico), PICO)
    return f"{sign}{whole}.{part:012d}".rstrip("0").rstrip(".") if part else f"{sign}{whole}"


def to_pico(usd: str | Decimal) -> int:
    """Return a decimal dollar amount as pico-dollars; digits beyond the twelfth are rounded half to even."""
    with localcontext() as context:
        context.prec = 60
        return int((Decimal(usd) * PICO).to_integral_value())


MAX_USD = 10**9
"""An amount that a client reports for one response must be less than this."""


def reported_pico(usd: str) -> int:
    """Return a client's own estimate in pico-dollars.

    Raises:
        ValueError: it is not a finite decimal number from 0 to MAX_USD, or longer than 64 characters.

    """
    try:
        amount = Decimal(usd) if len(usd) <= 64 else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or not 0 <= amount < MAX_USD:
        raise ValueError(f"a reported cost is a decimal number from 0 to {MAX_USD} US dollars")
    return to_pico(amount)
