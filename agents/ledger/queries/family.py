"""The sessions that a session started, and those that started it."""

from __future__ import annotations

from dataclasses import dataclass

from tallystream.agents.ledger.amounts import join_money
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.session_tree import MAX_DEPTH

MAX_CHILDREN = 500
"""Maximum number of sessions below one that are shown."""


@dataclass(frozen=True)
class FamilyMember:
    """A session below another one; `depth` is 1 for those that it started itself."""

    session_id: str
    parent_session_id: str
    depth: int
    requests: int
    total_tokens: int
    unpriced: int
    cost: int | None
    """Pico-dollars."""


def parents(database: Database, connection_id: str, session_id: str) -> list[str]:
    """Return the sessions above a session, the nearest first."""
    found: list[str] = []
    at = session_id
    while len(found) < MAX_DEPTH:
        rows = database.rows(
            "SELECT parent_session_id FROM session_link WHERE connection_id = ? AND session_id = ?", (connection_id, at)
        )
        if not rows or rows[0][0] == session_id or rows[0][0] in found:
            break
        at = str(rows[0][0])
        found.append(at)
    return found


def children(database: Database, connection_id: str, session_id: str) -> list[FamilyMember]:
    """Return the sessions below a session that have usage, parents before their children; MAX_CHILDREN at most."""
    found: list[FamilyMember] = []
    known, level, depth = {session_id}, [session_id], 1
    while level and depth <= MAX_DEPTH and len(found) < MAX_CHILDREN:
        marks = ", ".join("?" * len(level))
        rows = database.rows(
            "SELECT l.session_id, l.parent_session_id, s.requests, s.total_tokens, s.unpriced_requests, s.cost_hi,"
            " s.cost_lo, s.first_hour FROM session_link l LEFT JOIN session s ON s.connection_id = l.connection_id"
            f" AND s.session_id = l.session_id WHERE l.connection_id = ? AND l.parent_session_id IN ({marks})"
            " ORDER BY l.parent_session_id, l.session_id LIMIT ?",
            (connection_id, *level, MAX_CHILDREN),
        )
        level = []
        for child, parent, requests, tokens, unpriced, hi, lo, first_hour in rows:
            if child in known:
                continue
            known.add(child)
            level.append(str(child))
            if first_hour is not None:
                sums = int(requests), int(tokens), int(unpriced)
                found.append(FamilyMember(str(child), str(parent), depth, *sums, join_money(hi, lo)))
        depth += 1
    return found[:MAX_CHILDREN]
