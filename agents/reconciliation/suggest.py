"""Suggests which key a connection may pay through, by correlating the hourly tokens of both. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

Hours = Mapping[str, int]
"""Tokens by hour (ISO 8601)."""
MIN_HOURS = 3
"""Hours in which both must have tokens."""
ENOUGH = Fraction(1, 2)


@dataclass(frozen=True)
class Suggestion:
    """`match` is the share of both sides' tokens that fall into the same hours, 0 to 1."""

    connection_id: str
    api_key_id: str
    project_id: str | None
    match: Fraction
    hours: int


def suggest(
    connections: Mapping[str, Hours], keys: Mapping[str, Hours], projects_of: Mapping[str, str]
) -> list[Suggestion]:
    """Return, for each connection, the key that matches best, the best match first."""
    found = []
    for connection, seen in sorted(connections.items()):
        best: Suggestion | None = None
        for key, billed in sorted(keys.items()):
            common = sum(min(seen[hour], billed[hour]) for hour in seen.keys() & billed.keys())
            whole = max(sum(seen.values()), sum(billed.values()))
            hours = len([hour for hour in seen.keys() & billed.keys() if min(seen[hour], billed[hour])])
            if not whole or hours < MIN_HOURS:
                continue
            match = Fraction(common, whole)
            if match >= ENOUGH and (best is None or match > best.match):
                best = Suggestion(connection, key, projects_of.get(key), match, hours)
        if best is not None:
            found.append(best)
    return sorted(found, key=lambda one: (-one.match, one.connection_id))
