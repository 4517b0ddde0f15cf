"""The laws that rows, changelog, hours, dead letters and positions must obey, given what `usage` contains.

Independent of the fold: a session-hour is a dict of events. Prices are not used here; dollars are checked against the
fleet's truth, and by adding up the hours.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
from tests.chaos.ledger import COUNTS, BucketKey, Hour, Ledger, Row
from tests.chaos.witness import Snapshot

from tallystream.agents.session_cost import state_rows
from tallystream.schemas.hours import HOUR_NS, hour_iso


def judge(ledger: Ledger, snapshots: Sequence[Snapshot] = ()) -> list[str]:
    """Return the problems, one for each line; empty if every check passes."""
    return [
        *ledger.problems,
        *_rows_law(ledger),
        *_changelog_law(ledger),
        *_hours_law(ledger),
        *_letters_law(ledger),
        *_closed_law(ledger),
        *_positions_law(ledger, snapshots),
    ]


def row_sums(row: Mapping[str, Any]) -> dict[BucketKey, list[int]]:
    """Return requests and counts of a public row's buckets."""
    sums: dict[BucketKey, list[int]] = {}
    for bucket in row["buckets"]:
        said = {k: v for k, v in bucket["attribution"].items() if v}
        attribution = orjson.dumps(said, option=orjson.OPT_SORT_KEYS).decode()
        key = (bucket["model"], bucket["service_tier"], bucket["speed"], attribution)
        total = sums.setdefault(key, [0] * (1 + len(COUNTS)))
        total[0] += bucket["requests"]
        for index, name in enumerate(COUNTS, 1):
            total[index] += bucket[name]
    return sums


def _rows_law(ledger: Ledger) -> list[str]:
    """Every event of `usage` must be counted once, known as a copy, or a dead letter: row by row."""
    wrong = []
    for key in ledger.hours.keys() | ledger.rows.keys():
        hour, row = ledger.hours.get(key, Hour()), ledger.rows.get(key)
        if row is None:
            wrong.append(f"rows: {key!r} is missing, {len(hour.events)} requests")
        elif row_sums(row) != hour.buckets():
            counted = sum(b["requests"] for b in row["buckets"])
            wrong.append(f"rows: {key!r} counts {counted} requests, usage holds {len(hour.events)}")
        elif row["duplicates"] != hour.copies:
            wrong.append(f"rows: {key!r} knows {row['duplicates']} copies, usage holds {hour.copies}")
    return wrong


def _changelog_law(ledger: Ledger) -> list[str]:
    """The state must equal the published rows, both by highest version and as compaction would keep them."""
    wrong = []
    for name, log in (("highest", ledger.changelog), ("last", ledger.last_changelog)):
        for key in log.keys() | ledger.rows.keys():
            raw, row = log.get(key), ledger.rows.get(key)
            if raw is None and key.rpartition(b"|")[2] < ledger.closed:
                continue
            if raw is None or row is None:
                wrong.append(f"changelog ({name}): {key!r} is {'missing' if raw is None else 'not published'}")
            elif orjson.loads(state_rows.public_row(key, raw, ledger.parts.get)) != row:
                wrong.append(f"changelog ({name}): {key!r} differs from its public row")
    return wrong + hidden(ledger)


def hidden(ledger: Ledger) -> list[str]:
    """Return the keys whose newest row is not the last one, because late rows of a replaced worker still follow it."""
    topics = (("rows", ledger.rows, ledger.last_rows), ("hours", ledger.hour_rows, ledger.last_hour_rows))
    return [
        f"{name} (last): {key!r} would be lost to compaction"
        for name, newest, last in topics
        for key, row in newest.items()
        if last[key] != row
    ]


