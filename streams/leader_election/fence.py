"""Checked before every write: is this process the leader, for certain?"""

from __future__ import annotations

import asyncio

from tallystream.schemas.errors import RetryableError
from tallystream.streams.leader_election.election import Election
from tallystream.streams.service.clock import boottime

MARGIN = 0.5
"""Seconds before the end of certainty at which it is asked for again, at the least."""


class NotLeaderError(RetryableError):
    """Another member leads, or may: what was to be written is left to it."""

    code = "not_leader"

    def __init__(self) -> None:
        super().__init__("another member leads, or may")


class Fence:
    """The fence of one term: asks the group's coordinator, at most once in half a session timeout.

    Times are CLOCK_BOOTTIME: a process that was stopped notices. What was begun before the stop may still land after
    it; that is for whoever writes to undo.
    """

    def __init__(self, election: Election, term: int) -> None:
        self._election = election
        self._term = term
        self._renew = max(MARGIN, election.session_timeout / 2)
        self._until = 0.0
        self._turn = asyncio.Lock()

    async def ensure(self) -> None:
        """Return while no other member can have been given our place.

        Raises:
            NotLeaderError: one may have been.

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
