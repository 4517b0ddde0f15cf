"""Makes text from clients safe for terminals, CSV files and JSON.

Session ids, models and team names come from clients. A terminal escape sequence in one could rewrite the screen, and a
leading `=` could run as a formula in a spreadsheet.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

from tallystream.schemas.legible import visible, visible_lines

__all__ = ["ago", "count", "csv_text", "dollars", "escape_json", "short_id", "stamp", "visible", "visible_lines"]

_JSON_STEERING = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
"""The characters that `legible` escapes, without C0, which JSON escapes itself and has between its tokens."""
_FORMULA = ("=", "+", "-", "@")
SHORT_ID = 16
"""Ids up to this length are shown in full."""


def escape_json(text: str) -> str:
    r"""Return JSON text with the same characters as `\uXXXX`. White space between tokens is kept."""
    if text.isascii() and "\x7f" not in text:
        return text  # as next to all are, and this is told several times as fast
    return _JSON_STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def csv_text(text: str) -> str:
    """Return a CSV cell with control characters escaped. A leading quote keeps it from being run as a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.lstrip().startswith(_FORMULA) else shown


def short_id(text: str) -> str:
    """Return the first eight and last four characters of a long id, as ids made in one minute begin alike."""
    shown = visible(text)
    return shown if len(shown) <= SHORT_ID else f"{shown[:8]}…{shown[-4:]}"


def count(number: int) -> str:
    """Return a number with thousands separators."""
    return f"{number:,}"


def dollars(usd: str | None) -> str:
    """Return exact dollars rounded for display: to cents from $1 up, with more digits below."""
    if usd is None:
        return "-"
    amount = Decimal(usd)
    if amount == 0:
        return "$0.00"
    if abs(amount) >= 1:
        return f"${amount:,.2f}"
    return f"${amount:.4f}" if abs(amount) >= Decimal("0.0001") else "<$0.0001"


def stamp(at: datetime) -> str:
    """Return a time for programs: `2026-11-21T14:03:22Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(at: datetime, now: datetime) -> str:
    """Return how long ago a time was, in one unit."""
    seconds = max(0, int((now - at).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
