"""A span as normalisers see it, independent of its encoding.

Of every span the place in the tree (three ids) is decoded, and the rest only if its bytes contain a known name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tallystream.schemas.otlp.limits import DecodingBudget
from tallystream.schemas.otlp.records import Attributes, Value

ERROR = 2
"""Status code of a span that failed."""


@dataclass(frozen=True, slots=True)
class Hint:
    """Detects spans that may be relevant by their bytes (protobuf) or the names of their attributes (JSON)."""

    in_bytes: re.Pattern[bytes]
    in_names: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Span:
    """A span. `attributes` is None when the span is irrelevant: then only its place is known."""

    index: int
    """Its place among all spans of the body."""
    trace_id: str
    """32 lowercase hex digits."""
    span_id: str
    """16 lowercase hex digits."""
    parent_id: str
    """16 lowercase hex digits, or empty for a root."""
    start_ns: int
    end_ns: int
    failed: bool
    scope: str
    """Name of the instrumentation scope."""
    resource: dict[str, Value]
    attributes: Attributes | None

    @property
    def is_identified(self) -> bool:
        """Whether it has the ids that the OTLP specification requires."""
        return len(self.trace_id) == 32 and len(self.span_id) == 16


@dataclass(frozen=True, slots=True)
class BrokenSpan:
    """A span that may be relevant but cannot be decoded. Its neighbours can."""

    index: int
    why: str
    """Never contains content."""


class SpansBody:
    """A traces request that is decoded while it is walked."""

    __slots__ = ("spans", "tally")

    def __init__(self, tally: DecodingBudget, spans: Iterator[Span | BrokenSpan]) -> None:
        self.tally = tally
        self.spans = spans
        """Any step may raise InvalidBodyError: the spans cannot be separated, or the body exceeds a limit."""

    @property
    def records(self) -> int:
        """Return how many spans there are; known once all have been taken."""
        return self.tally.records
