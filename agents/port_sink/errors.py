"""Errors of requests to Port. They never contain a secret, a header or a request's body."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from tallystream.schemas.errors import TallystreamError, UnreachableError


class PortFailureReason(StrEnum):
    """Reasons of failed requests; the values are metric labels."""

    CREDENTIALS = "credentials"
    """Port does not accept the client id and secret, or they may not do this."""
    NOT_FOUND = "not_found"
    """404: the blueprint does not exist."""
    TOO_LARGE = "too_large"
    """413: the body is over 1 MiB."""
    REJECTED = "rejected"
    """422 or another 4xx: this request will never be accepted."""
    THROTTLED = "throttled"
    """429."""
    SERVER = "server"
    """5xx."""
    UNANSWERED = "unanswered"
    """No complete response, so it is unknown whether the request was carried out."""
    TLS = "tls"
    """The certificate is not trusted."""


RETRYABLE = frozenset(
    {
        PortFailureReason.THROTTLED,
        PortFailureReason.SERVER,
        PortFailureReason.UNANSWERED,
        PortFailureReason.CREDENTIALS,
        PortFailureReason.TLS,
    }
)
"""Failures after which the same request may succeed later. Wrong credentials are corrected by people."""
AWAY = RETRYABLE - {PortFailureReason.CREDENTIALS, PortFailureReason.TLS}
"""Of these, the failures that resolve themselves: a command exits as if Port could not be reached."""


class PortError(TallystreamError):
    """A request that was not, or not certainly, carried out."""

    code: ClassVar[str] = "port"

    def __init__(
        self,
        why: PortFailureReason,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.why = why
        self.status = status
        self.retry_after = retry_after
        self.retryable = why in RETRYABLE
        self.exit_code = UnreachableError.exit_code if why in AWAY else 1
