"""Builds cost tables from `cost.session-hours` rows: the newest version of each, filtered, grouped and totalled. Pure.

A table row is one (connection, session, hour where it applies, model, service tier, book, attribution); dimensions that
a view collapses are null. Money is summed as int pico-dollars and returned as an exact decimal string, null when none
of the row's requests could be priced. Rows are read as plain dicts instead of models, which takes little longer than
parsing their JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

import orjson

from tallystream.agents.cost_query import GROUPINGS, Query
from tallystream.agents.cost_sums import SUMMED, BucketPart, CostPart, CostSums
from tallystream.agents.seen_share import SeenCounter, SessionName, SessionTokens, seen_share
from tallystream.schemas.hours import hour_from_iso, hour_iso, last_final_hour
from tallystream.schemas.money import PICO, to_pico
from tallystream.schemas.rows import SUM_COUNTS, counts_of
from tallystream.schemas.usage import ATTRIBUTION_KEYS
from tallystream.schemas.versions import find_version, supersedes

KNOWN = (*SUMMED, "sessions", "seen_share", "children")
"""What a row has besides its key and its attribution."""
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
        self.plan = 0
        """The part of the costs, in pico-dollars, that a plan pays for."""
        self.seen: Mapping[SessionName, SessionTokens] = {}
        """The tokens of sessions that have a witness; set it before rows are asked for."""
        self._groups: dict[tuple[Any, ...], CostSums] = {}
        wanted = query.dimensions
        self._of_row = tuple(name for name in wanted if name in _ROW)
        self.attributed_by = tuple(name for name in wanted if name in _ATTRIBUTION)
        self._of_bucket = tuple(name for name in wanted if name not in _ROW and name not in _ATTRIBUTION)
        self.dimensions = (*self._of_row, *self._of_bucket, *self.attributed_by)
        """The dimensions of the rows, in the order of `Part.key`; last are `attributed_by`, keys of attributions."""
        self._since = None if query.since is None else _bound(query.since)
        self._until = None if query.until is None else _bound(query.until)
        head, mark, tail = (query.session or "").partition("…")
        self._session = (head, tail) if mark else None
        self._tree = query.tree
        self._children: dict[tuple[Any, ...], set[str]] = {}
        self._place = {name: place for place, name in enumerate(self.dimensions)}

    def add(self, values: Iterable[bytes], counter: SeenCounter | None = None) -> None:
        """Add rows as they are on the topic; each key only in its newest version. `counter` counts all of them."""
        filtered = self.query.filtered
        for value in values:
            try:
                row = orjson.loads(value)
                if not filtered or self._wanted(row):
                    self._fold(row)
                if counter is not None and counter.wants(row["connection_id"], row["session_id"]):
                    counts = [self._part((), bucket)[1] for bucket in row["buckets"]]
                    counter.add(row["connection_id"], row["client"], row["session_id"], counts)
            except (ValueError, TypeError, KeyError, AttributeError):
                self.skipped += 1

    def add_part(self, part: CostPart) -> None:
        """Add sums that were filtered and computed elsewhere; `count_sessions` adds the number of sessions. With
        a tree, the part must not have been filtered by session.
        """
        if self._tree is not None:
            connection, session = (part.key[self._place[name]] for name in ("connection_id", "session_id"))
            top = self._top(connection, session)
            if top is None:
                return
            part = part._replace(key=self._moved(part.key, session, top))
        sums = self._groups.get(part.key)
        if sums is None:
            sums = self._groups[part.key] = CostSums()
        sums.add_part(part)

    def count_sessions(self, numbers: Mapping[tuple[Any, ...], int]) -> None:
        """Set the number of different sessions of each key that `add_part` has added."""
        for key, sums in self._groups.items():
            sums.sessions = numbers[key]

    def members(self) -> set[SessionName]:
        """Return each session in a table of sessions, also those that are added to others' rows."""
        return {one for key in self._groups for one in self._members(key)}

    def _members(self, key: tuple[Any, ...]) -> Iterator[SessionName]:
        """Yield the sessions of a row."""
        connection, session = key[self._place["connection_id"]], key[self._place["session_id"]]
        yield connection, session
        for one in self._children.get(key, ()):
            yield connection, one

    def _top(self, connection: str, session: str) -> str | None:
        """Return the session whose row includes this one, None when it is not wanted."""
        assert self._tree is not None
        if self.query.session is None:
            return self._tree.root(connection, session)
        line = [session, *self._tree.ancestors(connection, session)]
        return next((one for one in reversed(line) if self._is_session(one)), None)

    def _moved(self, key: tuple[Any, ...], session: str, top: str) -> tuple[Any, ...]:
        """Return the key of the row that a session's sums belong to, and note the session in it."""
        place = self._place["session_id"]
        key = (*key[:place], top, *key[place + 1 :])
        children = self._children.setdefault(key, set())
        if session != top:
            children.add(session)
        return key

    def _wanted(self, row: Mapping[str, Any]) -> bool:
        query = self.query
        if self._tree is not None and self._top(row["connection_id"], row["session_id"]) is None:
            return False
        hour: str = row["hour"]
        return (
            (query.connection is None or row["connection_id"] == query.connection)
            and (query.session is None or self._tree is not None or self._is_session(row["session_id"]))
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
        if self._tree is not None and (top := self._top(connection, session)) is not None:
            parts = [(self._moved(part[0], session, top), *part[1:]) for part in parts]
        for part, bucket in zip(parts, row["buckets"], strict=True):
            sums = groups.get(part[0])
            if sums is None:
                sums = groups[part[0]] = CostSums()
                sums.sessions = set() if self.query.by else None
            sums.add(part, hour, version)
            if isinstance(sums.sessions, set):
                sums.sessions.add((connection, session))
            if part[2] is not None and (bucket.get("attribution") or _NOBODY).get("billing") == PLAN:
                self.plan += part[2]
            if part[1][_UNPRICED]:
                what = (row["provider"], bucket["model"], bucket.get("service_tier"))
                self.unpriced[what] = self.unpriced.get(what, 0) + part[1][_UNPRICED]

    def _part(self, of_row: tuple[Any, ...], bucket: Mapping[str, Any]) -> BucketPart:
        """Return the contribution of a bucket and the key of its group."""
        key = of_row + tuple(map(bucket.get, self._of_bucket))
        if self.attributed_by:
            key += tuple(map((bucket.get("attribution") or {}).get, self.attributed_by))
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
        yield from self._rows(self._sorted(), now_ns)

    def _rows(self, groups: Iterable[tuple[tuple[Any, ...], CostSums]], now_ns: int) -> Iterator[dict[str, Any]]:
        fields = self.query.fields
        pick = itemgetter(*self.places(fields))
        attributions: dict[tuple[Any, ...], dict[str, Any]] = {}
        for key, *more in self._known(groups, now_ns):
            attribution = None
            if self.attributed_by:
                named = self.attributed(key)
                attribution = attributions.get(named)
                if attribution is None:
                    pairs = zip(self.attributed_by, named, strict=True)
                    attribution = attributions[named] = {name: value for name, value in pairs if value is not None}
            yield dict(zip(fields, pick((*key, *more, attribution, None)), strict=True))

    def known(self, now_ns: int) -> Iterator[tuple[Any, ...]]:
        """Return what `rows` has, each row as a tuple of its key (in the order of `dimensions`) and values of KNOWN."""
        return self._known(self._sorted(), now_ns)

    def _known(self, groups: Iterable[tuple[tuple[Any, ...], CostSums]], now_ns: int) -> Iterator[tuple[Any, ...]]:
        last_final = _last_final(now_ns)
        sessions, share, children = None, None, None
        for key, sums in groups:
            if sums.sessions is not None:
                sessions = sums.sessions if isinstance(sums.sessions, int) else len(sums.sessions)
            if self.seen and self.query.shares:
                share = seen_share(self.seen[one] for one in self._members(key) if one in self.seen)
            if self._tree is not None:
                children = sorted(self._children.get(key, ()))
            yield (key, *sums.values(last_final), sessions, share, children)

    def attributed(self, key: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the part of a row's key that is its attribution."""
        return key[len(key) - len(self.attributed_by) :]

    def places(self, names: Iterable[str]) -> list[int]:
        """Return where each of these is in (*key, *KNOWN, attribution, None), which ends with what rows do not have."""
        said = (*self.dimensions, *KNOWN, "attribution", None)
        alias = {name: GROUPINGS[name] for name in self.query.by}
        found = (alias.get(name, name) for name in names)
        return [said.index(name) if name in said else len(said) - 1 for name in found]

    def _sorted(self) -> list[tuple[tuple[Any, ...], CostSums]]:
        """Return the groups in the order of rows. Names decide between few of them, and are compared only there."""
        at = self._place.get("hour")
        ranked = [
            (key[at] if at is not None else "", not sums.priced, -sums.cost, -sums.counts[_TOTAL], place, key, sums)
            for place, (key, sums) in enumerate(self._groups.items())
        ]
        ranked.sort()
        groups = [(one[5], one[6]) for one in ranked]
        begin = 0
        for place in range(1, len(ranked) + 1):
            if place == len(ranked) or ranked[place][:4] != ranked[begin][:4]:
                if place - begin > 1:
                    groups[begin:place] = sorted(groups[begin:place], key=self._order)
                begin = place
        return groups

    def page(self, now_ns: int, limit: int) -> TablePage:
        """Return the first `limit` rows (0: all), and facts about all rows."""
        last_final = _last_final(now_ns)
        still = sum(sums.hour > last_final for sums in self._groups.values())
        at = self._place.get("connection_id")
        connections = len({None if at is None else key[at] for key in self._groups})
        first = nsmallest(limit, self._groups.items(), key=self._order) if limit else self._sorted()
        return TablePage(list(self._rows(first, now_ns)), len(self._groups), still, connections)

    def totals(self, now_ns: int) -> dict[str, Any]:
        """Return the sums over all rows."""
        total = CostSums()
        for sums in self._groups.values():
            total.merge(sums)
        return dict(zip(SUMMED, total.values(_last_final(now_ns)), strict=True))

    def _order(self, item: tuple[tuple[Any, ...], CostSums]) -> tuple[Any, ...]:
        key, sums = item
        hour = key[self.dimensions.index("hour")] if "hour" in self.dimensions else ""
        # Absent values come before empty ones, so that the order is total.
        names = tuple((part is not None, part or "") for part in key)
        return hour, not sums.priced, -sums.cost, -sums.counts[_TOTAL], names


PLAN = "plan"
"""Value of the attribution `billing` for usage that is part of no bill."""
_NOBODY: Mapping[str, str] = {}
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
