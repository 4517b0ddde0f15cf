"""Before every request: is this sink the one that writes, for certain?"""

from __future__ import annotations

import asyncio

from tallystream.streams.poller.election import Election
from tallystream.streams.runtime.guard import boottime

MARGIN = 0.5
"""Seconds before the end of certainty at which it is asked for again."""


class Replaced(Exception):  # noqa: N818 - an event, not a mistake
    """Another sink writes, or may."""


class Fence:
    """Asks the group's coordinator, at most once in half a session timeout.

    Times are CLOCK_BOOTTIME: a process that was stopped notices. What a request may still do that was begun before the
    stop is a matter of `doubts`.
    """

    def __init__(self, election: Election, term: int, session_timeout: float) -> None:
        self._election = election
        self._term = term
        self._renew = max(MARGIN, session_timeout / 2)
        self._until = 0.0
        self._turn = asyncio.Lock()

    async def ensure(self) -> None:
        """Return while no other sink can have been given our place.

        Raises:
            Replaced: one may have been.

        """
        if self._good():
            return
        async with self._turn:
            if self._good():
                return
            until = await self._election.confirm(self._term)
            if until is None or until - MARGIN <= boottime():
                raise Replaced
            self._until = until

    def _good(self) -> bool:
        return self._election.term == self._term and boottime() < self._until - self._renew
