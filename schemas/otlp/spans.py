"""What a span looks like to a normaliser, whatever encoding it came in.

Every span costs its place in the tree (three ids); only one whose bytes hold a name of ours is decoded further.
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
    """What tells that a span may matter: found in its bytes (protobuf), or in the names of its attributes (JSON)."""

    in_bytes: re.Pattern[bytes]
    in_names: re.Pattern[str]


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

    @property
    def is_identified(self) -> bool:
        """Whether it has the ids that the OTLP specification requires."""
        return len(self.trace_id) == 32 and len(self.span_id) == 16


@dataclass(frozen=True, slots=True)
class BrokenSpan:
    """A span that may matter and cannot be decoded. Its neighbours can."""

    index: int
    why: str
    """Free of content."""


class SpansBody:
    """A traces request that is decoded while it is walked."""

    __slots__ = ("spans", "tally")

    def __init__(self, tally: DecodingBudget, spans: Iterator[Span | BrokenSpan]) -> None:
        self.tally = tally
        self.spans = spans
        """Any step may raise InvalidBodyError: nothing could be told apart, or it is too much."""

    @property
    def records(self) -> int:
        """Return how many spans there are; known once all have been taken."""
        return self.tally.records
