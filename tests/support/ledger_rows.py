"""Histories of `cost.session-hours` for the ledger's tests, and the cost tables of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from hypothesis import strategies as st

from tallystream.agents.cost_query import Query
from tallystream.agents.cost_table import Table, keep_newest
from tallystream.agents.coverage import WitnessedHour
from tallystream.agents.seen_share import SeenCounter
from tallystream.schemas import keys
from tallystream.schemas.clients.witnesses import Statement, WitnessPack
from tallystream.schemas.hours import HOUR_NS, hour_iso
from tallystream.schemas.money import to_usd
from tallystream.schemas.rows import SUM_COUNTS
from tallystream.schemas.witness import messages
from tallystream.streams.kafka.follower import FollowerPosition

HOUR0 = 495_000


@dataclass(frozen=True)
class Record:
    """As Kafka has it."""

    key: bytes | None
    value: bytes | None
    offset: int
    timestamp: int = 1_700_000_000_000


@dataclass(frozen=True)
class Batch:
    """Of one partition."""

    topic: str
    partition: int
    records: Sequence[Record]

    @property
    def after(self) -> FollowerPosition:
        return FollowerPosition(self.records[-1].offset + 1, self.records[-1].timestamp)


def bucket(model: str = "m1", cost: int | None = 10**12, **over: object) -> dict[str, Any]:
    """A bucket; `cost` in pico-dollars."""
    part: dict[str, Any] = dict.fromkeys(SUM_COUNTS, 1)
    part |= {
        "cost_usd": None if cost is None else to_usd(cost), "reported_cost_usd": None, "unpriced_requests": 0,
        "late_events": 0, "model": model, "service_tier": None, "speed": None, "book": "b1", "attribution": {},
    }  # fmt: skip
    return part | over


def row(
    session: str, hour: int, version: Sequence[int], buckets: Sequence[dict[str, Any]], **over: object
) -> tuple[bytes, bytes]:
    """Key and value of a row."""
    whole: dict[str, Any] = {
        "connection_id": "codex-1a2b", "client": "codex", "provider": "openai", "session_id": session,
        "hour": hour_iso(hour), "version": list(version), "duplicates": 0, "buckets": list(buckets),
    } | over  # fmt: skip
    return keys.join(whole["connection_id"], session, whole["hour"]), orjson.dumps(whole)


def _named(*values: str | None) -> Iterable[tuple[str, str | None]]:
    return zip(("team", "user", "billing", "agent"), values, strict=True)


money = st.none() | st.integers(0, 10**6) | st.integers(0, 3 * 10**22)
buckets = st.builds(
    lambda model, tier, speed, book, team, user, billing, agent, cost, reported, count, unpriced: bucket(
        model, cost, service_tier=tier, speed=speed, book=book, requests=count, input_uncached=count * 7,
        reported_cost_usd=None if reported is None else to_usd(reported), unpriced_requests=unpriced,
        attribution={k: v for k, v in _named(team, user, billing, agent) if v is not None},
    ),
    st.sampled_from(["m1", "m2", "Ü"]), st.sampled_from([None, "flex"]), st.sampled_from([None, "fast"]),
    st.sampled_from(["b1", "b2"]), st.sampled_from([None, "a", "B", ""]), st.sampled_from([None, "u1", "u2"]),
    st.sampled_from([None, None, "plan", "api"]), st.sampled_from([None, "review"]),
    money, money, st.integers(0, 2**30), st.integers(0, 2),
)  # fmt: skip


def _alike(part: dict[str, Any]) -> tuple[Any, ...]:
    names = ("model", "service_tier", "speed", "book")
    return (*(part[name] for name in names), tuple(sorted(part["attribution"].items())))


rows = st.builds(
    lambda session, hour, version, parts, connection, junk: (
        row(session, HOUR0 + hour, version, parts, connection_id=connection)
        if junk is None
        else (row(session, HOUR0 + hour, version, parts, connection_id=connection)[0], junk)
    ),
    st.sampled_from(["s1", "s2", "a|b%", "longer-session-id", '="x",\u2028%s']),
    st.integers(0, 30),
    st.tuples(st.integers(0, 2), st.integers(0, 6)),
    st.lists(buckets, max_size=3, unique_by=_alike),
    st.sampled_from(["codex-1a2b", "claude-ffff"]),
    st.sampled_from([None] * 12 + [b"junk", b'{"version":[1,3],"buckets":[{}]}', b""]),
)
histories = st.lists(
    st.tuples(rows, st.booleans().map(lambda one: one), st.integers(0, 9)).map(
        lambda item: (item[0][0], None if item[2] == 0 else item[0][1])
    ),
    max_size=25,
)
"""Lists of (key, value): rows of a few keys with versions in any order, tombstones and invalid records."""


def batches(topic: str, history: Iterable[tuple[bytes, bytes | None]], sizes: Sequence[int]) -> list[Batch]:
    """Cut a history into batches of these sizes, repeatedly."""
    records = [Record(key, value, offset) for offset, (key, value) in enumerate(history)]
    found, at, turn = [], 0, 0
    while at < len(records):
        size = max(1, sizes[turn % len(sizes)])
        found.append(Batch(topic, 0, records[at : at + size]))
        at, turn = at + size, turn + 1
    return found


def witness(session: str, name: int, tokens: int, source: Literal["metrics", "spans"] = "spans") -> tuple[bytes, bytes]:
    """Key and value of a statement."""
    said = Statement(f"{name:016x}", source, HOUR0 * HOUR_NS, False, tokens, 0)
    return next(messages(WitnessPack("codex", "0.169.0", session, [said]), "codex-1a2b"))


witnesses = st.lists(
    st.builds(
        witness, st.sampled_from(["", "s1", "s2", "a|b%", "unknown"]), st.integers(0, 9), st.integers(0, 5),
        st.sampled_from(["metrics", "spans"]),
    ),
    max_size=6,
)  # fmt: skip
"""Lists of (key, value)."""


def expected(
    history: Iterable[tuple[bytes, bytes | None]], query: Query, witnessed: Iterable[WitnessedHour] = ()
) -> Table:
    """The table as computed from the topic."""
    newest: dict[bytes, tuple[tuple[int, int], bytes]] = {}
    keep_newest(newest, [Record(key, value, at) for at, (key, value) in enumerate(history)])
    table, counter = Table(query), SeenCounter(witnessed)
    table.add((value for _, value in newest.values()), counter)
    if query.shares:
        table.seen = counter.sessions()
    return table
