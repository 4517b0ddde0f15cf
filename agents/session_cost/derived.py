"""The fold's memory of a partition, besides its states."""

from __future__ import annotations

from dataclasses import dataclass, field

from tallystream.agents.session_cost import dead_letters
from tallystream.agents.session_cost.hour_state import Bounds, Window
from tallystream.agents.session_cost.hours import HourSums
from tallystream.agents.session_cost.known_sessions import KnownSessions
from tallystream.agents.session_cost.session_states import SessionHours
from tallystream.schemas.hours import hour_from_iso
from tallystream.streams.runtime.changelog import Row

STATE_IDS = 30
"""Weight of a decoded state besides its ids."""


@dataclass
class Derived:
    """The in-memory state of a partition besides its rows; it is dropped with the partition and rebuilt."""

    window: Window
    hours: HourSums
    letters: list[dead_letters.Row]
    again: list[Row] = field(default_factory=list)
    """Rows other than heads that must be written again."""
    sessions: SessionHours = field(default_factory=SessionHours)
    known: KnownSessions = field(default_factory=KnownSessions)
    weight: int = 0
    """Event ids in the cached states, STATE_IDS for each state."""
    newest: tuple[int, int] | None = None
    """Append time (ms) and event time (ns) of the newest message folded and in no group yet."""
    sent: tuple[float, tuple[int, int] | None] | None = None
    """Monotonic time and `newest` of the group that is being written."""
    watermark: bytes | None = None
    closed_hour: int = 0
    """The first hour that `watermark` does not close."""
    _bounds: Bounds | None = None

    def close(self, watermark: bytes | None) -> None:
        """Note the partition's watermark."""
        self.watermark = watermark
        self.closed_hour = hour_from_iso(watermark.decode()) if watermark else 0
        self._bounds = None

    def folded(self, events: int, append_ms: int, at: int) -> None:
        """Note a message with so many events, the last of them of the time `at`. Sessions are folded one after the
        other, so the newest message may come before others.
        """
        self.weight += events
        if self.newest is None or append_ms >= self.newest[0]:
            self.newest = append_ms, at

    def bounds(self, append_ms: int) -> Bounds:
        """Return the bounds of messages appended at this time, which those of one record batch have in common."""
        bounds = self._bounds
        if bounds is None or bounds.append_ms != append_ms:
            bounds = self._bounds = self.window.bounds(append_ms, self.closed_hour)
        return bounds
