"""A limit on the memory of all requests in progress: bytes as sent, and what they expand to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tallystream.streams.gateway.errors import RequestRefusedError


class Budget:
    """Counts the bytes of all requests in progress against one limit."""

    def __init__(self, limit: int, retry_after: int) -> None:
        self._limit = limit
        self._retry_after = retry_after
        self.bytes = 0

    @contextmanager
    def lease(self) -> Iterator[Lease]:
        """Yield a lease that returns its bytes at the end."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            self.bytes -= lease.bytes

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

    def take(self, size: int) -> None:
        """Count bytes in; raises what `Budget.take` raises."""
        self._budget.take(size)
        self.bytes += size

    @contextmanager
    def more(self, size: int) -> Iterator[None]:
        """Count bytes in temporarily; raises what `Budget.take` raises."""
        self._budget.take(size)
        try:
            yield
        finally:
            self._budget.give_back(size)
