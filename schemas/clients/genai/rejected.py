"""What is kept of a span that cannot be counted: known names, numbers and ids, and counts under unknown names."""

from __future__ import annotations

import re
from typing import Any, Final

from tallystream.schemas.clients.base import bounded, text
from tallystream.schemas.clients.genai import spellings
from tallystream.schemas.clients.unrecognised import token_counts
from tallystream.schemas.otlp.records import Attributes
from tallystream.schemas.otlp.spans import Span

_OF_A_REQUEST: Final = re.compile(
    r"(?:(?<![a-z])(?:in|out)|In|Out)(?:put)?(?![a-z])"
    r"|[pP]rompt|[cC]ompletion|[gG]enerated|[tT]otal|[uU]sage|[cC]ache"
)
"""What only names of a request's counts contain. Spans of any program arrive here, and may count refresh tokens."""


def unknown_counts(attributes: Attributes) -> dict[str, Any]:
    """Return the token counts of a span of whose counts none has a known name.

    A span with known names may have others beside them, such as steps that repeat the details of their calls.
    """
    found = token_counts(attributes)
    if not any(_OF_A_REQUEST.search(name) for name in found) or not spellings.COUNTS.isdisjoint(attributes.names()):
        return {}
    return found


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
