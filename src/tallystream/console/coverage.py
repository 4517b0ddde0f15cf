"""The coverage of sessions, for their pages and lists."""

from __future__ import annotations

from collections.abc import Collection
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


def session_coverages(
    database: Database, sessions: Collection[tuple[str, str]]
) -> dict[tuple[str, str], SessionCoverage]:
    """Return which share of the known tokens of each session (connection_id, session_id) was counted.

    A session of which only its logs tell is left out.
    """
    wanted = CoverageRange(0, _LAST, among=sessions, hourly=False)
    found: dict[tuple[str, str], SessionCoverage] = {}
    for row in coverage(counted_hours(database, wanted), witnessed_hours(database, wanted), "session"):
        key = row.connection_id, row.session_id or ""
        if row.witness is None or row.seen is None or key in found:
            continue
        found[key] = SessionCoverage(
            witness="spans" if row.witness == "spans" else "metrics",
            witnessed_tokens=row.witnessed.total,
            missing_tokens=row.missing,
            seen_share=str(row.seen),
            client_versions=list(row.versions),
        )
    return found
