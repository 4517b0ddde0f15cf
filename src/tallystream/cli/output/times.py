"""Parses times and durations from the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tallystream.schemas.errors import UsageError
from tallystream.settings.forms import DURATIONS, duration

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_duration(text: str, option: str) -> timedelta:
    """Return the duration of `90m`, `24h`, `7d`, `2w`, `1d12h`, or of ISO 8601 `PT24H`, `P7D`.

    Raises:
        UsageError: the text has another form, or the duration is too long. The message names `option`.

    """
    found = duration(text)
    if found is not None:
        return found
    raise UsageError(f"{option}: {text!r} is not a valid duration", DURATIONS)


def parse_when(text: str, now_ns: int, option: str) -> int:
    """Return ns since the epoch for an ISO 8601 date or time (UTC by default), or for a duration before now.

    Raises:
        UsageError: the text is neither. The message names `option`.

    """
    try:
        at = datetime.fromisoformat(text.strip())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
        return (at - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, OverflowError):
        pass
    try:
        return now_ns - parse_duration(text, option) // timedelta(microseconds=1) * 1000
    except UsageError:
        raise UsageError(
            f"{option}: {text!r} is neither a time nor a duration",
            "times look like 2026-11-21 or 2026-11-21T14:00Z, durations like 24h or 7d (ago)",
        ) from None
