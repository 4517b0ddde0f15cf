"""What was counted and what was witnessed, for `agents.coverage`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tallystream.agents.coverage import NO_SESSION, CountedHour, TokenSides, WitnessedHour
from tallystream.agents.ledger.schema import WITNESSED
from tallystream.agents.ledger.store.database import Database, pairs
from tallystream.agents.seen_share import SessionName, SessionTokens, witnessed_sessions

AFTER_ALL = 10**6
"""An hour after all."""
MANY = 2_000
"""Sessions that are named one by one at most."""


@dataclass(frozen=True)
class CoverageRange:
    """Hours since 1970 from `first` to `last`, inclusive, and at choice one connection, one session, or several."""

    first: int
    last: int
    connection: str | None = None
    session: str | None = None
    among: Collection[tuple[str, str]] | None = None
    """Only these sessions (connection_id, session_id); None: all."""
    hourly: bool = True
    """Whether each hour is wanted, or only sums over the range, which stand at its last hour."""

    def conditions(self, hour: str, connection: str, session: str) -> tuple[str, tuple[object, ...]]:
        """Return the SQL condition with these columns, and its parameters."""
        more, own = self.sessions(connection, session)
        return f"{hour} BETWEEN ? AND ?{more}", (self.first, self.last, *own)

    def sessions(self, connection: str, session: str) -> tuple[str, tuple[object, ...]]:
        """Return the SQL condition on the session alone, beginning with AND, and its parameters."""
        wanted = [
            (column, value)
            for column, value in ((connection, self.connection), (session, self.session))
            if value is not None
        ]
        where, parameters = "".join(f" AND {column} = ?" for column, _ in wanted), [value for _, value in wanted]
        if self.among is not None:
            where += f" AND ({connection}, {session}) IN ({pairs(len(self.among))})"
            parameters += [name for one in self.among for name in one]
        return where, tuple(parameters)


def counted_hours(database: Database, wanted: CoverageRange) -> Iterable[CountedHour]:
    """Return what was counted of each session in each hour."""
    where, parameters = wanted.conditions("b.hour", "s.connection_id", "s.session_id")
    at = "b.hour" if wanted.hourly else "max(b.hour)"
    rows = database.rows(
        f"SELECT s.connection_id, l.client, s.session_id, {at}, sum(b.total_tokens - b.output), sum(b.output)"
        f" FROM bucket b JOIN session s ON s.id = b.session JOIN line l ON l.id = b.line WHERE {where}"
        f" GROUP BY s.connection_id, l.client, s.session_id{', b.hour' if wanted.hourly else ''}",
        parameters,
    )
    for connection, client, session, hour, sent, received in rows:
        yield CountedHour(connection, client or "", session, int(hour), TokenSides(int(sent), int(received)))


def seen_sessions(database: Database, among: Collection[SessionName] | None = None) -> dict[SessionName, SessionTokens]:
    """Return the tokens of the sessions that have a witness; `among`: only of these."""
    if among is not None and len(among) > MANY:
        among = None  # all of them are read as fast
    witnessed = CoverageRange(0, AFTER_ALL, among=among, hourly=False)
    more, parameters = witnessed.sessions("s.connection_id", "s.session_id")
    counted = (
        CountedHour(connection, client or "", session, int(hour), TokenSides(int(sent), int(received)))
        for connection, client, session, hour, sent, received in database.rows(
            "SELECT s.connection_id, l.client, s.session_id, max(b.last_hour), sum(b.total_tokens - b.output),"
            " sum(b.output) FROM (SELECT DISTINCT connection_id, session_id FROM witness) w CROSS JOIN session s"
            " CROSS JOIN part b CROSS JOIN line l WHERE s.connection_id = w.connection_id"
            " AND s.session_id = w.session_id AND b.session = s.id AND l.id = b.line"
            f"{more} GROUP BY s.connection_id, l.client, s.session_id",
            parameters,
        )
    )
    said = (one for one in witnessed_hours(database, witnessed) if one.session_id != NO_SESSION)
    return witnessed_sessions(counted, said)


def witnessed_hours(database: Database, wanted: CoverageRange) -> Iterable[WitnessedHour]:
    """Return what each source says of each session in each hour; new tokens only."""
    where, parameters = wanted.conditions("hour", "connection_id", "session_id")
    # A cumulative count needs the hour before, so those of all hours are read; they are few. The inner condition on the
    # session spares the database from computing the differences of all others.
    inner, own = wanted.sessions("w.connection_id", "w.session_id")
    at = "hour" if wanted.hourly else "max(hour)"
    rows = database.rows(
        f"SELECT connection_id, client, session_id, {at}, source, max(version), sum(input_tokens), sum(output_tokens)"
        f" FROM ({WITNESSED} WHERE (w.cumulative = 1 OR w.hour >= ?){inner}) q WHERE {where}"
        f" GROUP BY connection_id, client, session_id, source{', hour' if wanted.hourly else ''}",
        (wanted.first, *own, *parameters),
    )
    for connection, client, session, hour, source, version, sent, received in rows:
        tokens = TokenSides(max(0, int(sent)), max(0, int(received)))
        yield WitnessedHour(connection, client, session, int(hour), source, version, tokens)
