"""Coverage: which share of the tokens that are known of was counted. Pure.

What was counted from logs is compared with what the client's other signals say, its witnesses. Of several witnesses the
one that tells most is taken: in the recordings no signal ever says more than was used, so the highest is nearest to the
truth, and of equal ones spans, because each stands for itself.

A turn's tokens are witnessed when it ends or when metrics are exported, and counted response by response. So in an
hour, and at the beginning of a range, the two may differ although nothing is missing; over a session they are equal.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal
from typing import Literal, NamedTuple

CoverageAxis = Literal["connection", "session", "hour"]
SOURCES = ("spans", "metrics")
_SessionKey = tuple[str, str, str]
"""Connection, client and session."""
NO_SESSION = ""
"""Session of witnesses that do not name one, and of the row of what only they saw."""


class TokenSides(NamedTuple):
    """Tokens of both directions; cached ones and those of tools are input, reasoning is output."""

    input: int = 0
    output: int = 0

    @property
    def total(self) -> int:
        """Their sum."""
        return self.input + self.output

    def plus(self, other: TokenSides) -> TokenSides:
        """Add, side by side."""
        return TokenSides(self.input + other.input, self.output + other.output)


class CountedHour(NamedTuple):
    """What was counted of a session in an hour (since 1970)."""

    connection_id: str
    client: str
    session_id: str
    hour: int
    tokens: TokenSides


class WitnessedHour(NamedTuple):
    """What a source says of a session, or of sessions that it does not name, in an hour."""

    connection_id: str
    client: str
    session_id: str
    hour: int
    source: str
    version: str
    tokens: TokenSides


@dataclass(frozen=True)
class CoverageRow:
    """A comparison. `session_id` and `hour` are None in rows that add them up."""

    connection_id: str
    client: str
    session_id: str | None
    hour: int | None
    counted: TokenSides
    witnessed: TokenSides
    """By `witness`; of a connection, the sum over its sessions, or its metrics if they tell more."""
    missing: int
    """Tokens that a witness saw and that were not counted."""
    witness: str | None
    """The source that is compared: the one that tells most. None without any."""
    by_source: Mapping[str, int]
    """Tokens by source."""
    versions: tuple[str, ...]
    """Versions of the client that its witnesses name."""

    @property
    def seen(self) -> Decimal | None:
        """The share of the known tokens that was counted, from 0 to 1, rounded down; None without a witness."""
        known = self.counted.total + self.missing
        if not self.witnessed.total or not known:
            return None
        return (Decimal(self.counted.total) / known).quantize(Decimal("0.0001"), ROUND_DOWN)


@dataclass(slots=True)
class _Sums:
    counted: TokenSides = field(default_factory=TokenSides)
    said: dict[str, TokenSides] = field(default_factory=dict)
    versions: set[str] = field(default_factory=set)

    def count(self, tokens: TokenSides) -> None:
        self.counted = self.counted.plus(tokens)

    def add(self, said: WitnessedHour) -> None:
        self.said[said.source] = self.said.get(said.source, TokenSides()).plus(said.tokens)
        if said.version:
            self.versions.add(said.version)

    def best(self) -> str | None:
        """Return the source that tells most, None without any."""
        found = [source for source in SOURCES if self.said.get(source, TokenSides()).total]
        return max(found, key=lambda source: self.said[source].total, default=None)


def coverage(
    counted: Iterable[CountedHour], witnessed: Iterable[WitnessedHour], by: CoverageAxis = "connection"
) -> list[CoverageRow]:
    """Return the rows, those with most missing first.

    Witnesses that name no session (the metrics of Codex) are compared with a connection. What they saw beyond all of
    its sessions belongs to sessions that nobody names: with `by` "session" it is a row of its own, with NO_SESSION, so
    that the rows of sessions miss as much as the connection does. Hours have no such row: within an hour, what was not
    seen cannot be told from what was counted an hour before.
    """
    sessions: dict[_SessionKey, _Sums] = defaultdict(_Sums)
    hours: dict[tuple[_SessionKey, int], _Sums] = defaultdict(_Sums)
    for one in counted:
        sessions[one[:3]].count(one.tokens)
        if by == "hour":
            hours[one[:3], one.hour].count(one.tokens)
    for said in witnessed:
        sessions[said[:3]].add(said)
        if by == "hour":
            hours[said[:3], said.hour].add(said)
    if by == "connection":
        rows = _connections(sessions)
    elif by == "session":
        rows = [_row(key, None, sums, sums.best()) for key, sums in sessions.items() if key[2] != NO_SESSION]
        rows += _unnamed(sessions, rows)
    else:
        rows = [
            _row(key, hour, sums, sessions[key].best()) for (key, hour), sums in hours.items() if key[2] != NO_SESSION
        ]
    return sorted(
        rows, key=lambda row: (-row.missing, row.connection_id, row.client, row.session_id or "", row.hour or 0)
    )


def _row(key: _SessionKey, hour: int | None, sums: _Sums, source: str | None) -> CoverageRow:
    witnessed = TokenSides() if source is None else sums.said.get(source, TokenSides())
    return CoverageRow(
        *key,
        hour=hour,
        counted=sums.counted,
        witnessed=witnessed,
        missing=max(0, witnessed.total - sums.counted.total),
        witness=source,
        by_source={name: said.total for name, said in sums.said.items()},
        versions=tuple(sorted(sums.versions)),
    )


def _unnamed(sessions: Mapping[_SessionKey, _Sums], rows: Iterable[CoverageRow]) -> list[CoverageRow]:
    """Return what metrics without a session saw beyond what is counted or witnessed of all sessions, if anything.

    A session is known by the higher of its counted and its witnessed tokens, and its metrics tell of no more. So the
    rest was seen of others: it never claims too much, and together with what the sessions miss it is what
    `_connections` says.
    """
    rest: dict[tuple[str, str], TokenSides] = {}
    for key, sums in sessions.items():
        if "metrics" in sums.said:
            rest[key[:2]] = rest.get(key[:2], TokenSides()).plus(sums.said["metrics"])
    for row in rows:
        known = max(row.witnessed, row.counted, key=lambda tokens: tokens.total)
        at = row.connection_id, row.client
        if at in rest:
            rest[at] = rest[at].plus(TokenSides(-known.input, -known.output))
    found = []
    for (connection_id, client), tokens in rest.items():
        key = connection_id, client, NO_SESSION
        if tokens.total > 0 and key in sessions:
            received = min(tokens.total, max(0, tokens.output))
            unseen = TokenSides(tokens.total - received, received)
            found.append(_row(key, None, _Sums(said={"metrics": unseen}, versions=sessions[key].versions), "metrics"))
    return found


def _connections(sessions: Mapping[_SessionKey, _Sums]) -> list[CoverageRow]:
    """Add up the sessions of each connection and client.

    What single sessions miss is not offset by what others have beyond their witnesses. Metrics without sessions are
    compared with all that was counted of the client.
    """
    found: dict[tuple[str, str], tuple[_Sums, list[CoverageRow]]] = {}
    for key, sums in sessions.items():
        whole, rows = found.setdefault(key[:2], (_Sums(), []))
        whole.counted = whole.counted.plus(sums.counted)
        whole.versions |= sums.versions
        for name, said in sums.said.items():
            whole.said[name] = whole.said.get(name, TokenSides()).plus(said)
        if key[2] != NO_SESSION:
            rows.append(_row(key, None, sums, sums.best()))
    out = []
    for (connection_id, client), (whole, rows) in found.items():
        named = TokenSides(sum(row.witnessed.input for row in rows), sum(row.witnessed.output for row in rows))
        metrics = whole.said.get("metrics", TokenSides())
        missing = sum(row.missing for row in rows)
        told = {row.witness for row in rows if row.witness}
        source = next((name for name in SOURCES if name in told), None)
        if metrics.total > named.total:
            named, source = metrics, "metrics"
        out.append(
            CoverageRow(
                connection_id,
                client,
                None,
                None,
                counted=whole.counted,
                witnessed=named,
                missing=max(missing, metrics.total - whole.counted.total),
                witness=source,
                by_source={name: said.total for name, said in whole.said.items()},
                versions=tuple(sorted(whole.versions)),
            )
        )
    return out
