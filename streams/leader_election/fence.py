"""The fence, checked before every write: ensures that this process is certainly the leader."""

from __future__ import annotations

import asyncio

from tallystream.schemas.errors import RetryableError
from tallystream.streams.leader_election.election import Election
from tallystream.streams.service.clock import boottime

MARGIN = 0.5
"""Minimum seconds before the confirmation expires at which it is renewed."""


class NotLeaderError(RetryableError):
    """Another member leads, or may lead, so the write must be left to it."""

    code = "not_leader"

    def __init__(self) -> None:
        super().__init__("another member leads, or may")


class Fence:
    """The fence of one term: asks the group's coordinator, at most once in half a session timeout.

    Times are CLOCK_BOOTTIME: it includes the time for which a process was suspended. A write begun before the
    suspension may still land after it; writers must handle that.
    """

    def __init__(self, election: Election, term: int) -> None:
        self._election = election
        self._term = term
        self._renew = max(MARGIN, election.session_timeout / 2)
        self._until = 0.0
        self._turn = asyncio.Lock()

    async def ensure(self) -> None:
        """Return if no other member can have replaced us.

        Raises:
            NotLeaderError: another member may have replaced us.

        """
        if self._good():
            return
        async with self._turn:
            if self._good():
                return
            until = await self._election.confirm(self._term)
            if until is None or until - MARGIN <= boottime():
                raise NotLeaderError
            self._until = until

    def _good(self) -> bool:
        return self._election.term == self._term and boottime() < self._until - self._renew
