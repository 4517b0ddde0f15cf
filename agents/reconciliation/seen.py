"""The telemetry of one UTC day, from the rows of `cost.session-hours`. Pure.

A row's dollars are those of the dashboards; they are split by token kind with the book's prices, so that the parts of a
row add up to exactly the row. Rows do not record the context window: if a row cost more than its short-context price,
the share of long-context tokens that explains its dollars is taken, the same for all kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from tallystream.agents.cost_table import PLAN
from tallystream.agents.pricing.book import Book
from tallystream.agents.pricing.rates import Card, Rates
from tallystream.schemas.billing.line_item import LONG, SHORT, STANDARD, undated
from tallystream.schemas.hours import HOUR_NS, hour_from_iso
from tallystream.schemas.money import PICO, to_pico
from tallystream.schemas.usage import DISJOINT_COUNTS

PRICED_KINDS = ("input_uncached", "cache_read", "cache_write_5m", "cache_write_1h", "output")
"""In the order of `Rates`; `tool` costs what input does."""
UNSAID_TIERS = frozenset({"auto"})
"""A request asks for `auto`, which does not determine the tier that serves it."""
STANDARD_TIERS = frozenset({"", "default", "standard"})


_BY_PLAN = "|plan"
"""No connection id contains a `|`."""


class SeenKey(NamedTuple):
    """The key by which seen tokens are added up."""

    connection_id: str
    """The connection, or `by_plan` of it where its usage says that a plan pays."""
    model: str
    """Without its date."""
    window: str
    kind: str
    tier: str | None


class SeenPart(NamedTuple):
    """What one row adds to a key; `cost` is None without a price."""

    key: SeenKey
    tokens: int
    cost: int | None


@dataclass
class TokenTally:
    """Tokens and pico-dollars."""

    tokens: int = 0
    cost: int = 0
    priced: int = 0
    """Tokens that have a price."""

    @property
    def price(self) -> Fraction | None:
        """Dollars per token; None when nothing could be priced."""
        return Fraction(self.cost, self.tokens * PICO) if self.priced and self.tokens else None


@dataclass(frozen=True)
class SeenRow:
    """The relevant parts of a row of `cost.session-hours`."""

    provider: str
    day: str
    hour: int
    """0 to 23."""
    parts: tuple[SeenPart, ...]


@dataclass
class SeenDay:
    """A provider's day. Rows are added and, when a newer version replaces them, taken away."""

    tallies: dict[SeenKey, TokenTally] = field(default_factory=dict)
    hours: dict[tuple[str, str, str, int], int] = field(default_factory=dict)
    """Tokens by (connection, model, kind, hour)."""
    written: dict[str, set[str]] = field(default_factory=dict)
    """By model without its date, the names that clients used."""
    newest_ms: int = -1
    """Append time of the newest row."""

    def add(self, row: SeenRow, sign: int = 1) -> None:
        """Add a row, or take it away (`sign` -1)."""
        for key, tokens, cost in row.parts:
            tally = self.tallies.setdefault(key, TokenTally())
            tally.tokens += sign * tokens
            if cost is not None:
                tally.cost += sign * cost
                tally.priced += sign * tokens
            if not tally.tokens and not tally.cost:
                del self.tallies[key]
            hour = (key.connection_id, key.model, key.kind, row.hour)
            if not (count := self.hours.get(hour, 0) + sign * tokens):
                self.hours.pop(hour, None)
            else:
                self.hours[hour] = count

    @property
    def connections(self) -> set[str]:
        """Connections that were seen."""
        return {key.connection_id for key in self.tallies}


def read_row(row: Mapping[str, Any], book: Book, names: dict[str, set[str]]) -> SeenRow:
    """Parse a row; the models' names as clients write them are added to `names`.

    Raises:
        KeyError, TypeError, ValueError: it is not a SessionHourCost.

    """
    hour: str = row["hour"]
    provider, connection = row["provider"], row["connection_id"]
    at_ns = hour_from_iso(hour) * HOUR_NS
    parts: list[SeenPart] = []
    for bucket in row["buckets"]:
        model = bucket["model"]
        name = undated(model)
        names.setdefault(name, set()).add(model)
        cost = bucket.get("cost_usd")
        card = book.card(provider, model, bucket.get("service_tier"), at_ns, speed=bucket.get("speed"))
        counts = {kind: bucket[kind] for kind in DISJOINT_COUNTS if bucket[kind]}
        tier = tier_of(bucket.get("service_tier"))
        payer = by_plan(connection) if (bucket.get("attribution") or {}).get("billing") == PLAN else connection
        for window, kind, tokens, share in kind_costs(counts, None if cost is None else to_pico(cost), card):
            parts.append(SeenPart(SeenKey(payer, name, window, kind, tier), tokens, share))
    return SeenRow(provider, hour[:10], int(hour[11:13]), tuple(parts))


