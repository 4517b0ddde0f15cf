"""The coverage of sessions, for their pages and lists."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import BaseModel

from tallystream.agents.coverage import coverage
from tallystream.agents.ledger.queries.coverage import CoverageRange, counted_hours, witnessed_hours
from tallystream.agents.ledger.store.database import Database

_LAST = 10**6
"""An hour after all."""


class SessionCoverage(BaseModel):
    """What the client's other signals say of a session; they never add to its cost."""

    witness: Literal["spans", "metrics"]
    """The signal that tells most."""
    witnessed_tokens: int
    missing_tokens: int
    """Tokens that the witness saw and that were not counted."""
    seen_share: str
    """Counted tokens of those that are known, from 0 to 1."""
    client_versions: list[str]


def session_coverage(database: Database, connection_id: str, session_id: str) -> SessionCoverage | None:
    """Return which share of a session's known tokens was counted; None if only its logs tell of it."""
    wanted = CoverageRange(0, _LAST, connection_id, session_id, hourly=False)
    rows = coverage(counted_hours(database, wanted), witnessed_hours(database, wanted), "session")
    row = next((row for row in rows if row.witness is not None), None)
    if row is None or row.seen is None:
        return None
    return SessionCoverage(
        witness="spans" if row.witness == "spans" else "metrics",
        witnessed_tokens=row.witnessed.total,
        missing_tokens=row.missing,
        seen_share=str(row.seen),
        client_versions=list(row.versions),
    )


def seen_shares(database: Database, sessions: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return the share of each session (connection_id, session_id) that another signal than its logs tells of."""
    found = {one: session_coverage(database, *one) for one in sessions}
    return {one: seen.seen_share for one, seen in found.items() if seen is not None}
