"""Formats numbers, times and names for templates."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

SHORT = 16


def dollars(usd: str | None) -> str:
    """Return dollars rounded for display: cents from $1 up, four more digits below, a dash without a price."""
    if usd is None:
        return "–"
    amount = Decimal(usd)
    if amount == 0:
        return "$0.00"
    if abs(amount) >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if abs(amount) >= Decimal("0.0001") else "<$0.0001"


def signed(usd: str | None) -> str:
    """Return a difference with its sign: cents, below one cent its first two digits, a dash without a value."""
    if usd is None:
        return "–"
    amount = abs(Decimal(usd))
    shown = f"{amount:,.2f}" if amount == 0 or amount >= Decimal("0.01") else f"{Decimal(f'{amount:.1e}'):f}"
    return f"{'' if amount == 0 else '-' if usd.startswith('-') else '+'}${shown}"


def short_dollars(amount: Decimal) -> str:
    """Return the label of a value on an axis."""
    if amount == 0:
        return "$0"
    if amount >= 1000:
        return f"${(amount / 1000).normalize():f}k"
    return f"${amount.normalize():f}" if amount >= Decimal("0.001") else f"${amount:.1e}"


def number(value: int) -> str:
    """Return a whole number with thin spaces between groups of digits."""
    return f"{value:,}"


def tokens(value: int) -> str:
    """Return a token count, abbreviated from a million up."""
    if value >= 1_000_000_000:
        return f"{value / 1e9:,.2f} G"
    return f"{value / 1e6:,.2f} M" if value >= 1_000_000 else f"{value:,}"


def share(text: str) -> str:
    """Return a share from 0 to 1 in percent."""
    return f"{Decimal(text) * 100:.2f} %"


def hour(text: str) -> str:
    """Return an hour or time as `2026-11-21 14:00`."""
    return text[:16].replace("T", " ")


def short_id(text: str) -> str:
    """Return a long id as its beginning and end."""
    return text if len(text) <= SHORT else f"{text[:8]}…{text[-4:]}"


def ago(text: str | None, as_of: str) -> str:
    """Return how long before `as_of` a time was."""
    if text is None:
        return "never"
    seconds = max(0, int((datetime.fromisoformat(as_of) - datetime.fromisoformat(text)).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago" if seconds > 1 else "now"


def change(now: str | None, before: str | None) -> str:
    """Return the change from an earlier amount in percent; empty if that is not meaningful."""
    if not now or not before or not Decimal(before):
        return ""
    percent = (Decimal(now) / Decimal(before) - 1) * 100
    return f"{percent:+,.0f} %" if abs(percent) < 10_000 else "many times"