def by_plan(connection_id: str) -> str:
    """Return the name under which a connection's usage is kept when the usage itself says that a plan pays for it."""
    return f"{connection_id}{_BY_PLAN}"


def connection_of(name: str) -> tuple[str, bool]:
    """Return the connection that a name of seen usage stands for, and whether a plan pays."""
    return name.removesuffix(_BY_PLAN), name.endswith(_BY_PLAN)


def tier_of(said: str | None) -> str | None:
    """Return the service tier of a row, None when the serving tier is unknown."""
    if said is None or said in UNSAID_TIERS:
        return None
    return STANDARD if said in STANDARD_TIERS else said


def kind_costs(
    counts: Mapping[str, int], cost: int | None, card: Card | None
) -> Iterator[tuple[str, str, int, int | None]]:
    """Yield (window, kind, tokens, pico-dollars) of a bucket; the dollars add up to exactly `cost`."""
    if cost is None:
        yield from ((SHORT, kind, tokens, None) for kind, tokens in counts.items())
        return
    short = _priced(counts, card.rates[0]) if card else dict.fromkeys(counts, 0)
    by_short = sum(short.values())
    if cost == by_short:
        yield from ((SHORT, kind, tokens, short[kind]) for kind, tokens in counts.items())
        return
    long = _priced(counts, card.rates[-1]) if card else short
    by_long = sum(long.values())
    if by_short < cost <= by_long:
        yield from _whole(_mixed(counts, short, long, Fraction(cost - by_short, by_long - by_short)), cost)
        return
    # Priced by another book, or with a fee per request: the row's dollars are split in the same proportions.
    weights: Mapping[str, int] = short if by_short else counts
    whole = sum(weights.values())
    parts = [(SHORT, kind, tokens, Fraction(cost * weights[kind], whole)) for kind, tokens in counts.items()]
    yield from _whole(parts, cost)


def _mixed(
    counts: Mapping[str, int], short: Mapping[str, int], long: Mapping[str, int], share: Fraction
) -> list[tuple[str, str, int, Fraction]]:
    parts = []
    for kind, tokens in counts.items():
        cost = (1 - share) * short[kind] + share * long[kind]
        of_long = (share * tokens + Fraction(1, 2)).__floor__()
        if 0 < of_long < tokens:
            above = Fraction(long[kind] * of_long, tokens)
            parts.append((LONG, kind, of_long, above))
            parts.append((SHORT, kind, tokens - of_long, cost - above))
        else:
            parts.append((LONG if of_long else SHORT, kind, tokens, cost))
    return parts


def _whole(parts: list[tuple[str, str, int, Fraction]], cost: int) -> Iterator[tuple[str, str, int, int]]:
    """Give the parts in whole pico-dollars, by largest remainder."""
    units = [part[3].__floor__() for part in parts]
    order = sorted(range(len(parts)), key=lambda at: (units[at] - parts[at][3], at))
    for at in order[: cost - sum(units)]:
        units[at] += 1
    for (window, kind, tokens, _), unit in zip(parts, units, strict=True):
        yield window, kind, tokens, unit


def _priced(counts: Mapping[str, int], rates: Rates) -> dict[str, int]:
    return {kind: tokens * (rate_of(rates, kind) or 0) for kind, tokens in counts.items()}


def rate_of(rates: Rates, kind: str) -> int | None:
    """Return pico-dollars a token of a kind; None when the book has no price for it."""
    if kind == "tool":
        return rates.input_uncached
    return rates[PRICED_KINDS.index(kind)] if kind in PRICED_KINDS else None


def book_price(book: Book, provider: str, model: str, tier: str, window: str, kind: str, at_ns: int) -> Fraction | None:
    """Return dollars a token by the book."""
    card = book.card(provider, model, None if tier == STANDARD else tier, at_ns)
    if card is None:
        return None
    rate = rate_of(card.rates[-1 if window == LONG else 0], kind)
    return None if rate is None else Fraction(rate, PICO)


def total(tallies: Iterable[TokenTally]) -> TokenTally:
    """Return the sum of tallies."""
    out = TokenTally()
    for one in tallies:
        out.tokens += one.tokens
        out.cost += one.cost
        out.priced += one.priced
    return out
