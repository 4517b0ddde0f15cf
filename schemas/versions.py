"""Versions of rows: `[generation, offset]`, and which of two rows with one key is right.

Rows are absolute, so one of them replaces the other. The offset is the one of the newest message that is in the row;
the generation is raised when offsets begin again. Versions of one key can be compared, and only those.
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
"""Below every version that was ever written."""
_COMPACT = re.compile(rb'"version":\[(\d+),(\d+)\]')


def supersedes(version: Pair, known: Pair | None) -> bool:
    """Tell whether a row replaces the earlier one of its key: the higher version does, of equal ones the later."""
    return known is None or version >= known


def find_version(value: bytes | None) -> Pair | None:
    """Return the version in a row's JSON, None when it holds none.

    A row of ours is found without decoding it: in JSON, no text can look like the pattern, for its quotes are escaped.
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
