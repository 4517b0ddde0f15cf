"""Normalises a rejected record again from its dead letter, which keeps the fields that the rules read.

The event gets the same identity as the original record, so it counts once even if the client sends it again.
"""

from __future__ import annotations

from typing import Any

from tallystream.schemas.clients.logs import Pack, normalise_record
from tallystream.schemas.otlp.attributes import PlainAttributes
from tallystream.schemas.otlp.records import LogRecord
from tallystream.schemas.usage import ATTRIBUTION_KEYS

_APART = frozenset({"event.name", "event.hint", "scope.name", "traceId", "timeUnixNano", "observedTimeUnixNano"})


def renormalise(letter: dict[str, Any]) -> Pack | None:
    """Return the usage of the record in a gateway's dead letter, None when this version still does not count it.

    Raises:
        InvalidRecordError: it still cannot be counted.

    """
    named, hint = _text(letter, "event.name"), _text(letter, "event.hint")
    record = LogRecord(
        0,
        _number(letter, "timeUnixNano"),
        _number(letter, "observedTimeUnixNano"),
        _text(letter, "traceId"),
        named,
        _text(letter, "scope.name"),
        {"service.name": _text(letter, "service.name")},
        PlainAttributes(
            {
                name: value
                for name, value in letter.items()
                if name not in _APART and isinstance(value, str | int | float | bool)
            }
        ),
        (named,) if named else ((hint,) if hint else ()),
        (hint,) if hint else (),
    )
    whose = letter.get("attribution")
    shown = whose.items() if isinstance(whose, dict) else ()
    return normalise_record(record, {key: str(value) for key, value in shown if key in ATTRIBUTION_KEYS})


def _text(letter: dict[str, Any], name: str) -> str:
    value = letter.get(name)
    return value if isinstance(value, str) else ""


def _number(letter: dict[str, Any], name: str) -> int:
    value = letter.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
