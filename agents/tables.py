"""Cost tables out of `cost.session-hours` rows: newest version of each, filtered, grouped, totalled. Pure.

A table row is one (connection, session, hour where it applies, model, service tier, book, attribution); what a view
collapses is null. Money is summed as int pico-dollars and leaves as an exact decimal string, null when no request of
the row could be priced. Rows are read as plain dicts, not models: that takes little longer than their JSON.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from tallystream.schemas.errors import UsageError
from tallystream.schemas.hours import HOUR_NS, hour_from_iso, hour_iso
from tallystream.schemas.money import PICO, to_pico, to_usd
from tallystream.schemas.usage import ATTRIBUTION_KEYS

COUNTS = (
    "requests", "input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool",
    "total_tokens", "unpriced_requests", "late_events",
)  # fmt: skip
FIELDS = (
    "connection_id", "client", "session_id", "hour", "model", "service_tier",
    "requests", "input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "tool",
    "total_tokens", "cost_usd", "reported_cost_usd", "unpriced_requests", "book", "final", "late_events",
    "attribution", "version",
)  # fmt: skip
"""Fields of a table row, in their order; `hour` only where the view has hours."""

_BUCKET = ("model", "service_tier", "book")
VIEWS: Mapping[str, tuple[str, ...]] = {
    "sessions": ("connection_id", "client", "session_id", *_BUCKET, *ATTRIBUTION_KEYS),
    "session-hours": ("connection_id", "client", "session_id", "hour", *_BUCKET, *ATTRIBUTION_KEYS),
    "hours": ("connection_id", "client", "hour", *_BUCKET),
    "models": ("connection_id", "client", *_BUCKET),
}
"""What each view keeps apart."""
_AXIS: Mapping[str, tuple[str, ...]] = {
    "sessions": (), "session-hours": ("hour",), "hours": ("hour",), "models": ("model",),
}  # fmt: skip
"""What a view still keeps apart when it is grouped `by` something."""

GROUPINGS: Mapping[str, str] = {
    **{key: key for key in ATTRIBUTION_KEYS},
    "connection": "connection_id", "session": "session_id", "client": "client", "provider": "provider",
    "model": "model", "service_tier": "service_tier", "book": "book", "hour": "hour",
}  # fmt: skip
"""What `by` takes, and the dimension it stands for."""

_DOC = frozenset({"connection_id", "client", "provider", "session_id", "hour"})
GRACE_HOURS = 1
"""An hour is final when it ended longer than this ago; what arrives later makes a higher version and counts as late."""

_VERSION = re.compile(rb'"version":\[(\d+),(\d+)\]')


class Keyed(Protocol):
    """A record: key and value as Kafka has them."""

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
    """What to show. `since` and `until` are hours (schemas.hours): the first shown, and the first no longer shown.

    `session` is an id, or its beginning and end around a `…`. `coarse` keeps apart only these dimensions of the view's.

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
            raise UsageError(f"there is no view {self.view!r}", f"views: {', '.join(VIEWS)}")
        for name in self.by:
            if name not in GROUPINGS:
                raise UsageError(f"cannot group by {name!r}", f"groupings: {', '.join(GROUPINGS)}")

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What the rows keep apart."""
        if not self.by:
            return VIEWS[self.view] if self.coarse is None else self.coarse
        return tuple(dict.fromkeys((*_AXIS[self.view], *(GROUPINGS[name] for name in self.by))))

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of a row's fields, in their order: those of `by` first when they are not among them."""
        own = tuple(name for name in FIELDS if name != "hour" or "hour" in VIEWS[self.view] or "hour" in self.by)
        return (*(name for name in self.by if name not in own), *own, *(("sessions",) if self.by else ()))


def keep_newest(newest: dict[bytes, tuple[tuple[int, int], bytes]], records: Iterable[Keyed]) -> int:
    """Keep the highest version of each key, of equal ones the later; a tombstone removes the key.

    Returns how many records were no rows. Rows keep their bytes: a version that is overtaken is never decoded.
    """
    broken = 0
    for record in records:
        key, value = record.key or b"", record.value
        if value is None:
            newest.pop(key, None)
            continue
        found = _VERSION.search(value)
        if found is not None:
            version = (int(found[1]), int(found[2]))
        else:
            try:
                generation, offset = orjson.loads(value)["version"]
                version = (int(generation), int(offset))
            except (ValueError, TypeError, KeyError):
                broken += 1
                continue
        have = newest.get(key)
        if have is None or version >= have[0]:
            newest[key] = version, value
    return broken


class Sums:
    """What is added up, of one table row or of all."""

    __slots__ = ("cost", "counts", "hour", "priced", "reported", "reports", "sessions", "version")

    def __init__(self) -> None:
        self.counts = [0] * len(COUNTS)
        self.cost = 0
        """Pico-dollars."""
        self.priced = False
        self.reported = 0
        self.reports = False
        self.hour = ""
        """The newest hour within."""
        self.version: list[int] = [0, 0]
        self.sessions: set[tuple[str, str]] | None = None

    def add(self, bucket: Mapping[str, Any], hour: str, version: list[int]) -> None:
        """Add a bucket of a SessionHourCost."""
        self.counts = [have + bucket[name] for have, name in zip(self.counts, COUNTS, strict=True)]
        if (cost := bucket["cost_usd"]) is not None:
            self.cost += _pico(cost)
            self.priced = True
        if (reported := bucket["reported_cost_usd"]) is not None:
            self.reported += _pico(reported)
            self.reports = True
        self.hour = max(self.hour, hour)
        self.version = max(self.version, version)

    def merge(self, other: Sums) -> None:
        """Add other sums."""
        self.counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        self.cost += other.cost
        self.priced |= other.priced
        self.reported += other.reported
        self.reports |= other.reports
        self.hour = max(self.hour, other.hour)
        self.version = max(self.version, other.version)

    def fields(self, last_final: str) -> dict[str, Any]:
        """Return the summed fields of a row; `last_final` is the newest hour that is final."""
        return {
            **dict(zip(COUNTS, self.counts, strict=True)),
            "cost_usd": to_usd(self.cost) if self.priced else None,
            "reported_cost_usd": to_usd(self.reported) if self.reports else None,
            "final": self.hour <= last_final,
            "version": self.version,
        }


