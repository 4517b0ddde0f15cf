"""What can go wrong with a poll. None of it stops the poller: it is counted, said, and tried again next time."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from tallystream.schemas.errors import TallystreamError, UnreachableError


class FailureReason(StrEnum):
    """Label `reason` of `tallystream_poller_failures_total`."""

    UNAUTHORISED = "unauthorised"
    """401: the key is not valid."""
    FORBIDDEN = "forbidden"
    """403: the key is valid but of the wrong kind, or lacks a permission."""
    NOT_FOUND = "not_found"
    """404: no such endpoint at this base URL."""
    REJECTED = "rejected"
    """Another 4xx, or a redirect: the request itself is not accepted."""
    RATE_LIMITED = "rate_limited"
    """429 after all retries."""
    SERVER_ERROR = "server_error"
    """5xx after all retries."""
    TIMEOUT = "timeout"
    """No whole answer in time, after all retries."""
    CONNECTION = "connection"
    """No connection, or one that broke, after all retries."""
    UNDECODABLE = "undecodable"
    """The answer is not JSON."""
    SHAPE = "shape"
    """The answer is JSON but not what the resource declares: an API may have changed."""
    PAGINATION = "pagination"
    """The pages do not lead to an end."""
    TOO_LARGE = "too_large"
    """An answer or a bucket is larger than we can hold or Kafka accepts."""
    EXPRESSION = "expression"
    """A JQ expression of the resource failed."""
    TOKEN = "token"  # noqa: S105 - a label
    """There is no key to ask with, or its file cannot be read."""
    KAFKA = "kafka"
    """Fetched, but Kafka did not take it."""
    INTERNAL = "internal"
    """A defect of ours."""


RETRYABLE = frozenset(
    {FailureReason.RATE_LIMITED, FailureReason.SERVER_ERROR, FailureReason.TIMEOUT, FailureReason.CONNECTION}
)


class PollError(TallystreamError):
    """A poll that published nothing. Never holds a key, a header or a body."""

    code: ClassVar[str] = "poll_failed"

    def __init__(self, why: FailureReason, message: str, hint: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message, hint)
        self.why = why
        self.retry_after = retry_after
        self.retryable = why in RETRYABLE
        self.exit_code = UnreachableError.exit_code if self.retryable else 1
