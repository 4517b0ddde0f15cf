"""The forms in which people write durations and sizes: commands and settings accept the same ones."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

_SHORT: Final = re.compile(r"(?:(\d+) ?w)? ?(?:(\d+) ?d)? ?(?:(\d+) ?h)? ?(?:(\d+) ?m)? ?(?:(\d+) ?s)?")
_ISO: Final = re.compile(r"P(?:(\d+)W)?(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?)?")
_SIZE: Final = re.compile(r"(\d{1,20}(?:\.\d{1,20})?(?:e[+]?\d\d?)?) ?([kmgt]i?)?b?")
_UNITS: Final = {
    "": 1,
    "k": 10**3,
    "m": 10**6,
    "g": 10**9,
    "t": 10**12,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
DURATIONS: Final = "durations look like 90m, 24h, 7d or PT24H"
SIZES: Final = "sizes look like 67108864, 64MiB or 64MB"


def duration(text: str) -> timedelta | None:
    """Return the duration of `90m`, `7d`, `2w`, `1d12h`, `15 s`, or of ISO 8601 `PT24H`; None if the text is none."""
    found = _SHORT.fullmatch(text.strip().lower()) or _ISO.fullmatch(text.strip().upper())
    if found is None or not any(found.groups()):
        return None
    weeks, days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    try:
        return timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        return None


def byte_size(text: str) -> int | None:
    """Return the bytes of `67108864`, `64MiB` or `64 MB`; None if the text is no size.

    Helm writes `6.7108864e+07`, which is read, too.
    """
    found = _SIZE.fullmatch(text.strip().lower())
    if found is None:
        return None
    size = Decimal(found[1]) * _UNITS[found[2] or ""]
    return int(size) if size == size.to_integral_value() else None
