"""Errors of a poll. They do not stop the poller: each is counted, logged, and retried at the next poll."""

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
    """No complete response in time, after all retries."""
    CONNECTION = "connection"
    """The connection failed or broke, after all retries."""
    UNDECODABLE = "undecodable"
    """The response is not JSON."""
    SHAPE = "shape"
    """The response is JSON but does not match the resource's declaration: the API may have changed."""
    PAGINATION = "pagination"
    """The pagination does not end."""
    TOO_LARGE = "too_large"
    """A response is larger than our limit, or a bucket larger than Kafka accepts."""
    EXPRESSION = "expression"
    """A JQ expression of the resource failed."""
    TOKEN = "token"  # noqa: S105 - a label
    """The API key is not set, or its file cannot be read."""
    KAFKA = "kafka"
    """Fetched, but Kafka did not accept it."""
    INTERNAL = "internal"
    """A bug in tallystream."""


RETRYABLE = frozenset(
    {FailureReason.RATE_LIMITED, FailureReason.SERVER_ERROR, FailureReason.TIMEOUT, FailureReason.CONNECTION}
)


class PollError(TallystreamError):
    """A poll failed and nothing was published. The error never contains a key, a header or a body."""

    code: ClassVar[str] = "poll_failed"

    def __init__(self, why: FailureReason, message: str, hint: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message, hint)
        self.why = why
        self.retry_after = retry_after
        self.retryable = why in RETRYABLE
        self.exit_code = UnreachableError.exit_code if self.retryable else 1
