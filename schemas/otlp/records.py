"""What a log record looks like to a normaliser, whatever encoding it came in.

Only records that may carry token counts get this far: a body is mostly other events, and decoding those would be the
larger part of a gateway's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from tallystream.schemas.otlp.limits import DecodingBudget


@dataclass(frozen=True, slots=True)
class Broken:
    """An attribute's value that is not what its type says. It is not absent: a count that is broken is no 0."""

    why: str
    """Free of content."""

    def __repr__(self) -> str:
        return f"not decodable ({self.why})"


Value = str | int | float | bool | bytes | Broken | None
"""An attribute's value. Bytes, arrays and key-value lists all come as `OPAQUE`: nothing we count or keep is one."""

OPAQUE: Final = b""

MARK: Final = b"oken"
"""What every name of a token count holds, whatever its case: `input_token_count`, `inputTokens`."""

_HINT: Final = "oken(?:s|[._-]?[cC]ount|_usage)"
HINT: Final = re.compile(_HINT.encode())
NAMES_HINT: Final = re.compile(_HINT)
"""What the bytes, and the names, of every record with token counts hold. What matches may still be something else.
The pattern begins with a literal, so that the search for it is one scan.
"""


class Attributes(Protocol):
    """Attributes of a record, each decoded when it is asked for. Of two with one key the last one counts."""

    def get(self, name: str) -> Value:
        """Return the value, or None when it is absent or empty."""
        ...

    def names(self) -> Iterable[str]:
        """Return the keys."""
        ...


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A log record that may carry token counts."""

    index: int
    """Its place among all records of the body."""
    time_ns: int
    """timeUnixNano, 0 when the client set none."""
    observed_ns: int
    """observedTimeUnixNano, 0 when nobody set it."""
    trace_id: str
    """Lowercase hex, or empty."""
    event_name: str
    """The attribute `event.name`, else the field eventName, else empty."""
    scope: str
    """Name of the instrumentation scope."""
    resource: dict[str, Value]
    attributes: Attributes
    names: tuple[str, ...] = ()
    """What names the event: the attribute, or where a pipeline dropped that, the field or the body."""
    hints: tuple[str, ...] = ()
    """What may name the event, but does not decide: the field and the body, of one word, beside an attribute."""


@dataclass(frozen=True, slots=True)
class BrokenRecord:
    """A record, or a resource or scope full of them, that cannot be decoded. Its neighbours can."""

    index: int
    """Its place among all records of the body."""
    why: str
    """Free of content."""
    found: LogRecord | None = None
    """What of it could be decoded."""


class LogsBody:
    """A logs request that is decoded while it is walked."""

    __slots__ = ("candidates", "tally")

    def __init__(self, tally: DecodingBudget, candidates: Iterator[LogRecord | BrokenRecord]) -> None:
        self.tally = tally
        self.candidates = candidates
        """Those that may carry token counts. Any step may raise InvalidBodyError: nothing could be told apart."""

    @property
    def records(self) -> int:
        """Return how many records there are; known once all candidates have been taken."""
        return self.tally.records


_NAME_ATTRIBUTES: Final = ("event.name", "event_name", "eventName")
_LONGEST_NAME: Final = 96


@dataclass(frozen=True, slots=True)
class EventNames:
    """The names of a record's event, as LogRecord has them."""

    event_name: str
    names: tuple[str, ...]
    hints: tuple[str, ...]


def event_names(attributes: Attributes, field: str, body: Value) -> EventNames:
    """Return a record's names.

    Codex writes a code location into the field, so the attribute goes first. Claude Code repeats the name in the body,
    with its prefix; a body is text that nobody may keep, so only one short word of it is looked at.
    """
    others = tuple(_word(value) for value in (field, body) if isinstance(value, str) and _word(value))
    for name in _NAME_ATTRIBUTES:
        value = attributes.get(name)
        if isinstance(value, str) and value:
            return EventNames(value, (value.strip(),), others)
    return EventNames(field, others, others)


def _word(value: str) -> str:
    """Return text that may be a name, empty when it has more than one word or is too long."""
    words = value.split(None, 1) if len(value) <= _LONGEST_NAME else []
    return words[0] if len(words) == 1 else ""
