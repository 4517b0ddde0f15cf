"""Which share of a session's known tokens was counted, for tables that have a row for each session. Pure.

It is the share of the whole session, whatever hours a table shows, because within an hour a witness may be early or
late: see `coverage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import ROUND_DOWN, Decimal
from typing import NamedTuple

from tallystream.agents.coverage import CountedHour, TokenSides, WitnessedHour, coverage
from tallystream.schemas.rows import SUM_COUNTS

SessionName = tuple[str, str]
"""(connection_id, session_id)."""
_TOTAL, _OUTPUT = SUM_COUNTS.index("total_tokens"), SUM_COUNTS.index("output")


class SessionTokens(NamedTuple):
    """Tokens of a session that has a witness: those that were counted, and those that only the witness saw."""

    counted: int
    missing: int


def seen_share(sessions: Iterable[SessionTokens]) -> str | None:
    """Return the share of the known tokens that was counted, from 0 to 1, rounded down; None without any."""
    counted = missing = 0
    for one in sessions:
        counted += one.counted
        missing += one.missing
    if not counted + missing:
        return None
    return str((Decimal(counted) / (counted + missing)).quantize(Decimal("0.0001"), ROUND_DOWN))


def witnessed_sessions(
    counted: Iterable[CountedHour], witnessed: Iterable[WitnessedHour]
) -> dict[SessionName, SessionTokens]:
    """Return the tokens of the sessions that have a witness."""
    found: dict[SessionName, SessionTokens] = {}
    for row in coverage(counted, witnessed, "session"):
        key = row.connection_id, row.session_id or ""
        if row.seen is not None and row.session_id and key not in found:
            found[key] = SessionTokens(row.counted.total, row.missing)
    return found


class SeenCounter:
    """Counts the tokens of sessions that have a witness, while the rows of the topic are read."""

    def __init__(self, witnessed: Iterable[WitnessedHour]) -> None:
        self._witnessed = [one for one in witnessed if one.session_id]
        self._names = {(one.connection_id, one.session_id) for one in self._witnessed}
        self._counted: list[CountedHour] = []

    def wants(self, connection_id: object, session_id: object) -> bool:
        """Tell whether the session has a witness."""
        return (connection_id, session_id) in self._names

    def add(self, connection_id: str, client: str, session_id: str, buckets: Iterable[Sequence[int]]) -> None:
        """Add the counts of a row's buckets."""
        for counts in buckets:
            sides = TokenSides(counts[_TOTAL] - counts[_OUTPUT], counts[_OUTPUT])
            self._counted.append(CountedHour(connection_id, client, session_id, 0, sides))

    def sessions(self) -> dict[SessionName, SessionTokens]:
        """Return the result."""
        return witnessed_sessions(self._counted, self._witnessed)
