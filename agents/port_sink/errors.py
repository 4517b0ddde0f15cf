"""What can go wrong with a request to Port. Never holds a secret, a header or a request's body."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from tallystream.schemas.errors import TallystreamError, UnreachableError


class PortFailureReason(StrEnum):
    """What was wrong; the values are labels."""

    CREDENTIALS = "credentials"
    """Port does not accept the client id and secret, or they may not do this."""
    NOT_FOUND = "not_found"
    """404: there is no such blueprint."""
    TOO_LARGE = "too_large"
    """413: the body is over 1 MiB."""
    REJECTED = "rejected"
    """422 or another 4xx: this request will never be accepted."""
    THROTTLED = "throttled"
    """429."""
    SERVER = "server"
    """5xx."""
    UNANSWERED = "unanswered"
    """No whole answer: whether it was carried out is not known."""
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
"""What may be right later without the request being another one. Wrong credentials are put right by people."""
AWAY = RETRYABLE - {PortFailureReason.CREDENTIALS, PortFailureReason.TLS}
"""Of these, what passes by itself: a command that it ends exits like one that did not reach Port."""


class PortError(TallystreamError):
    """A request that was not carried out, or not for certain."""

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
