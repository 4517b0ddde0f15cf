"""The error tree. What an error is decides, everywhere, what happens next.

TallystreamError              code, message, hint: one line for people, the same three fields for programs
├── InvalidRecordError             a record cannot be counted: it is kept as a dead letter with its `reason`
├── InvalidBodyError               a request body cannot be decoded: the client gets a 400
│   └── TooManyElementsError       it holds more than one body may: the client gets a 413
├── UsageError                the caller asked for something impossible (exit 2)
├── UnreachableError               something needed did not answer in time (exit 3)
├── MismatchError                  a check found a difference (exit 4)
└── UnfitError                     what exists does not fit what we need (a topic's settings, a store's format)
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Reason(StrEnum):
    """Why a record did not count. The values are public: they are labels, and `deadletters list` prints them."""

    UNDECODABLE = "undecodable"
    """The request body, or one record of it, is not OTLP."""
    UNRECOGNISED_USAGE = "unrecognised_usage"
    """A record carries token counts but no normaliser knows it: a client may have renamed something."""
    INVALID_COUNTS = "invalid_counts"
    """A count is negative, not a number, or the parts exceed the whole."""
    CONFLICTING_COUNTS = "conflicting_counts"
    """Two records of one request have different counts: the larger counts, this one is shown beside it."""
    NO_SESSION = "no_session"
    """A usage record names no session."""
    NO_TIME = "no_time"
    """A usage record has no time of its own; ours is never used instead."""
    TOO_LATE = "too_late"
    """The event's hour ended longer than `lateness` before its message was appended."""
    FROM_THE_FUTURE = "from_the_future"
    """The event lies 24 h or more after the time its message was appended."""
    BEYOND_DEDUPE = "beyond_dedupe"
    """Too old for the ids the hour remembers: it may have been counted already."""
    CLOSED = "closed"
    """The event's hour has been removed from the state for good."""
    ROW_FULL = "row_full"
    """The session-hour has as many different models, tiers and attributions as one row can hold."""
    INVALID_MESSAGE = "invalid_message"
    """A Kafka message does not fit its schema."""
    UNKNOWN_CONNECTION = "unknown_connection"
    """The ingest id was in quarantine while Kafka was away and turned out to belong to no connection."""
    MAPPING_FAILED = "mapping_failed"
    """An expression of a Port mapping fails on the record, or gives no entity."""
    PORT_REFUSED = "port_refused"
    """Port does not take the entity, and will not."""


class TallystreamError(Exception):
    """Base of all: `message` says what is wrong, `hint` what to do next."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidRecordError(TallystreamError):  # noqa: N818 - a verdict on a record, as its callers read it
    """A record that must be kept as a dead letter."""

    code = "invalid_record"

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class InvalidBodyError(TallystreamError):  # noqa: N818
    """A request body that is not what its Content-Type says."""

    code = "invalid_body"


class TooManyElementsError(InvalidBodyError):
    """A request body that holds more resources, scopes or records than one body may."""

    code = "too_many_elements"

    def __init__(self, message: str) -> None:
        super().__init__(message, "send smaller batches")


class UsageError(TallystreamError):
    """The command as given cannot be carried out."""

    code = "usage"
    exit_code = 2


class UnreachableError(TallystreamError):  # noqa: N818
    """Something needed is away, or did not answer within the time given."""

    code = "unreachable"
    exit_code = 3


class MismatchError(TallystreamError):  # noqa: N818
    """Two things that must be equal are not."""

    code = "mismatch"
    exit_code = 4


class UnfitError(TallystreamError):  # noqa: N818
    """Something exists but does not fit: starting anyway could lose or double data."""

    code = "unfit"
