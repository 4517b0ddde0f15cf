"""Takes records, cursors, links and telemetry as they are read, and returns changed statements. Pure.

A statement is a function of the newest records, rows and links, and replaces the previous one, so nothing can be
counted twice. Its version is `[generation, offset]`, where the offset is the sum of the positions up to which all
sources were read. Positions only grow, so an agent that has read more has a higher version. A lower sum than that of a
published statement means that a source was recreated, and the statement is published in the next generation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from functools import partial
from typing import Any

import orjson

from tallystream.agents.pricing.book import Book
from tallystream.agents.reconciliation import bill_anthropic, bill_openai, decimals
from tallystream.agents.reconciliation.bill import DayBill
from tallystream.agents.reconciliation.published import PublishedStatements
from tallystream.agents.reconciliation.scopes import PLAN, Scopes
from tallystream.agents.reconciliation.seen import SeenDay, SeenRow, book_price, connection_of, read_row
from tallystream.agents.reconciliation.statement import (
    ModelKind,
    ScopeDay,
    as_cells,
    cells_of,
    fill_quantities,
    moved_between,
    split_all,
    sums,
)
from tallystream.schemas import keys
from tallystream.schemas.billing.accounts import PROVIDERS, AccountLink
from tallystream.schemas.money import to_usd
from tallystream.schemas.openai import CURRENT, OpenAIRecord, PollCursor
from tallystream.schemas.versions import Pair, find_version, supersedes

ProviderDay = tuple[str, str]
LISTS = frozenset({"openai project keys"})
"""Lists of keys, each with its `project_id`."""
COSTS = {"openai": (bill_openai.COSTS,), "anthropic": (bill_anthropic.COST, bill_anthropic.LEGACY_COST)}
OWNER = dict.fromkeys((*bill_openai.RESOURCES, *LISTS), "openai") | dict.fromkeys(bill_anthropic.RESOURCES, "anthropic")
NOT_POLLED = "the bill of this day has not been polled"


@dataclass
class _Judged:
    """A provider's day, as far as it can be separated by scope."""

    bill: DayBill
    scopes: dict[str, ScopeDay]
    closed: bool
    """Whether the day is over for the provider and nothing is missing."""


@dataclass
class Known:
    """All data read of one provider."""

    records: dict[str, dict[str, dict[str, OpenAIRecord]]] = field(default_factory=dict)
    """By day, resource and bucket."""
    cursors: dict[str, PollCursor] = field(default_factory=dict)
    """By resource, that of the query polled last."""
    seen: dict[str, SeenDay] = field(default_factory=dict)
    projects_of: dict[str, str] = field(default_factory=dict)
    watermark: datetime | None = None


