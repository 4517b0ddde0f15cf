"""Finds the session-hour in which a request has been counted, whatever time another record of it has.

A client's own request id says that two records are one request, and their times need not lie in the same hour: the
first record of a response that takes a minute, or a pipeline that stamps what it sends again. Such a request stays in
the hour of the record that came first. It is found as long as that hour is open and remembers the id (`event_ids`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tallystream.agents.session_cost.hour_state import State
from tallystream.agents.session_cost.parse import Event
from tallystream.agents.session_cost.state_rows import is_head
from tallystream.schemas.hours import hour_from_iso
from tallystream.streams.runtime import Partition


class CountedAt(NamedTuple):
    """Where an event counts: a state and its key, the event as that hour takes it, and whether its row was final."""

    key: bytes
    state: State
    event: Event
    late: bool


class SessionHours:
    """The hours in which sessions of a partition have states, stored or not. Sessions are prefixes of keys.

    A session's hours are read from the store once, before its first state that is not in the store is made.
    """

    def __init__(self) -> None:
        self._hours: dict[bytes, set[int]] = {}

    def of(self, partition: Partition, session: bytes) -> set[int]:
        """Return the session's hours; add those of new states to it."""
        hours = self._hours.get(session)
        if hours is None:
            hours = self._hours[session] = set(_stored(partition, session))
        return hours

    def keep(self, keys: Iterable[bytes]) -> None:
        """Forget all sessions but those of `keys`, whose states are not in the store yet."""
        kept = {key.rpartition(b"|")[0] + b"|" for key in keys}
        self._hours = {session: hours for session, hours in self._hours.items() if session in kept}


def _stored(partition: Partition, session: bytes) -> Iterator[int]:
    for key in partition.stored_keys(session):
        if not is_head(key):  # blocks and descriptions, which are named by a letter, come after all hours
            return
        yield hour_from_iso(key[len(session) :].decode())
