"""A log record as normalisers see it, independent of its encoding.

Only records that may carry token counts are decoded: most records of a body are other events, and decoding them would
be most of a gateway's work.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from tallystream.schemas.otlp.limits import DecodingBudget


@dataclass(frozen=True, slots=True)
class Broken:
    """An attribute's value that does not match its type. It is not treated as absent, because a broken count must not
    be read as 0.
    """

    why: str
    """Never contains content."""

    def __repr__(self) -> str:
        return f"not decodable ({self.why})"


Value = str | int | float | bool | bytes | Broken | None
"""An attribute's value. Bytes, arrays and key-value lists all come as `OPAQUE`: no value that we count or keep has
these types."""

OPAQUE: Final = b""

MARK: Final = b"oken"
"""Part of every name of a token count, in any case: `input_token_count`, `inputTokens`."""

_HINT: Final = "oken(?:s|[._-]?[cC]ount|_usage)"
HINT: Final = re.compile(_HINT.encode())
NAMES_HINT: Final = re.compile(_HINT)
"""Matches the bytes and the attribute names of every record with token counts; other records may match too. The pattern
begins with a literal, so that the search for it is one scan.
"""


@dataclass(frozen=True, slots=True)
class RecordHint:
    """How to find the records that are worth decoding; those that are not wanted may match, too."""

    mark: bytes
    """What `raw` matches begins with it: a search for it is fast."""
    raw: re.Pattern[bytes]
    """Matches the bytes of a wanted record."""
    names: re.Pattern[str]
    """Matches the attribute names of a wanted record."""
    names_mark: str
    """What `names` matches begins with it."""
    usual: tuple[str, ...]
    """Names that `names` matches and nearly every wanted record has one of: looking one up is the quickest way."""

    def in_names(self, names: Collection[str]) -> bool:
        """Whether these are the attribute names of a wanted record."""
        for name in self.usual:
            if name in names:
                return True
        lines = "\n".join(names)
        return self.names_mark in lines and self.names.search(lines) is not None


TOKENS: Final = RecordHint(MARK, HINT, NAMES_HINT, MARK.decode(), ("input_token_count", "input_tokens"))
"""Finds the records with token counts."""


class Attributes:
    """Attributes of a record, each decoded when it is asked for. Of two with one key the last one counts.

    A base class instead of a Protocol: the compiled form calls a method of a class it knows without looking it up.
    """

    __slots__ = ()

    def get(self, name: str) -> Value:
        """Return the value, or None when it is absent or empty."""
        raise NotImplementedError

    def values_of(self, names: tuple[str, ...]) -> list[Value]:
        """Return the values of these names, each as `get` returns it. One call for all is several times as fast."""
        raise NotImplementedError

    def names(self) -> Collection[str]:
        """Return the keys."""
        raise NotImplementedError


@dataclass(slots=True)
class LogRecord:
    """A log record that may carry token counts. Never changed; frozen would make creating it three times as slow."""

    index: int
    """Its place among all records of the body."""
    time_ns: int
    """timeUnixNano, 0 when the client set none."""
    observed_ns: int
    """observedTimeUnixNano, 0 if it is not set."""
    trace_id: str
    """Lowercase hex, or empty."""
    event_name: str
    """The attribute `event.name`, else the field eventName, else empty."""
    scope: str
    """Name of the instrumentation scope."""
    resource: dict[str, Value]
    attributes: Attributes
    names: tuple[str, ...] = ()
    """The event's names: the attribute or, when a pipeline dropped it, the field or the body."""
    hints: tuple[str, ...] = ()
    """Possible names that do not decide: the field and the body, if of one word, when there is also an attribute."""


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """A record, or a resource or scope full of them, that cannot be decoded. Its neighbours can."""

    index: int
    """Its place among all records of the body."""
    why: str
    """Never contains content."""
    found: LogRecord | None = None
    """The parts that could be decoded."""


class LogsBody:
    """A logs request that is decoded while it is walked."""

    __slots__ = ("candidates", "tally")

    def __init__(self, tally: DecodingBudget, candidates: Iterator[LogRecord | BrokenRecord]) -> None:
        self.tally = tally
        self.candidates = candidates
        """Records that may carry token counts. Any step may raise InvalidBodyError when records cannot be separated."""

    @property
    def records(self) -> int:
        """Return how many records there are; known once all candidates have been taken."""
        return self.tally.records


_NAME_ATTRIBUTES: Final = ("event.name", "event_name", "eventName")
_LONGEST_NAME: Final = 96


EventNames = tuple[str, tuple[str, ...], tuple[str, ...]]
"""`event_name`, `names` and `hints` of a LogRecord. Not a NamedTuple, which takes four times as long to make."""


def event_names(attributes: Attributes, field: str, body: Value) -> EventNames:
    """Return the names of a record's event.

    Codex writes a code location into the field, so the attribute takes precedence. Claude Code repeats the name in the
    body, with its prefix; a body is content that must not be kept, so it is used only if it is one short word.
    """
    others: tuple[str, ...] = ()
    if field and (word := _word(field)):
        others = (word,)
    if body and isinstance(body, str) and (word := _word(body)):
        others = (*others, word)
    for name in _NAME_ATTRIBUTES:
        value = attributes.get(name)
        if isinstance(value, str) and value:
            return value, (value.strip(),), others
    return field, others, others


def _word(value: str) -> str:
    """Return text that may be a name, empty when it has more than one word or is too long."""
    words = value.split(None, 1) if len(value) <= _LONGEST_NAME else []
    return words[0] if len(words) == 1 else ""
