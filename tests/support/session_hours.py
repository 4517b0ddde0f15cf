"""Writes and reads the rows of a session-hour as a store does."""

from __future__ import annotations

from tallystream.agents.session_cost import state_rows
from tallystream.agents.session_cost.hour_state import State


class Shelf:
    """Rows by key. `written` counts the bytes of keys and values, `largest` is the largest row."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.written = 0
        self.largest = 0

    def put(self, key: bytes, state: State) -> None:
        """Write what the state has to write, tombstones last."""
        rows, gone = state_rows.dump(key, state)
        for name, value in [*rows, *gone]:
            self.written += len(name) + len(value or b"")
            self.largest = max(self.largest, len(name) + len(value or b""))
            if value is None:
                self.rows.pop(name, None)
            else:
                self.rows[name] = value

    def get(self, key: bytes) -> State:
        """Read a state."""
        return state_rows.load(key, self.rows[key], self.rows.get)
