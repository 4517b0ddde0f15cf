"""Usage that nobody counts. A client that renames its event must scream, not read as zero.

A record is suspicious when an attribute is named like a token count and is above 0. It is one already when no
normaliser took the record and its client does not list the event among those that repeat counts.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tallystream.schemas.clients.base import Normaliser, bounded, kept, plain
from tallystream.schemas.clients.registry import ALL_FIELDS, repeats
from tallystream.schemas.otlp.records import Broken, LogRecord, Value

_TOKEN_NAME: Final = re.compile(r"[tT]okens$|[tT]okens?[._-]?[cC]ounts?$|[tT]oken_usage(?:[._-]|$)")
_NO_USAGE: Final = re.compile(r"max|limit|budget|window|threshold|remaining|per_second", re.IGNORECASE)
_MOST: Final = 32


def is_token_name(name: str) -> bool:
    """Whether an attribute's name is that of a token count. `token` alone is none: that is a secret's name."""
    return bool(_TOKEN_NAME.search(name)) and not _NO_USAGE.search(name)


def unrecognised(record: LogRecord, normaliser: Normaliser | None) -> dict[str, Any] | None:
    """Return the allow-listed part of a record that carries usage nobody counted, None when it carries none.

    It has what any client's rules read: once one of them knows the record, the dead letter can be counted.
    """
    if repeats(record, normaliser):
        return None
    # a map has no order of its own, and a dead letter must be the same each time
    names = sorted(name for name in record.attributes.names() if is_token_name(name))
    counts = {bounded(name): plain(value) for name in names[:_MOST] if _positive(value := record.attributes.get(name))}
    return (kept(record, ALL_FIELDS) | counts) if counts else None


def _positive(value: Value) -> bool:
    if isinstance(value, str):
        return len(value) <= 20 and value.isascii() and value.isdigit() and int(value) > 0
    # what cannot be decoded may be anything above 0
    return isinstance(value, Broken) or (isinstance(value, int | float) and not isinstance(value, bool) and value > 0)
