"""Reads a time as clients and pipelines write it: in any unit since 1970, or as text."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Final

EARLIEST: Final = 1_577_836_800
LATEST: Final = 3_471_292_800
"""2020-01-01 and 2080-01-01 in seconds: all agents we know are newer, and a clock that shows a later time is wrong.
Nanoseconds that are really seconds, milliseconds or microseconds, or count from another epoch, lie far outside."""
NS: Final = 1_000_000_000
UNITS: Final = (1, 1_000, 1_000_000, NS)
"""Nanoseconds in each unit that a client may have used by mistake."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER: Final = re.compile(r"[0-9]{9,20}(?:\.[0-9]{1,9})?", re.ASCII)
_FRACTION: Final = re.compile(r"[.,]([0-9]{1,9})[0-9]*", re.ASCII)
_GO: Final = re.compile(r"(\S+ \S+) ([+-][0-9]{4}) (?:[A-Z]{1,5}|[+-][0-9]{2,4})(?: m=[+-][0-9.]+)?", re.ASCII)
"""What Go's Time.String writes: `2026-11-20 10:00:00.25 +0000 UTC`, or `-0300 -03` where a zone has no abbreviation."""
_JAVASCRIPT: Final = re.compile(r"(\S+ \S+ \S+ \S+ \S+) GMT([+-][0-9]{4})(?: \(.*\))?")
"""What JavaScript's Date.toString writes: `Fri Nov 20 2026 11:00:00 GMT+0100 (Central European Standard Time)`."""
_ZONE_NAME: Final = re.compile(r"\[[A-Za-z0-9_+/-]{1,40}\]$", re.ASCII)
"""The zone's name after its offset (RFC 9557), which Java writes: `2026-11-20T11:00:00+01:00[Europe/Berlin]`."""
_ZONES: Final = (" UTC", " GMT", " Z")
_LONGEST: Final = 80
_HALVES: Final = 2


def plausible(at_ns: int) -> bool:
    """Whether a time in ns since 1970 lies between 2020 and 2080."""
    return EARLIEST * NS <= at_ns < LATEST * NS


def read_time(value: object) -> int:
    """Return a time in ns since 1970; 0 when it is not a time between 2020 and 2080.

    Numbers, also as text, are read in the unit that gives such a time. A list is [seconds, nanoseconds], as the
    JavaScript SDK has times inside. Text is ISO 8601 (UTC when it has no zone), what Go, Java or JavaScript
    print, or RFC 5322.
    """
    if isinstance(value, bool):
        return 0
    if isinstance(value, int | float):
        return _in_some_unit(Decimal(value)) if math.isfinite(value) else 0
    if isinstance(value, list):
        return _of_halves(value)
    if not isinstance(value, str) or len(value) > _LONGEST:
        return 0
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return _in_some_unit(Decimal(text))
    try:
        return _of_text(text)
    except (ValueError, OverflowError):
        return 0


def _in_some_unit(value: Decimal) -> int:
    # a larger number is not a time in any unit, and slow to convert
    return next((ns for unit in UNITS if plausible(ns := int(value * unit))), 0) if value < LATEST * NS else 0


def _of_halves(value: list[object]) -> int:
    if len(value) != _HALVES:
        return 0
    seconds, rest = value
    if type(seconds) is not int or type(rest) is not int or not 0 <= rest < NS:
        return 0
    return at if plausible(at := seconds * NS + rest) else 0


def _of_text(text: str) -> int:
    """Return what `read_time` does; raises ValueError or OverflowError when the text is not a time."""
    if (go := _GO.fullmatch(text)) is not None:
        text = go[1] + go[2]
    elif (javascript := _JAVASCRIPT.fullmatch(text)) is not None:
        text = f"{javascript[1]} {javascript[2]}"
    else:
        text = _ZONE_NAME.sub("", text)
    zone = next((zone for zone in _ZONES if text.endswith(zone)), "")
    # datetime holds only microseconds, so the fraction is read separately
    fraction = _FRACTION.search(text) if text[:1].isdigit() else None
    whole = text if fraction is None else text[: fraction.start()] + text[fraction.end() :]
    try:
        at = datetime.fromisoformat(whole.removesuffix(zone))
    except ValueError:
        at = parsedate_to_datetime(text)
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    found = (at - _EPOCH) // timedelta(seconds=1) * NS + (int(fraction[1].ljust(9, "0")) if fraction else 0)
    return found if plausible(found) else 0
