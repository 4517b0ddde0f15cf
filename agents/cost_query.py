"""Builds cost tables from `cost.session-hours` rows: the newest version of each, filtered, grouped and totalled. Pure.

A table row is one (connection, session, hour where it applies, model, service tier, book, attribution); dimensions that
a view collapses are null. Money is summed as int pico-dollars and returned as an exact decimal string, null when none
of the row's requests could be priced. Rows are read as plain dicts instead of models, which takes little longer than
parsing their JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import add
from typing import Any, NamedTuple, Protocol

import orjson

from tallystream.schemas.errors import UsageError
from tallystream.schemas.hours import hour_from_iso, hour_iso, last_final_hour
from tallystream.schemas.money import PICO, to_pico, to_usd
from tallystream.schemas.rows import SUM_COUNTS, counts_of
from tallystream.schemas.usage import ATTRIBUTION_KEYS, TOKEN_COUNTS
from tallystream.schemas.versions import find_version, supersedes

FIELDS = (
    "connection_id", "client", "session_id", "hour", "model", "service_tier",
    "requests", *TOKEN_COUNTS, "total_tokens", "cost_usd", "reported_cost_usd", "unpriced_requests", "book", "final",
    "late_events", "inconsistent", "attribution", "version",
)  # fmt: skip
"""Fields of a table row, in their order; `hour` only in views by hour."""

_BUCKET = ("model", "service_tier", "book")
VIEWS: Mapping[str, tuple[str, ...]] = {
    "sessions": ("connection_id", "client", "session_id", *_BUCKET, *ATTRIBUTION_KEYS),
    "session-hours": ("connection_id", "client", "session_id", "hour", *_BUCKET, *ATTRIBUTION_KEYS),
    "hours": ("connection_id", "client", "hour", *_BUCKET),
    "models": ("connection_id", "client", *_BUCKET),
}
"""The dimensions of each view."""
_AXIS: Mapping[str, tuple[str, ...]] = {
    "sessions": (), "session-hours": ("hour",), "hours": ("hour",), "models": ("model",),
}  # fmt: skip
"""The dimensions that a view keeps when it is grouped `by` something."""

GROUPINGS: Mapping[str, str] = {
    **{key: key for key in ATTRIBUTION_KEYS},
    "connection": "connection_id", "session": "session_id", "client": "client", "provider": "provider",
    "model": "model", "service_tier": "service_tier", "book": "book", "hour": "hour",
}  # fmt: skip
"""Values of `by`, and the dimension each stands for."""

_ROW = frozenset({"connection_id", "client", "provider", "session_id", "hour"})


class Keyed(Protocol):
    """A record with its key and value as in Kafka."""

    @property
    def key(self) -> bytes | None:
        """The Kafka key."""
        ...

    @property
    def value(self) -> bytes | None:
        """The Kafka value; None is a tombstone."""
        ...


@dataclass(frozen=True)
class Query:
    """The parameters of a table. `since` and `until` are hours (schemas.hours): the first hour shown, and the first one
    after it that is not shown.

    `session` is an id, or its beginning and end around a `…`. `coarse` keeps only these dimensions of the view.

    Raises:
        UsageError: an unknown view or grouping.

    """

    view: str
    by: tuple[str, ...] = ()
    connection: str | None = None
    session: str | None = None
    since: int | None = None
    until: int | None = None
    coarse: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.view not in VIEWS:
            raise UsageError(f"unknown view {self.view!r}", f"views: {', '.join(VIEWS)}")
        for name in self.by:
            if name not in GROUPINGS:
                raise UsageError(f"cannot group by {name!r}", f"groupings: {', '.join(GROUPINGS)}")

    @property
    def dimensions(self) -> tuple[str, ...]:
        """The dimensions of the rows."""
        if not self.by:
            return VIEWS[self.view] if self.coarse is None else self.coarse
        return tuple(dict.fromkeys((*_AXIS[self.view], *(GROUPINGS[name] for name in self.by))))

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of a row's fields, in their order: those of `by` first when they are not among them."""
        own = tuple(name for name in FIELDS if name != "hour" or "hour" in VIEWS[self.view] or "hour" in self.by)
        return (*(name for name in self.by if name not in own), *own, *(("sessions",) if self.by else ()))


def keep_newest(newest: dict[bytes, tuple[tuple[int, int], bytes]], records: Iterable[Keyed]) -> int:
    """Keep the highest version of each key, and of equal versions the later row; a tombstone removes the key.

    Returns how many records are not rows. Rows are kept as bytes, so that outdated versions are never decoded.
    """
    broken = 0
    for record in records:
        key, value = record.key or b"", record.value
        if value is None:
            newest.pop(key, None)
            continue
        version = find_version(value)
        if version is None:
            broken += 1
            continue
        have = newest.get(key)
        if supersedes(version, have and have[0]):
            newest[key] = version, value
    return broken