class Table:
    """Collects rows and gives the table. `skipped` counts what was no SessionHourCost and is left out."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.skipped = 0
        self.unpriced: dict[tuple[str, str, str | None], int] = {}
        """Requests without a price, by (provider, model, service tier)."""
        self._groups: dict[tuple[Any, ...], Sums] = {}
        self._dimensions = query.dimensions
        self._since = None if query.since is None else _bound(query.since)
        self._until = None if query.until is None else _bound(query.until)
        head, mark, tail = (query.session or "").partition("…")
        self._session = (head, tail) if mark else None

    def add(self, values: Iterable[bytes]) -> None:
        """Add rows as they are on the topic, each key's newest only."""
        for value in values:
            try:
                row = orjson.loads(value)
                if self._wanted(row):
                    self._fold(row)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.skipped += 1

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
        hour, version = row["hour"], row["version"]
        _check(row)
        for bucket in row["buckets"]:
            attribution = bucket["attribution"]
            key = tuple(
                row[name] if name in _DOC else attribution.get(name) if name in _ATTRIBUTION else bucket.get(name)
                for name in self._dimensions
            )
            sums = self._groups.get(key)
            if sums is None:
                sums = self._groups[key] = Sums()
                sums.sessions = set() if self.query.by else None
            sums.add(bucket, hour, version)
            if sums.sessions is not None:
                sums.sessions.add((row["connection_id"], row["session_id"]))
            if bucket["unpriced_requests"]:
                what = (row["provider"], bucket["model"], bucket["service_tier"])
                self.unpriced[what] = self.unpriced.get(what, 0) + bucket["unpriced_requests"]

    def rows(self, now_ns: int) -> Iterator[dict[str, Any]]:
        """Give the rows: by hour where the view has hours, else the most expensive first; `now_ns` decides `final`."""
        last_final = hour_iso((now_ns - 1) // HOUR_NS - 1 - GRACE_HOURS)
        fields, by = self.query.fields, {name: GROUPINGS[name] for name in self.query.by}
        attributed = any(name in ATTRIBUTION_KEYS for name in self._dimensions)
        for key, sums in sorted(self._groups.items(), key=self._order):
            at = dict(zip(self._dimensions, key, strict=True))
            row = dict.fromkeys(fields) | {name: value for name, value in at.items() if name in fields}
            row |= {name: at[dimension] for name, dimension in by.items()}
            row |= sums.fields(last_final)
            if attributed:
                row["attribution"] = {name: at[name] for name in ATTRIBUTION_KEYS if at.get(name) is not None}
            if sums.sessions is not None:
                row["sessions"] = len(sums.sessions)
            yield row

    def totals(self, now_ns: int) -> dict[str, Any]:
        """Return the sums over all rows."""
        total = Sums()
        for sums in self._groups.values():
            total.merge(sums)
        return total.fields(hour_iso((now_ns - 1) // HOUR_NS - 1 - GRACE_HOURS))

    def _order(self, item: tuple[tuple[Any, ...], Sums]) -> tuple[Any, ...]:
        key, sums = item
        hour = key[self._dimensions.index("hour")] if "hour" in self._dimensions else ""
        return hour, not sums.priced, -sums.cost, -sums.counts[_TOTAL], [part or "" for part in key]


_ATTRIBUTION = frozenset(ATTRIBUTION_KEYS)
_LAST_HOUR = hour_from_iso("9999-12-31T23:00:00Z")
_TOTAL = COUNTS.index("total_tokens")


def _bound(hour: int) -> str:
    """Return an hour for comparing; four-digit years compare as text."""
    return hour_iso(min(max(hour, 0), _LAST_HOUR))


def _check(row: Mapping[str, Any]) -> None:
    """Refuse a row that would fail halfway, before any of its buckets is added."""
    version = row["version"]
    if len(version) != 2 or not isinstance(row["connection_id"] + row["session_id"] + row["provider"], str):
        raise TypeError("no row")
    for bucket in row["buckets"]:
        for name in COUNTS:
            if type(bucket[name]) is not int:
                raise TypeError(name)
        for name in ("cost_usd", "reported_cost_usd"):
            if bucket[name] is not None:
                _pico(bucket[name])


def _pico(usd: str) -> int:
    """Return exact pico-dollars; `to_pico` without Decimal for the strings we write ourselves."""
    whole, _, part = usd.partition(".")
    if len(part) > 12 or usd.startswith("-"):
        return to_pico(usd)
    return int(whole) * PICO + int(part.ljust(12, "0"))


def merge_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Add up table rows, as a reader of the JSON would: the law that every view's rows carry its totals."""
    costs = [row["cost_usd"] for row in rows if row["cost_usd"] is not None]
    reports = [row["reported_cost_usd"] for row in rows if row["reported_cost_usd"] is not None]
    return {
        **{name: sum(row[name] for row in rows) for name in COUNTS},
        "cost_usd": to_usd(sum(map(to_pico, costs))) if costs else None,
        "reported_cost_usd": to_usd(sum(map(to_pico, reports))) if reports else None,
    }
