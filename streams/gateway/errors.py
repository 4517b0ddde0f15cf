"""Why a request is not answered 200. Each knows its HTTP status and the gRPC code its google.rpc.Status carries."""

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
    """The request is answered with `status`; `message` goes to the client and holds nothing secret."""

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
"""Bytes of a request's line and headers together, and so of each."""


def head_too_long() -> RequestRefusedError:
    """Return the 431."""
    return RequestRefusedError(
        431,
        f"the request's line and headers may have {MAX_HEAD} bytes, together and each",
        headers={"Connection": "close"},
    )


class UndecodableError(RequestRefusedError):
    """The body is not what its headers say: answered 400, and kept as a dead letter of size, hash and reason."""

    code = "undecodable"

    def __init__(self, message: str) -> None:
        super().__init__(400, message)


class NotDurableError(RetryableError):
    """Neither Kafka nor the spool has taken the messages: the client must send them again."""

    code = "not_durable"


class SpoolFullError(NotDurableError):
    """The spool holds as many bytes as it may."""

    code = "spool_full"


class SpoolWriteError(NotDurableError):
    """SQLite could not write: full disk, I/O error."""

    code = "spool_write"


class SpoolCorruptError(SpoolWriteError):
    """SQLite says that the file is damaged, or is no database: the only reason for setting a spool aside."""


class ProducerLostError(RetryableError):
    """The producer is gone; what became of the batch is unknown, so it counts as not delivered.

    `rejected` is Kafka's reason when it refused this very batch, and would again.
    """

    code = "producer_lost"

    def __init__(self, rejected: str = "") -> None:
        super().__init__(rejected or "the connection to Kafka was lost")
        self.rejected = rejected
