"""Detects usage that no normaliser counts, so that a client that renames its event is reported instead of read as zero.

A record is unrecognised usage when it has an attribute above 0 that is named like a token count, no normaliser accepted
it, and its client does not list the event among those that repeat counts. A span is, when none of its counts has a name
that `genai/spellings.py` knows.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tallystream.schemas.clients.base import Normaliser, bounded, kept, plain
from tallystream.schemas.clients.registry import ALL_FIELDS, repeats
from tallystream.schemas.otlp.records import Attributes, Broken, LogRecord, Value

_TOKEN_NAME: Final = re.compile(
    r"[tT]okens(?:[._-]?(?:[iI]n|[oO]ut))?$|[tT]okens?[._-]?[cC]ounts?$|[tT]oken_usage(?:[._-]|$)"
)
_NO_USAGE: Final = re.compile(r"max|limit|budget|window|threshold|remaining|per_second", re.IGNORECASE)
_MOST: Final = 32


def is_token_name(name: str) -> bool:
    """Whether an attribute's name is that of a token count. `token` alone does not count, because it names a secret."""
    return bool(_TOKEN_NAME.search(name)) and not _NO_USAGE.search(name)


def unrecognised(record: LogRecord, normaliser: Normaliser | None) -> dict[str, Any] | None:
    """Return the allow-listed part of a record with usage that was not counted, None when it does not have such usage.

    It keeps what any client's rules read, so the dead letter can be counted once a rule supports the record.
    """
    if repeats(record, normaliser):
        return None
    counts = token_counts(record.attributes)
    return (kept(record, ALL_FIELDS) | counts) if counts else None


def token_counts(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes above 0 that are named like token counts."""
    # a map is unordered, and a dead letter must be the same each time
    names = sorted([name for name in attributes.names() if "oken" in name and is_token_name(name)])
    return {bounded(name): plain(value) for name in names[:_MOST] if _positive(value := attributes.get(name))}


def _positive(value: Value) -> bool:
    if isinstance(value, str):
        return len(value) <= 20 and value.isascii() and value.isdigit() and int(value) > 0
    # a value that cannot be decoded may be above 0
    return isinstance(value, Broken) or (isinstance(value, int | float) and not isinstance(value, bool) and value > 0)
