"""The first page: its model, built from the sums of hours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from pydantic import BaseModel

from tallystream.agents.cost_query import Query
from tallystream.agents.ledger.queries import console as queries
from tallystream.agents.ledger.queries.cost import plan_cost
from tallystream.console import models
from tallystream.console.build import DAY, Sight, totals, usd
from tallystream.schemas.hours import HOUR_NS, hour_iso

CHART_HOURS = 24
RANGES: Mapping[str, int] = {"today": 1, "7d": 7, "30d": 30}


class Share(BaseModel):
    """One model, team, agent, connection or client of a period."""

    name: str | None
    """Null: requests that do not name one."""
    totals: models.Totals


class HourPoint(BaseModel):
    """One UTC hour, compared with the same hour of the day before."""

    hour: str
    hour_before: str
    """The same hour of the day before."""
    cost_usd: str | None
    day_before_usd: str | None
    requests: int


class Period(BaseModel):
    """A period of hours, compared with an earlier period of the same length."""

    name: str
    since: str
    until: str
    """Exclusive."""
    totals: models.Totals
    before: models.Totals
    """The same hours earlier, by one day or by the number of days in the period."""
    before_since: str
    before_until: str
    """Exclusive."""


class Overview(BaseModel):
    """The first page."""

    as_of: str
    range: Literal["today", "7d", "30d"]
    periods: list[Period]
    burn_usd_per_hour: str | None
    """Cost of this hour if it continues like its first minutes; null until a few minutes have passed."""
    plan_usd: str | None = None
    """The part of the range's cost that a plan pays for: what the API would have charged, part of no bill."""
    hours: list[HourPoint]
    models: list[Share]
    teams: list[Share]
    agents: list[Share]
    connections: list[Share]
    clients: list[Share]


def overview(sight: Sight, chosen: str) -> Overview:
    """Return the first page."""
    database, hour = sight.database, sight.hour
    midnight = hour - hour % DAY
    days = RANGES[chosen]
    first = midnight - (days - 1) * DAY
    shift = days * DAY

    def period(name: str, since: int, until: int, back: int) -> Period:
        return Period(
            name=name,
            since=hour_iso(since),
            until=hour_iso(until),
            totals=totals(queries.totals(database, since, until - 1)),
            before=totals(queries.totals(database, since - back, until - 1 - back)),
            before_since=hour_iso(since - back),
            before_until=hour_iso(until - back),
        )

    def by(name: queries.Dimension) -> list[Share]:
        found = queries.by_dimension(database, name, first, hour)
        return [Share(name=one, totals=totals(sums)) for one, sums in found]

    periods = [period("This hour", hour, hour + 1, DAY), period("Today", midnight, hour + 1, DAY)]
    if days > 1:
        periods.append(period(f"Last {days} days", first, hour + 1, shift))
    now, earlier = (queries.by_hour(database, hour - CHART_HOURS + 1 - back, hour - back) for back in (0, DAY))
    hours = []
    for at in range(hour - CHART_HOURS + 1, hour + 1):
        here, before = now.get(at, queries.LedgerTotals()), earlier.get(at - DAY, queries.LedgerTotals())
        hours.append(
            HourPoint(
                hour=hour_iso(at),
                hour_before=hour_iso(at - DAY),
                cost_usd=usd(here.cost),
                day_before_usd=usd(before.cost),
                requests=here.requests,
            )
        )
    return Overview(
        as_of=sight.as_of,
        range=cast(Literal["today", "7d", "30d"], chosen),
        periods=periods,
        burn_usd_per_hour=_burn(sight, now.get(hour)),
        plan_usd=usd(plan_cost(database, Query("models", since=first, until=hour + 1)) or None),
        hours=hours,
        models=by("model"),
        teams=by("team"),
        agents=by("agent"),
        connections=by("connection"),
        clients=by("client"),
    )


def _burn(sight: Sight, sums: queries.LedgerTotals | None) -> str | None:
    past = sight.now_ns - sight.hour * HOUR_NS
    if past < HOUR_NS // 12:
        return None
    return usd((sums.cost or 0) * HOUR_NS // past if sums is not None else 0)
