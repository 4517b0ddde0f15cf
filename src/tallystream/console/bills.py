"""The page of bills: its model, built from the statements in the ledger."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import orjson
from pydantic import BaseModel

from tallystream.agents.ledger.queries import console as queries
from tallystream.agents.reconciliation import decimals, report
from tallystream.console.build import DAY, Sight
from tallystream.schemas.hours import hour_iso

MOST_STATEMENTS = 1000


class BillCause(BaseModel):
    """A part of the difference between bills and estimates."""

    cause: str
    usd: str
    meaning: str
    to_do: str


class BillDay(BaseModel):
    """A provider's bill of one UTC day and account scope, and our estimate. Money is null without a split."""

    day: str
    provider: str
    scope: str
    state: str
    reason: str | None
    """Why there is no split."""
    as_of: str | None
    connections: list[str]
    bill_usd: str | None
    estimate_usd: str
    difference_usd: str | None
    causes: dict[str, str]
    """Those that are not 0, the largest first; they add up to exactly the difference."""
    seen_tokens: int
    billed_tokens: int | None
    restated_usd: str | None
    """By how much the provider last changed a bill that was complete."""


class BillDays(BaseModel):
    """Bills and estimates: the sums of the days that have a split, in words, and each day."""

    as_of: str
    headline: str | None
    bill_usd: str
    estimate_usd: str
    difference_usd: str
    causes: list[BillCause]
    """The largest first."""
    notes: list[str]
    days: list[BillDay]
    more: bool
    """Whether there are further statements, which neither the sums nor the days have."""


def bill_days(sight: Sight, days: int) -> BillDays:
    """Return the statements of the last days, and their sums."""
    since = hour_iso(sight.hour - sight.hour % DAY - (days - 1) * DAY)[:10]
    found = [orjson.loads(text) for text in queries.statements(sight.database, since, MOST_STATEMENTS + 1)]
    shown = found[:MOST_STATEMENTS]
    sums = report.total(shown)
    return BillDays(
        as_of=sight.as_of,
        headline=report.headline(shown, sums) if shown else None,
        bill_usd=decimals.text(sums.bill),
        estimate_usd=decimals.text(sums.estimate),
        difference_usd=decimals.text(sums.bill - sums.estimate),
        causes=[_cause(name, value) for name, value in _ranked(sums.causes)],
        notes=report.notes(shown, sums),
        days=[_day(one) for one in shown],
        more=len(found) > len(shown),
    )


def _ranked(causes: dict[str, Fraction]) -> list[tuple[str, Fraction]]:
    return sorted(((name, value) for name, value in causes.items() if value), key=lambda item: -abs(item[1]))


def _cause(name: str, value: Fraction) -> BillCause:
    meaning, to_do = report.WORDS[name]
    return BillCause(cause=name, usd=decimals.text(value), meaning=meaning, to_do=to_do)


def _day(one: dict[str, Any]) -> BillDay:
    parts = sorted((one["causes"] or {}).items(), key=lambda item: -abs(Decimal(item[1])))
    return BillDay(
        causes={name: usd for name, usd in parts if usd != "0"},
        restated_usd=None if one["restated"] is None else one["restated"]["change_usd"],
        **{name: one[name] for name in BillDay.model_fields if name not in ("causes", "restated_usd")},
    )