class Reconciliation:
    """The view. Published statements of days before `first` (YYYY-MM-DD) are unchanged."""

    def __init__(self, book: Book, first: str = "") -> None:
        self._book = book
        self._first = first
        self._known: dict[str, Known] = {provider: Known() for provider in PROVIDERS}
        self._rows: dict[bytes, tuple[Pair, SeenRow]] = {}
        self._links: dict[bytes, AccountLink] = {}
        self._changed: set[ProviderDay] = set()
        self._judged: dict[ProviderDay, _Judged | None] = {}
        self.published = PublishedStatements()

    def record(self, record: OpenAIRecord) -> None:
        """Add a record of `openai.records`; one polled before the known one is ignored."""
        provider = OWNER.get(record.resource)
        if provider is None:
            return
        known = self._known[provider]
        if record.bucket == CURRENT:
            self._list(known, provider, record)
            return
        if record.starts_at is None or (day := f"{record.starts_at.astimezone(UTC):%Y-%m-%d}") < self._first:
            return
        buckets = known.records.setdefault(day, {}).setdefault(record.resource, {})
        for bucket in list(buckets):
            # Of two queries of one resource, the one polled last is used.
            if buckets[bucket].query != record.query and buckets[bucket].polled_at < record.polled_at:
                del buckets[bucket]
        have = buckets.get(record.bucket)
        if have is not None and record.polled_at < have.polled_at:
            return
        buckets[record.bucket] = record
        for row in record.rows:
            group = row.get("group", row)
            key, project = group.get("api_key_id"), group.get("project_id") or group.get("workspace_id")
            if isinstance(key, str) and isinstance(project, str):
                known.projects_of[key] = project
        self._changed.add((provider, day))

    def _list(self, known: Known, provider: str, record: OpenAIRecord) -> None:
        if record.resource == bill_anthropic.WATERMARK:
            for row in record.rows:
                if isinstance(at := row.get("data_refreshed_at"), str):
                    known.watermark = datetime.fromisoformat(at)
                    self._unsettled(provider)
            return
        for row in record.rows:
            if isinstance(row.get("id"), str) and isinstance(row.get("project_id"), str):
                known.projects_of[row["id"]] = row["project_id"]

    def cursor(self, cursor: PollCursor) -> None:
        """Add the cursor of a query, which determines which days are settled."""
        provider = OWNER.get(cursor.resource)
        if provider is None or cursor.resource not in COSTS[provider]:
            return
        have = self._known[provider].cursors.get(cursor.resource)
        if have is None or cursor.polled_at >= have.polled_at:
            self._known[provider].cursors[cursor.resource] = cursor
            self._unsettled(provider)

    def link(self, key: bytes, link: AccountLink | None) -> None:
        """Add a link of the operator's map; None removes it."""
        if link is None:
            self._links.pop(key, None)
        else:
            self._links[key] = link
        for provider, known in self._known.items():
            self._changed |= {(provider, day) for day in (*known.records, *known.seen)}

    def row(self, key: bytes, value: bytes | None, append_ms: int) -> None:
        """Add a row of `cost.session-hours`; an older version is ignored.

        Raises:
            ValueError, KeyError, TypeError: it is not a valid row.

        """
        if keys.split(key)[-1] < self._first:
            return
        have = self._rows.get(key)
        if value is None:
            if have is not None:
                del self._rows[key]
                self._see(have[1], -1, append_ms)
            return
        version = find_version(value)
        if version is None:
            raise ValueError("it has no version")
        if have is not None and not supersedes(version, have[0]):
            return
        document = orjson.loads(value)
        provider = document["provider"]
        if provider not in self._known:
            return
        names = self._known[provider].seen.setdefault(document["hour"][:10], SeenDay()).written
        row = read_row(document, self._book, names)
        if have is not None and have[1] == row:
            return
        if have is not None:
            self._see(have[1], -1, append_ms)
        self._rows[key] = version, row
        self._see(row, 1, append_ms)

    def _see(self, row: SeenRow, sign: int, append_ms: int) -> None:
        day = self._known[row.provider].seen.setdefault(row.day, SeenDay())
        day.add(row, sign)
        day.newest_ms = max(day.newest_ms, append_ms)
        self._changed.add((row.provider, row.day))

    def take(self, positions: int) -> list[tuple[bytes, bytes]]:
        """Return the statements that changed since the last time; `positions` is the sum of all sources' positions, all
        of which must have been read up to the ends they had when the last statement was taken in.

        Raises:
            TopicRecreatedError: a published statement is based on more data than was read here.

        """
        out = []
        self._judged.clear()
        for provider, day in sorted(self._with_neighbours(self._changed | self.published.doubtful())):
            statements = self._statements(provider, day)
            if statements is not None:
                out += self.published.changed(provider, day, statements, positions)
        self._changed.clear()
        self.published.settle()
        return out

    def _with_neighbours(self, days: Iterable[ProviderDay]) -> set[ProviderDay]:
        return {
            (provider, near)
            for provider, day in days
            for near in (_shifted(day, -1), day, _shifted(day, 1))
            if near == day or near in self._known[provider].records
        }

    def _unsettled(self, provider: str) -> None:
        known = self._known[provider]
        self._changed |= {(provider, day) for day in known.records if self.published.state(provider, day) != "settled"}

    def _scopes(self, provider: str) -> Scopes:
        mine = [link for link in self._links.values() if link.provider == provider]
        return Scopes(mine, self._known[provider].projects_of)

    def _bill(self, provider: str, day: str) -> DayBill | None:
        known = self._known[provider]
        records = {name: list(found.values()) for name, found in known.records.get(day, {}).items()}
        if provider == "openai":
            return bill_openai.read_day(records)
        return bill_anthropic.read_day(records, known.watermark)

    def _judge(self, provider: str, day: str) -> _Judged | None:
        """Return a day by scope, None when its bill is not known."""
        at = (provider, day)
        if at not in self._judged:
            self._judged[at] = self._apart(provider, day)
        return self._judged[at]

    def _apart(self, provider: str, day: str) -> _Judged | None:
        bill = self._bill(provider, day)
        if bill is None:
            return None
        as_of = self._as_of(provider, day, bill)
        scopes = self._scopes(provider)
        if scopes.by_key and bill.by_key is None and provider == "openai":
            bill.problems.append(f"{bill_openai.COSTS_BY_KEY}: what each key cost on this day has not been polled")
        out: dict[str, ScopeDay] = {}

        def scope(name: str) -> ScopeDay:
            return out.setdefault(name, ScopeDay(usage_known=bill.usage_known, hourly=bill.hourly))

        for account, key, line in bill.lines:
            scope(scopes.of_account(*account)).bill(key, line)
        for account, key, line in bill.by_key or ():
            if (own := scopes.own_key(account.api_key_id)) is not None:
                scope(own).bill(key, line)
                project = scopes.of_account(self._known[provider].projects_of.get(account.api_key_id or ""), None)
                scope(project).bill(key, line, -1)
        for used in bill.usage:
            scope(scopes.of_account(*used.account)).usage.append(used)
        seen = self._known[provider].seen.get(day, SeenDay())
        for name, connections in _by_scope(seen, scopes).items():
            scope(name).see(seen, connections)
        for name, one in list(out.items()):
            # Moving amounts from `outside` to a key's scope leaves empty lines.
            one.lines = {key: line for key, line in one.lines.items() if line.amount or line.quantity != 0}
            if not (one.lines or one.usage or one.seen):
                del out[name]
            fill_quantities(one)
        closed = not bill.problems and not _is_open(day, as_of, bill.watermark)
        return _Judged(bill, out, closed)

    def _cursor(self, provider: str) -> PollCursor | None:
        cursors = [one for name in COSTS[provider] if (one := self._known[provider].cursors.get(name))]
        return max(cursors, key=lambda one: one.polled_at, default=None)

    def _as_of(self, provider: str, day: str, bill: DayBill) -> datetime:
        """Return as of when the bill of a day is known. A poll without changes is visible only in the cursor."""
        cursor = self._cursor(provider)
        if cursor is None:
            return bill.as_of
        if cursor.settled <= _midnight(day):
            return max(bill.as_of, cursor.polled_at)  # every poll fetches all unsettled days again
        # It was last fetched after its end, and not again since it settled.
        return max(bill.as_of, _midnight(day) + timedelta(days=1))

    def _statements(self, provider: str, day: str) -> dict[str, dict[str, Any]] | None:
        """Return the statements of a provider's day by scope; None when there is no data for it."""
        known = self._known[provider]
        if not known.records:
            return None
        scopes, seen = self._scopes(provider), known.seen.get(day, SeenDay())
        judged = self._judge(provider, day)
        by_scope = _by_scope(seen, scopes)
        names = set(by_scope) | (set(judged.scopes) if judged else set())
        out = {}
        for name in sorted(names):
            members = scopes.members(name)
            own_hours = [tally for key, tally in seen.tallies.items() if key.connection_id in by_scope.get(name, set())]
            head: dict[str, Any] = {
                "provider": provider,
                "scope": name,
                "day": day,
                "as_of": None,
                "telemetry_as_of": _iso_ms(seen.newest_ms) if name in by_scope else None,
                "connections": sorted(members.connections or {connection_of(one)[0] for one in by_scope.get(name, ())}),
                "projects": sorted(members.projects),
                "api_keys": sorted(members.keys),
                "estimate_usd": to_usd(sum(tally.cost for tally in own_hours)),
                "seen_tokens": sum(tally.tokens for tally in own_hours),
            }
            if judged is None:
                out[name] = head | _NOTHING | {"state": "partial", "reason": NOT_POLLED}
            else:
                out[name] = head | self._statement(provider, day, name, judged, seen)
        return out

    def _statement(self, provider: str, day: str, name: str, judged: _Judged, seen: SeenDay) -> dict[str, Any]:
        bill, scope = judged.bill, judged.scopes.get(name, ScopeDay())
        as_of, cursor = self._as_of(provider, day, bill), self._cursor(provider)
        said: dict[str, Any] = _NOTHING | {"as_of": _iso(as_of)}
        if bill.problems:
            return said | {"state": "partial", "reason": "; ".join(sorted(set(bill.problems)))[:1000]}
        if _is_open(day, as_of, bill.watermark):
            state = "open"
        elif (
            cursor is not None
            and cursor.settled >= _midnight(day) + timedelta(days=1)
            and seen.newest_ms <= cursor.polled_at.timestamp() * 1000
        ):
            state = "settled"
        else:
            state = "provisional"
        said["state"] = state
        if name == PLAN:
            return said | {"reason": "a plan pays for these connections: the estimate is what the API would have cost"}
        prices = partial(self._price, provider, day)
        cells = cells_of(scope, self._moved(provider, day, name), prices)
        splits, ratio = split_all(cells)
        rendered = as_cells(scope, cells, splits)
        currencies = {currency: decimals.text(amount) for currency, amount in sorted(bill.currencies.items())}
        return said | sums(rendered) | {
            "reason": None,
            "cells": rendered,
            "discount_ratio": decimals.rounded(ratio),
            "other_currencies": currencies,
        }  # fmt: skip

    def _price(self, provider: str, day: str, model: str, tier: str, window: str, kind: str) -> Fraction | None:
        noon_ns = int((_midnight(day) + timedelta(hours=12)).timestamp()) * 10**9
        return book_price(self._book, provider, model, tier, window, kind, noon_ns)

    def _moved(self, provider: str, day: str, name: str) -> dict[ModelKind, int]:
        """Return, by model and kind, tokens of this day's bill that telemetry has on a neighbouring day."""
        near = [self._judge(provider, other) for other in (_shifted(day, -1), day, _shifted(day, 1))]
        if near[1] is None or not near[1].closed:
            return {}
        edges = [
            judged.scopes[name].edges() if judged is not None and judged.closed and name in judged.scopes else {}
            for judged in near
        ]
        return {
            at: moved_between(edges[1].get(at), edges[2].get(at)) - moved_between(edges[0].get(at), edges[1].get(at))
            for at in edges[1]
        }


_NOTHING: dict[str, Any] = {
    "bill_usd": None, "difference_usd": None, "causes": None, "billed_tokens": None, "discount_ratio": None,
    "other_currencies": {}, "cells": [],
}  # fmt: skip


def _by_scope(seen: SeenDay, scopes: Scopes) -> dict[str, set[str]]:
    out: dict[str, set[str]] = {}
    for connection in seen.connections:
        out.setdefault(scopes.of_connection(connection), set()).add(connection)
    return out


def _is_open(day: str, as_of: datetime, watermark: datetime | None) -> bool:
    end = _midnight(day) + timedelta(days=1)
    return as_of < end or (watermark is not None and watermark < end)


def _midnight(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)


def _shifted(day: str, days: int) -> str:
    return (date.fromisoformat(day) + timedelta(days=days)).isoformat()


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _iso_ms(ms: int) -> str | None:
    return None if ms < 0 else _iso(datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000))
