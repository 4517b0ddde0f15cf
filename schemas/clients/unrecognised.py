"""Usage that nobody counts. A client that renames its event must scream, not read as zero.

A record is suspicious when an attribute is named like a token count and is above 0. It is one already when no
normaliser took the record and its client does not list the event among those that repeat counts.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tallystream.schemas.clients.base import Normaliser, bounded, kept, text
from tallystream.schemas.otlp.records import LogRecord, Value

_TOKEN_NAME: Final = re.compile(r"[tT]okens$|[tT]okens?[._-]?[cC]ounts?$|[tT]oken_usage(?:[._-]|$)")
_NO_USAGE: Final = re.compile(r"max|limit|budget|window|threshold|remaining|per_second", re.IGNORECASE)
_KEPT: Final = (
    "event.timestamp",
    "conversation.id",
    "session.id",
    "model",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "gen_ai.provider.name",
)
_RESOURCE: Final = ("service.name", "service.version")
_MOST: Final = 32


def is_token_name(name: str) -> bool:
    """Whether an attribute's name is that of a token count. `token` alone is none: that is a secret's name."""
    return bool(_TOKEN_NAME.search(name)) and not _NO_USAGE.search(name)


def unrecognised(record: LogRecord, normaliser: Normaliser | None) -> dict[str, Any] | None:
    """Return the allow-listed part of a record that carries usage nobody counted, None when it carries none."""
    if normaliser is not None and record.event_name in normaliser.repeats:
        return None
    # a map has no order of its own, and a dead letter must be the same each time
    names = sorted(name for name in record.attributes.names() if is_token_name(name))
    counts = {bounded(name): value for name in names[:_MOST] if _positive(value := record.attributes.get(name))}
    if not counts:
        return None
    resource = {name: text(record.resource.get(name)) for name in _RESOURCE}
    return kept(record, _KEPT) | counts | {name: value for name, value in resource.items() if value}


def _positive(value: Value) -> bool:
    if isinstance(value, str):
        return len(value) <= 20 and value.isascii() and value.isdigit() and int(value) > 0
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0
