"""Versions of rows: `[generation, offset]`, and which of two rows with the same key is valid.

Rows are absolute, so one of them replaces the other. The offset is that of the newest message included in the row; the
generation is incremented when offsets start again from 0. Only versions of the same key can be compared.
"""

from __future__ import annotations

import re
from typing import Annotated

import orjson
from pydantic import Field

Version = Annotated[list[int], Field(min_length=2, max_length=2)]
"""`[generation, offset]`, as it stands in a row."""
Pair = tuple[int, int]
"""A version to compare."""
OLDEST: Pair = (-1, -1)
"""Lower than every version that was ever written."""
_COMPACT = re.compile(rb'"version":\[(\d+),(\d+)\]')


def supersedes(version: Pair, known: Pair | None) -> bool:
    """Tell whether a row replaces the earlier one of its key: the higher version wins, and of equal versions the later
    row.
    """
    return known is None or version >= known


def find_version(value: bytes | None) -> Pair | None:
    """Return the version in a row's JSON, None when it does not contain one.

    The row need not be decoded: a JSON string cannot match the pattern, because its quotes are escaped.
    """
    if value is None:
        return None
    if (found := _COMPACT.search(value)) is not None:
        return int(found[1]), int(found[2])
    try:
        generation, offset = orjson.loads(value)["version"]
        return int(generation), int(offset)
    except (ValueError, TypeError, KeyError):
        return None
