"""What a span looks like to a normaliser, whatever encoding it came in, and how a traces request is read.

Every span costs its place in the tree (three ids); only one whose bytes hold a name of ours is decoded further.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tallystream.schemas.otlp.records import Attributes, Value

ERROR = 2
"""Status code of a span that failed."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span. `attributes` is None where nothing in it can matter: then only its place is known."""

    index: int
    """Its place among all spans of the body."""
    trace_id: str
    """32 lowercase hex digits."""
    span_id: str
    """16 lowercase hex digits."""
    parent_id: str
    """The same, or empty: a root."""
    start_ns: int
    end_ns: int
    failed: bool
    scope: str
    """Name of the instrumentation scope."""
    resource: dict[str, Value]
    attributes: Attributes | None


@dataclass(frozen=True, slots=True)
class SpansBody:
    """A decoded traces request."""

    records: int
    spans: Iterator[Span]
    """Decoded while it is walked: any step may raise InvalidBodyError. Without any when nothing in the body matters."""


def is_identified(span: Span) -> bool:
    """Tell whether a span has the ids that the OTLP specification requires."""
    return len(span.trace_id) == 32 and len(span.span_id) == 16
