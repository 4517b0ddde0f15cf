"""What a log record looks like to a normaliser, whatever encoding it came in.

Only records that may carry token counts get this far: a body is mostly other events, and decoding those would be the
larger part of a gateway's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

Value = str | int | float | bool | bytes | None
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


@dataclass(frozen=True, slots=True)
class LogsBody:
    """A decoded logs request: how many records it holds, and those that may carry token counts."""

    records: int
    candidates: Iterator[LogRecord]
    """Decoded while it is walked: any step may raise InvalidBodyError."""


def event_name(attributes: Attributes, field: str) -> str:
    """Return a record's name. Codex writes a code location into the field, so the attribute goes first."""
    name = attributes.get("event.name")
    return name if isinstance(name, str) and name else field
