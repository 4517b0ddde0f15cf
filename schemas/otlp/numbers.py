"""Whole numbers as protobuf's JSON mapping allows them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)


def whole_number(text: str) -> int | None:
    """Return 100 for `100`, `1e2` and `100.0`; None when the text is not a whole number."""
    if not _WHOLE.fullmatch(text):
        return None
    exact = Decimal(text)
    return int(exact) if exact == exact.to_integral_value() else None
