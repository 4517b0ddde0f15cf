"""The fold's memory of a partition, besides its states."""

from __future__ import annotations

from dataclasses import dataclass, field

from tallystream.agents.session_cost import dead_letters
from tallystream.agents.session_cost.hours import HourSums
from tallystream.agents.session_cost.session_states import SessionHours
from tallystream.streams.runtime.changelog import Row


@dataclass
class Derived:
    """The in-memory state of a partition besides its rows; it is dropped with the partition and rebuilt."""

    hours: HourSums
    letters: list[dead_letters.Row]
    again: list[Row] = field(default_factory=list)
    """Rows other than heads that must be written again."""
    sessions: SessionHours = field(default_factory=SessionHours)
    weight: int = 0
    """Event ids in the cached states, STATE_IDS for each state."""
    newest: tuple[int, int] | None = None
    """Append time (ms) and event time (ns) of the newest message folded and in no group yet."""
    sent: tuple[float, tuple[int, int] | None] | None = None
    """Monotonic time and `newest` of the group that is being written."""
    watermark: bytes | None = None
    closed_hour: int = 0
    """The first hour that `watermark` does not close."""
