"""The heartbeat guard: a worker that may have been replaced must not write."""

from __future__ import annotations

from collections.abc import Callable

from tallystream.streams.service.clock import boottime


class Membership:
    """Knows whether this worker is certainly still a member of its group.

    Promise: `lost()` is None only while the last heartbeat the broker accepted was SENT less than a session timeout
    ago, because until then the broker cannot have reassigned our partitions. It keeps most late rows of a suspended
    worker off the public topics. It cannot be exact, because a socket write may be delayed after the check, so correct
    counts do not depend on it: they depend on positions, versions and the changelog's contiguity.

    Written by the consumer thread, read by the main one; each write is one attribute.
    """

    def __init__(self, session_timeout: float, clock: Callable[[], float] = boottime) -> None:
        self._timeout = session_timeout
        self._clock = clock
        self._sent: float | None = None
        self._heard = clock()

    def now(self) -> float:
        """Return the guard's clock; read it before a heartbeat is sent."""
        return self._clock()

    def confirmed(self, sent: float) -> None:
        """Note that the broker accepted a heartbeat that was sent at `sent`."""
        self._sent = self._heard = sent

    def ended(self) -> None:
        """Note that the broker has ended our membership."""
        self._sent = None

    def age(self) -> float | None:
        """Return seconds since the last accepted heartbeat was sent; None when we are not a member."""
        return None if (sent := self._sent) is None else self._clock() - sent

    def silence(self) -> float:
        """Return seconds since the last accepted heartbeat, or since the start without one."""
        return self._clock() - self._heard

    def lost(self) -> str | None:
        """Return why writing is forbidden now, or None when it is safe."""
        age = self.age()
        if age is None:
            return "not a member of the group"
        if age > self._timeout:
            return f"last heartbeat {age:.1f} s ago: another worker may own these partitions"
        return None