class CostSums:
    """The sums of one table row or of all."""

    __slots__ = ("cost", "counts", "hour", "priced", "reported", "reports", "sessions", "version")

    def __init__(self) -> None:
        self.counts: Sequence[int] = _ZEROS
        self.cost = 0
        """Pico-dollars."""
        self.priced = False
        self.reported = 0
        self.reports = False
        self.hour = ""
        """The newest hour included."""
        self.version: list[int] = _OLDEST
        self.sessions: set[tuple[str, str]] | int | None = None
        """The sessions included, or their number; None when not requested."""

    def add(self, part: _Part, hour: str, version: list[int]) -> None:
        """Add a bucket of a SessionHourCost."""
        _, counts, cost, reported = part
        self.counts = counts if self.counts is _ZEROS else tuple(map(add, self.counts, counts))
        if cost is not None:
            self.cost += cost
            self.priced = True
        if reported is not None:
            self.reported += reported
            self.reports = True
        if hour > self.hour:
            self.hour = hour
        if version > self.version:
            self.version = version

    def add_part(self, part: CostPart) -> None:
        """Add sums that were computed elsewhere."""
        self.add((part.key, part.counts, part.cost, part.reported), part.hour, part.version)

    def merge(self, other: CostSums) -> None:
        """Add other sums."""
        self.counts = tuple(map(add, self.counts, other.counts))
        self.cost += other.cost
        self.priced |= other.priced
        self.reported += other.reported
        self.reports |= other.reports
        self.hour = max(self.hour, other.hour)
        self.version = max(self.version, other.version)

    def fill(self, row: dict[str, Any], last_final: str) -> dict[str, Any]:
        """Set the summed fields of a row and return it; `last_final` is the newest hour that is final."""
        row.update(zip(SUM_COUNTS, self.counts, strict=True))
        row["cost_usd"] = to_usd(self.cost) if self.priced else None
        row["reported_cost_usd"] = to_usd(self.reported) if self.reports else None
        row["final"] = self.hour <= last_final
        row["version"] = self.version
        return row


class CostPart(NamedTuple):
    """A sum of buckets that have the dimensions `key` in common: `Table.dimensions`, in their order."""

    key: tuple[Any, ...]
    counts: tuple[int, ...]
    cost: int | None
    """Pico-dollars; None when none of the requests has a price."""
    reported: int | None
    hour: str
    """The newest hour included."""
    version: list[int]
    """The highest version included."""
    sessions: int
    """The number of different sessions; counted only for a query with `by`."""


class TablePage(NamedTuple):
    """The first rows of a table, and the facts about the others needed to show them."""

    rows: Sequence[Mapping[str, Any]]
    total: int
    """Total number of rows."""
    still: int
    """Number of rows that can still grow."""
    connections: int
    """Total number of different connections; 0: not counted."""


