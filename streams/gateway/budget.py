"""A limit on the memory of all requests in progress: bytes as sent, and what they expand to."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from tallystream.streams.gateway.errors import RequestRefusedError


class Budget:
    """Counts the bytes of all requests in progress against one limit."""

    def __init__(self, limit: int, retry_after: int) -> None:
        self._limit = limit
        self._retry_after = retry_after
        self.bytes = 0

    def lease(self) -> Lease:
        """Return a context manager that returns its bytes at the end."""
        return Lease(self)

    def take(self, size: int) -> None:
        """Count bytes in.

        Raises:
            RequestRefusedError: 503, the limit is reached.

        """
        if self.bytes + size > self._limit:
            raise RequestRefusedError(
                503, "the gateway has reached its memory limit for requests, send again", retry_after=self._retry_after
            )
        self.bytes += size

    def give_back(self, size: int) -> None:
        """Count bytes out."""
        self.bytes -= size


class Lease:
    """The bytes that one request holds."""

    __slots__ = ("_budget", "bytes")

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._budget.give_back(self.bytes)
        self.bytes = 0

    def take(self, size: int) -> None:
        """Count bytes in; raises what `Budget.take` raises."""
        self._budget.take(size)
        self.bytes += size

    def give_back(self, size: int) -> None:
        """Count bytes out before the end."""
        self._budget.give_back(size)
        self.bytes -= size