def _hours_law(ledger: Ledger) -> list[str]:
    """The partial sums of the hours must add up to the session-hours, including dollars."""

    def by_hour(rows: list[tuple[str, str, str, str | None, Mapping[str, Any]]]) -> dict[Any, list[Any]]:
        sums: dict[Any, list[Any]] = {}
        for *key, one in rows:
            total = sums.setdefault(tuple(key), [0] * (3 + len(COUNTS)))
            values = (
                one["requests"], one["unpriced_requests"], Decimal(one["cost_usd"] or 0), *(one[n] for n in COUNTS)
            )  # fmt: skip
            for index, value in enumerate(values):
                total[index] += value
        return sums

    sessions = by_hour(
        [
            (row["connection_id"], row["hour"], b["model"], b["attribution"].get("team"), b)
            for row in ledger.rows.values()
            for b in row["buckets"]
        ]
    )
    hours = by_hour([(r["connection_id"], r["hour"], r["model"], r["team"], r) for r in ledger.hour_rows.values()])
    return [
        f"hours: {key} is {hours.get(key)}, its sessions are {sessions.get(key)}"
        for key in sessions.keys() | hours.keys()
        if sessions.get(key) != hours.get(key)
    ]


def _letters_law(ledger: Ledger) -> list[str]:
    """Every unreadable message must have a dead letter, and every dead letter a cause."""
    wrong = [f"dead letters: none for {source}" for source in ledger.poison - ledger.letters.keys()]
    ends = {p: log[-1][0] for p, log in ledger.usage.items()}
    for source in ledger.letters:
        name, *where = source.split("|")
        if name == "usage" and int(where[1]) > ends.get(int(where[0]), -1):
            wrong.append(f"dead letters: {source} is about no message")
    return wrong


def _closed_law(ledger: Ledger) -> list[str]:
    """An hour that has not ended by our clock must not be closed, whatever a broker's clock says."""
    now = hour_iso(time.time_ns() // HOUR_NS).encode()
    return [f"closed: hours before {ledger.closed.decode()} are, it is {now.decode()}"] if ledger.closed > now else []


def _positions_law(ledger: Ledger, snapshots: Sequence[Snapshot]) -> list[str]:
    """A position must never be ahead of the changelog's or the public rows, nor the group's offsets ahead of it."""
    wrong = []
    logged, published = _First(ledger.changelog_log), _First(ledger.row_log)
    for p, log in ledger.usage.items():
        positions = ledger.positions.get(p, [])
        if not positions or positions[-1][1] != log[-1][0] + 1:
            wrong.append(f"positions: partition {p} ends at {positions[-1:]}, usage at {log[-1][0] + 1}")
        passed = iter(positions)
        at, reached = -1, -1
        public: list[int] = []
        """For each message: the highest offset of the public rows that are needed for it and all earlier ones."""
        for offset, _, touched in log:
            while reached <= offset and (found := next(passed, None)) is not None:
                at, reached = found
            if reached > offset and any(logged.holding(key, offset) > at for key in touched):
                wrong.append(f"positions: {p} passed {offset} before the changelog held what it changed")
            here = max((published.holding(key, offset) for key in touched), default=-1)
            public.append(max(here, public[-1] if public else -1))
        for taken in snapshots:
            position = max((to for at, to in positions if at < taken.log_ends[p]), default=0)
            if taken.committed.get(p, 0) > position:
                wrong.append(f"positions: the group was at {taken.committed[p]} of {p}, the changelog at {position}")
            count = bisect_left(log, (position,))
            if count and public[count - 1] >= taken.row_ends[p]:
                wrong.append(f"positions: {p} was at {position} before all of it was published")
    return wrong


class _First:
    """Finds where a version, or a newer one, first occurs for a key. Versions must be requested in rising order."""

    def __init__(self, logs: Mapping[bytes, list[Row]]) -> None:
        self._logs = logs
        self._next: dict[bytes, int] = defaultdict(int)

    def holding(self, key: bytes, version: int) -> int:
        """Return the offset, a very large one if there is none."""
        log = self._logs.get(key, [])
        at = self._next[key]
        while at < len(log) and log[at][0] < version:
            at += 1
        self._next[key] = at
        return log[at][2] if at < len(log) else 1 << 62
