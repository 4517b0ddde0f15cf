"""Builds the models from a consistent view of the ledger. Pure, except for reading the database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from itertools import groupby
from typing import Any

import orjson

from tallystream.agents.ledger.queries import console as queries
from tallystream.agents.ledger.queries import family
from tallystream.agents.ledger.queries import sessions as session_queries
from tallystream.agents.ledger.store.database import Database
from tallystream.agents.pricing.book import Book
from tallystream.agents.reconciliation import decimals
from tallystream.console import models
from tallystream.console.coverage import SessionCoverage, session_coverages
from tallystream.schemas.errors import Reason
from tallystream.schemas.hours import HOUR_NS, hour_iso, is_final
from tallystream.schemas.money import to_usd
from tallystream.streams.deadletters.reasons import WORDS
from tallystream.streams.service.clock import utc

DAY = 24
PAGE = 50
MOST_BUCKETS = 500
MATCHING = 10_000
SILENT = timedelta(minutes=5)
POLLED = timedelta(days=1)
"""A provider whose numbers were fetched within it is polled, wherever its key is set."""
_KINDS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output")
_MILLION = 1_000_000


@dataclass(frozen=True)
class Sight:
    """A consistent view of the ledger at a moment (ns since the epoch)."""

    database: Database
    now_ns: int

    @property
    def as_of(self) -> str:
        """The moment as a timestamp."""
        return stamp(utc(self.now_ns))

    @property
    def hour(self) -> int:
        """The hour that contains the moment."""
        return self.now_ns // HOUR_NS


def stamp(at: datetime) -> str:
    """Return a time as `2026-11-21T14:03:22Z`."""
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def usd(pico: int | None) -> str | None:
    """Return exact dollars as a decimal string."""
    return None if pico is None else to_usd(pico)


def totals(sums: queries.LedgerTotals) -> models.Totals:
    """Return sums as a model."""
    return models.Totals(
        requests=sums.requests, total_tokens=sums.tokens, unpriced_requests=sums.unpriced, cost_usd=usd(sums.cost)
    )


# -- sessions


def session_page(
    sight: Sight,
    wanted: session_queries.SessionFilter,
    sort: session_queries.Sort,
    after: str | None,
    limit: int = PAGE,
) -> models.SessionPage:
    """Return a page of sessions.

    Raises:
        ValueError: `after` is not a cursor of this list.

    """
    database = sight.database
    found = session_queries.sessions(database, wanted, sort, limit + 1, after)
    shown = found[:limit]
    return models.SessionPage(
        as_of=sight.as_of,
        rows=_session_rows(database, shown, session_coverages(database, [one.name for one in shown])),
        matching=session_queries.count_sessions(database, wanted, MATCHING),
        matching_most=MATCHING,
        next=shown[-1].cursor if len(found) > limit else None,
    )


def _session_rows(
    database: Database,
    found: list[session_queries.SessionSummary],
    seen: Mapping[tuple[str, str], SessionCoverage],
) -> list[models.SessionRow]:
    keys = [one.key for one in found]
    names, attributed = session_queries.models_of(database, keys), session_queries.attributions(database, keys)
    return [
        models.SessionRow(
            connection_id=one.connection_id,
            session_id=one.session_id,
            client=one.client,
            first_hour=hour_iso(one.first_hour),
            last_hour=hour_iso(one.last_hour),
            models=names.get(one.key, []),
            attribution=attributed.get(one.key, {}),
            cost_usd=usd(one.cost),
            reported_cost_usd=usd(one.reported),
            duplicates=one.duplicates,
            seen_share=seen[one.name].seen_share if one.name in seen else None,
            **one.counts,
        )
        for one in found
    ]


def session_detail(sight: Sight, book: Book, connection_id: str, session_id: str) -> models.SessionDetail | None:
    """Return one session with the explanation of its cost, or None if it does not exist."""
    database = sight.database
    found = session_queries.session(database, connection_id, session_id)
    if found is None:
        return None
    rows = session_queries.buckets(database, found.key, MOST_BUCKETS + 1)
    letters = queries.dead_letters(database, PAGE, session_id=session_id, connection=connection_id)
    below = family.children(database, connection_id, session_id)
    seen = session_coverages(database, [found.name])
    return models.SessionDetail(
        as_of=sight.as_of,
        parents=family.parents(database, connection_id, session_id),
        children=[_child(one) for one in below],
        with_children=_with_children(found, below) if below else None,
        session=_session_rows(database, [found], seen)[0],
        coverage=seen.get(found.name),
        buckets=[_bucket(sight, book, row) for row in rows[:MOST_BUCKETS]],
        more_buckets=len(rows) > MOST_BUCKETS,
        dead_letters=[dead_letter(text) for text in letters],
    )


def _child(one: family.FamilyMember) -> models.ChildSession:
    return models.ChildSession(
        session_id=one.session_id,
        parent_session_id=one.parent_session_id,
        depth=one.depth,
        requests=one.requests,
        total_tokens=one.total_tokens,
        unpriced_requests=one.unpriced,
        cost_usd=usd(one.cost),
    )


def _with_children(own: session_queries.SessionSummary, below: list[family.FamilyMember]) -> models.Totals:
    costs = [cost for cost in (own.cost, *(one.cost for one in below)) if cost is not None]
    return models.Totals(
        requests=own.counts["requests"] + sum(one.requests for one in below),
        total_tokens=own.counts["total_tokens"] + sum(one.total_tokens for one in below),
        unpriced_requests=own.counts["unpriced_requests"] + sum(one.unpriced for one in below),
        cost_usd=usd(sum(costs)) if costs else None,
    )


def _bucket(sight: Sight, book: Book, row: session_queries.BucketRow) -> models.BucketModel:
    return models.BucketModel(
        hour=hour_iso(row.hour),
        final=is_final(row.hour, sight.now_ns),
        provider=row.provider,
        model=row.model,
        service_tier=row.service_tier,
        speed=row.speed,
        book=row.book,
        attribution=dict(row.attribution),
        cost_usd=usd(row.cost),
        reported_cost_usd=usd(row.reported),
        explanation=explain(book, row),
        **row.counts,
    )


def explain(book: Book, row: session_queries.BucketRow) -> models.Explanation:
    """Explain the cost of a bucket, as far as its sums and the installed price book allow."""
    unpriced, requests = row.counts["unpriced_requests"], row.counts["requests"]
    rates = book.rates(row.provider, row.model, row.service_tier, row.hour * HOUR_NS, speed=row.speed)
    if row.cost is None or rates is None:
        why = book.why_unpriced(row.provider, row.model, row.service_tier, row.speed)
        note = f"No price: {why}." if row.cost is None else "Its price is not a whole number of pico-dollars per token."
        return models.Explanation(exact=False, note=note, charges=[], steps=[])
    steps = [
        models.PriceStep(
            above_input_tokens=start,
            usd_per_million={kind: to_usd(rate * _MILLION) for kind, rate in zip(_KINDS, prices, strict=True)},
            usd_per_request=to_usd(fee) if fee else None,
        )
        for start, prices, fee in rates
    ]
    if row.book != book.hash:
        note = f"Priced with the book {row.book}; the one installed here is {book.hash}, whose prices may differ."
        return models.Explanation(exact=False, note=note, charges=[], steps=steps)
    # A sum that is the cost to the last digit is of requests in one tier of the price.
    fitting = [place for place, (_, prices, fee) in enumerate(rates) if _product(row, prices, fee) == row.cost]
    if len(rates) > 1 and not fitting:
        note = "The price depends on the size of each request, so sums do not give it; the price tiers are shown."
        return models.Explanation(exact=False, note=note, charges=[], steps=steps)
    tier = fitting[0] if fitting else 0
    _, prices, fee = rates[tier]
    charges = [
        models.Charge(
            kind=kind,
            tokens=row.counts[kind],
            usd_per_million=to_usd(rate * _MILLION),
            usd=to_usd(row.counts[kind] * rate),
        )
        for kind, rate in zip(_KINDS, prices, strict=True)
        if row.counts[kind]
    ]
    exact = bool(fitting)
    if exact:
        note = "The cost is the sum of tokens times price."
        if tier:
            note += f" Every request had more than {rates[tier][0]:,} input tokens."
        elif len(rates) > 1:
            note += f" No request had more than {rates[1][0]:,} input tokens."
    elif unpriced:
        note = f"{unpriced} of the {requests} requests have no price; their tokens are included here."
    else:
        note = (
            "The price changed within the hour. The cost is exact; the products use the price at the start of the hour."
        )
    if fee:
        note += f" Each request also costs ${to_usd(fee)}."
    return models.Explanation(exact=exact, note=note, charges=charges, steps=[])


def _product(row: session_queries.BucketRow, prices: Sequence[int], fee: int) -> int:
    tokens = sum(row.counts[kind] * rate for kind, rate in zip(_KINDS, prices, strict=True))
    return tokens + fee * row.counts["requests"]


# -- connections, dead letters, OpenAI


def connections(sight: Sight, *, openai: bool, anthropic: bool) -> models.ConnectionList:
    """Return all connections with what was received from them. `openai`, `anthropic`: their keys are set here."""
    database, now = sight.database, utc(sight.now_ns)
    synced = queries.synced(database)
    first = sight.hour - sight.hour % DAY - 29 * DAY
    spent = queries.cost_by_connection(database, first, sight.hour)
    found = []
    for row in queries.connections(database):
        signals = synced.get(row["connection_id"], {})
        rotating = row["old_until"] is not None and _time(row["old_until"]) > now
        newest = max((at for at, _, _ in signals.values()), default=None)
        found.append(
            models.ConnectionModel(
                connection_id=row["connection_id"],
                provider=row["provider"],
                name=row["name"],
                created_at=_short(row["created_at"]),
                state="revoked" if row["revoked_at"] else "rotating" if rotating else "active",
                old_secret_until=_short(row["old_until"]) if rotating else None,
                revoked_at=_short(row["revoked_at"]) if row["revoked_at"] else None,
                bearer=bool(row["bearer"]),
                last_synced_at=None if newest is None else _short(newest),
                signals={
                    name: models.SignalModel(last_synced_at=_short(at), requests=requests, records=records)
                    for name, (at, requests, records) in sorted(signals.items())
                },
                silent=newest is None and now - _time(row["created_at"]) > SILENT,
                last_30_days=totals(spent.get(row["connection_id"], queries.LedgerTotals())),
                since=hour_iso(first)[:10],
            )
        )
    bills = queries.bills_synced(database)
    billed: tuple[tuple[models.Billed, bool], ...] = (("openai", openai), ("anthropic", anthropic))
    return models.ConnectionList(
        as_of=sight.as_of,
        connections=found,
        openai=openai,
        billing=[
            models.BillingProvider(
                provider=name,
                polled=here or (name in bills and now - _time(bills[name]) < POLLED),
                last_synced_at=_short(bills[name]) if name in bills else None,
            )
            for name, here in billed
        ],
    )


def dead_letter(text: str) -> models.DeadLetterModel:
    """Return a dead letter with the meaning of its reason."""
    document: dict[str, Any] = orjson.loads(text)
    meaning, step = words(document["reason"])
    return models.DeadLetterModel(**document, meaning=meaning, next_step=step)


def words(reason: str) -> tuple[str, str]:
    """Return the meaning of a reason and the next step."""
    try:
        return WORDS[Reason(reason)]
    except (ValueError, KeyError):
        return "A newer release wrote this reason.", "Upgrade to read what it means."


def dead_letters(sight: Sight, reason: str | None, after: str | None) -> models.DeadLetterPage:
    """Return a page of dead letters."""
    begin = None
    if after is not None:
        at, bar, source = after.partition("~")
        begin = (at, source) if bar else None
    found = queries.dead_letters(sight.database, PAGE + 1, reason=reason, after=begin)
    rows = [dead_letter(text) for text in found[:PAGE]]
    reasons = [
        models.ReasonCount(reason=name, letters=number, newest=_short(newest), meaning=words(name)[0],
                           next_step=words(name)[1])
        for name, number, newest in queries.dead_letter_reasons(sight.database)
    ]  # fmt: skip
    return models.DeadLetterPage(
        as_of=sight.as_of,
        reasons=reasons,
        rows=rows,
        next=f"{_long(rows[-1].at)}~{rows[-1].source}" if len(found) > PAGE else None,
    )


def openai_days(sight: Sight, days: int = 60, only: str | None = None) -> models.BilledDays:
    """Return OpenAI's own numbers of the last days, and our numbers for its models; models of the day `only`."""
    first = sight.hour - sight.hour % DAY - (days - 1) * DAY
    since = hour_iso(first)[:10]
    billed, used = queries.openai_days(sight.database, since)
    found: dict[tuple[str, str, str], models.BilledDayModel] = {}

    def day(row: tuple[Any, ...]) -> models.BilledDayModel:
        key = (row[0], row[1], row[2])
        if key not in found:
            found[key] = models.BilledDayModel(
                day=row[0], model=row[1] or None, project_id=row[2] or None, billed={}, used={}
            )
        return found[key]

    for row in billed:
        day(row).billed[row[3]] = f"{row[4]:f}" if not isinstance(row[4], str) else row[4]
    for row in used:
        day(row).used.setdefault(row[3], {})[row[4]] = int(row[5])
    costs = queries.seen_by_day(sight.database, "openai", first, sight.hour)
    seen = {hour_iso(at * DAY)[:10]: usd(cost) for at, cost in costs.items()}
    ordered = sorted(found.values(), key=lambda one: (one.day, one.model or "", one.project_id or ""), reverse=True)
    return models.BilledDays(
        as_of=sight.as_of,
        sums=[
            models.BilledDaySum(day=at, billed=_by_resource(ones), seen_usd=seen.get(at))
            for at, ones in groupby(ordered, lambda one: one.day)
        ],
        days=[one for one in ordered if only is None or one.day == only],
        seen=seen,
    )


def _by_resource(ones: Iterable[models.BilledDayModel]) -> dict[str, str]:
    sums: dict[str, Fraction] = {}
    for one in ones:
        for resource, billed in one.billed.items():
            sums[resource] = sums.get(resource, Fraction(0)) + Fraction(billed)
    return {resource: decimals.text(billed) for resource, billed in sorted(sums.items())}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _short(text: str) -> str:
    """Return a time of the ledger in whole seconds."""
    return f"{text[:19]}Z"


def _long(text: str) -> str:
    """Return a document's time in the form that the ledger sorts by."""
    from tallystream.agents.ledger.records import iso

    return iso(_time(text)) or ""