class Table:
    """Collects rows and returns the table. `skipped` counts records that are not a SessionHourCost and are left out."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.skipped = 0
        self.unpriced: dict[tuple[str, str, str | None], int] = {}
        """Requests without a price, by (provider, model, service tier)."""
        self._groups: dict[tuple[Any, ...], CostSums] = {}
        wanted = query.dimensions
        self._of_row = tuple(name for name in wanted if name in _ROW)
        self._of_attribution = tuple(name for name in wanted if name in _ATTRIBUTION)
        self._of_bucket = tuple(name for name in wanted if name not in _ROW and name not in _ATTRIBUTION)
        self.dimensions = (*self._of_row, *self._of_bucket, *self._of_attribution)
        """The dimensions of the rows, in the order of `Part.key`."""
        self._since = None if query.since is None else _bound(query.since)
        self._until = None if query.until is None else _bound(query.until)
        head, mark, tail = (query.session or "").partition("…")
        self._session = (head, tail) if mark else None
        self._filtered = any(one is not None for one in (query.connection, query.session, query.since, query.until))

    def add(self, values: Iterable[bytes]) -> None:
        """Add rows as they are on the topic; each key only in its newest version."""
        for value in values:
            try:
                row = orjson.loads(value)
                if not self._filtered or self._wanted(row):
                    self._fold(row)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.skipped += 1

    def add_part(self, part: CostPart) -> None:
        """Add sums that were filtered and computed elsewhere; if sessions are counted, only one part per key."""
        sums = self._groups.get(part.key)
        if sums is None:
            sums = self._groups[part.key] = CostSums()
            sums.sessions = part.sessions if self.query.by else None
        sums.add_part(part)

    def _wanted(self, row: Mapping[str, Any]) -> bool:
        query = self.query
        hour: str = row["hour"]
        return (
            (query.connection is None or row["connection_id"] == query.connection)
            and (query.session is None or self._is_session(row["session_id"]))
            and (self._since is None or hour >= self._since)
            and (self._until is None or hour < self._until)
        )

    def _is_session(self, session_id: str) -> bool:
        if self._session is None:
            return session_id == self.query.session
        return session_id.startswith(self._session[0]) and session_id.endswith(self._session[1])

    def _fold(self, row: Mapping[str, Any]) -> None:
        """Add all buckets of a row, or none if one of them is invalid."""
        hour, version, connection, session = row["hour"], row["version"], row["connection_id"], row["session_id"]
        of_row = tuple(map(row.get, self._of_row))
        parts = [self._part(of_row, bucket) for bucket in row["buckets"]]
        if len(version) != 2 or not isinstance(connection, str) or not isinstance(session, str):
            raise TypeError("no row")
        groups = self._groups
        for part, bucket in zip(parts, row["buckets"], strict=True):
            sums = groups.get(part[0])
            if sums is None:
                sums = groups[part[0]] = CostSums()
                sums.sessions = set() if self.query.by else None
            sums.add(part, hour, version)
            if isinstance(sums.sessions, set):
                sums.sessions.add((connection, session))
            if part[1][_UNPRICED]:
                what = (row["provider"], bucket["model"], bucket.get("service_tier"))
                self.unpriced[what] = self.unpriced.get(what, 0) + part[1][_UNPRICED]

    def _part(self, of_row: tuple[Any, ...], bucket: Mapping[str, Any]) -> _Part:
        """Return the contribution of a bucket and the key of its group."""
        key = of_row + tuple(map(bucket.get, self._of_bucket))
        if self._of_attribution:
            key += tuple(map((bucket.get("attribution") or {}).get, self._of_attribution))
        counts = counts_of(bucket)
        if type(sum(counts)) is not int:
            raise TypeError("counts are whole numbers")
        cost, reported = bucket.get("cost_usd"), bucket.get("reported_cost_usd")
        return (
            key,
            counts,
            None if cost is None else exact_pico(cost),
            None if reported is None else exact_pico(reported),
        )

    def rows(self, now_ns: int) -> Iterator[dict[str, Any]]:
        """Return the rows: by hour if the view has hours, else the most expensive first; `now_ns` decides `final`."""
        last_final = _last_final(now_ns)
        template = dict.fromkeys(self.query.fields)
        named = [(place, name) for place, name in enumerate(self.dimensions) if name in template]
        named += [(self.dimensions.index(GROUPINGS[name]), name) for name in self.query.by]
        first = len(self.dimensions) - len(self._of_attribution)
        for key, sums in sorted(self._groups.items(), key=self._order):
            row = template.copy()
            for place, name in named:
                row[name] = key[place]
            sums.fill(row, last_final)
            if self._of_attribution:
                pairs = zip(self._of_attribution, key[first:], strict=True)
                row["attribution"] = {name: value for name, value in pairs if value is not None}
            if sums.sessions is not None:
                row["sessions"] = sums.sessions if isinstance(sums.sessions, int) else len(sums.sessions)
            yield row

    def page(self, now_ns: int, limit: int) -> TablePage:
        """Return the first `limit` rows (0: all), and facts about all rows."""
        rows = list(self.rows(now_ns))
        still = sum(not row["final"] for row in rows)
        connections = len({row["connection_id"] for row in rows})
        return TablePage(rows[:limit] if limit else rows, len(rows), still, connections)

    def totals(self, now_ns: int) -> dict[str, Any]:
        """Return the sums over all rows."""
        total = CostSums()
        for sums in self._groups.values():
            total.merge(sums)
        return total.fill({}, _last_final(now_ns))

    def _order(self, item: tuple[tuple[Any, ...], CostSums]) -> tuple[Any, ...]:
        key, sums = item
        hour = key[self.dimensions.index("hour")] if "hour" in self.dimensions else ""
        # Absent values come before empty ones, so that the order is total.
        names = tuple((part is not None, part or "") for part in key)
        return hour, not sums.priced, -sums.cost, -sums.counts[_TOTAL], names


_Part = tuple[tuple[Any, ...], tuple[int, ...], int | None, int | None]
"""A bucket's contribution: key of its group, counts, cost and reported cost in pico-dollars."""
_ZEROS = (0,) * len(SUM_COUNTS)
_OLDEST = [-1, -1]
_ATTRIBUTION = frozenset(ATTRIBUTION_KEYS)
_LAST_HOUR = hour_from_iso("9999-12-31T23:00:00Z")
_TOTAL = SUM_COUNTS.index("total_tokens")
_UNPRICED = SUM_COUNTS.index("unpriced_requests")


def _last_final(now_ns: int) -> str:
    return hour_iso(last_final_hour(now_ns))


def _bound(hour: int) -> str:
    """Return an hour as text for comparisons; four-digit years compare as text."""
    return hour_iso(min(max(hour, 0), _LAST_HOUR))


def exact_pico(usd: str) -> int:
    """Return a row's dollars as pico-dollars; `to_pico` without Decimal for the strings we write ourselves.

    Raises:
        ValueError, AttributeError: it is not a decimal number as text.

    """
    whole, _, part = usd.partition(".")
    if len(part) > 12 or usd.startswith("-"):
        return to_pico(usd)
    return int(whole) * PICO + int(part.ljust(12, "0"))
