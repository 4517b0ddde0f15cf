"""What is kept of a span that cannot be counted: known names, numbers and ids, and counts under unknown names."""

from __future__ import annotations

from typing import Any

from tallystream.schemas.clients.base import bounded, text
from tallystream.schemas.clients.genai import spellings
from tallystream.schemas.clients.unrecognised import token_counts
from tallystream.schemas.otlp.records import Attributes
from tallystream.schemas.otlp.spans import Span


def unknown_counts(attributes: Attributes) -> dict[str, Any]:
    """Return the token counts of a span of whose counts none has a known name.

    A span with known names may have others beside them, such as steps that repeat the details of their calls.
    """
    found = token_counts(attributes)
    return found if found and spellings.COUNTS.isdisjoint(attributes.names()) else {}


def kept(span: Span, attributes: Attributes) -> dict[str, Any]:
    """Return what a dead letter may keep of a span."""
    found: dict[str, Any] = {}
    for names in (spellings.INPUT, spellings.OUTPUT, spellings.CACHE_READ, spellings.CACHE_WRITE, spellings.REASONING):
        for name in names:
            value = attributes.get(name)
            if isinstance(value, str):
                found[name] = bounded(value)[:40]
            elif isinstance(value, int | float):
                found[name] = value
    for name in (spellings.OPERATION, *spellings.RESPONSE_MODEL, *spellings.REQUEST_MODEL, *spellings.RESPONSE_ID):
        if given := text(attributes.get(name)):
            found[name] = given
    return found | {"scope": bounded(span.scope), "trace_id": span.trace_id, "span_id": span.span_id}
