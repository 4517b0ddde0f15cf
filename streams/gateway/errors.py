"""Errors for requests that are not answered with 200. Each has an HTTP status and the gRPC code of its
google.rpc.Status.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tallystream.schemas.errors import RetryableError, TallystreamError

GRPC_CODES = MappingProxyType(
    {400: 3, 401: 16, 404: 5, 405: 12, 408: 4, 413: 8, 415: 3, 417: 3, 429: 8, 431: 8, 503: 14},
)
"""google.rpc.Code by HTTP status."""
RETRYABLE_STATUSES = frozenset({429, 502, 503, 504})
"""After these an OTLP client sends the request again (opentelemetry-proto, "Retryable Response Codes")."""


class RequestRefusedError(TallystreamError):
    """The request is answered with `status`; `message` is sent to the client and must not contain secrets."""

    code = "request_refused"

    def __init__(
        self,
        status: int,
        message: str,
        *,
        headers: Mapping[str, str] | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retryable = status in RETRYABLE_STATUSES
        self.headers = dict(headers or {})
        self.retry_after = retry_after
        if retry_after is not None:
            self.headers["Retry-After"] = str(retry_after)


MAX_HEAD = 64 << 10
"""Maximum bytes of the request line and all headers together."""


def head_too_long() -> RequestRefusedError:
    """Return the 431."""
    return RequestRefusedError(
        431,
        f"the request line and headers may have at most {MAX_HEAD} bytes together",
        headers={"Connection": "close"},
    )


class UndecodableError(RequestRefusedError):
    """The body does not match its headers: answered with 400, and recorded as a dead letter with size, hash and
    reason.
    """

    code = "undecodable"

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class NotDurableError(RetryableError):
    """Neither Kafka nor the spool has accepted the messages, so the client must send them again."""

    code = "not_durable"


class SpoolFullError(NotDurableError):
    """The spool has reached its maximum size."""

    code = "spool_full"


class SpoolWriteError(NotDurableError):
    """SQLite could not write: full disk, I/O error."""

    code = "spool_write"


class SpoolCorruptError(SpoolWriteError):
    """SQLite reports that the file is damaged or not a database: the only reason for setting a spool aside."""


class ProducerLostError(RetryableError):
    """The producer was closed. The outcome of the batch is unknown, so it is treated as not delivered.

    `rejected` is Kafka's reason when it refused this batch permanently.
    """

    code = "producer_lost"

    def __init__(self, rejected: str = "") -> None:
        super().__init__(rejected or "the connection to Kafka was lost")
        self.rejected = rejected
