"""One account scope's day: its cells, their splits and their sums. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from tallystream.agents.reconciliation import decimals
from tallystream.agents.reconciliation.bill import HOURS, BillUsage, Line, LineKey
from tallystream.agents.reconciliation.seen import SeenDay, TokenTally, total
from tallystream.agents.reconciliation.split import (
    CAUSES,
    BilledUsage,
    DayCell,
    SeenUsage,
    Split,
    apportion,
    main_tier,
    name_discount,
    net_kinds,
    split,
)
from tallystream.agents.reconciliation.timing import moved_by_days, moved_by_hours
from tallystream.schemas.billing.line_item import SHORT, STANDARD

ModelKind = tuple[str, str]
CellKey = tuple[str | None, str | None, str, str | None]
"""Model, kind, window, product."""


class Prices(Protocol):
    """The book as of the day, for one provider."""

    def __call__(self, model: str, tier: str, window: str, kind: str) -> Fraction | None:
        """Return dollars per token, None without a price."""
        ...


class Edge(NamedTuple):
    """Tokens of one model and kind on one day, for finding what moved over midnight."""

    hours: Mapping[int, int] | None
    """Billed by hour; None if the provider does not report it."""
    gap: int
    """Billed minus seen tokens of the day."""
    seen: Mapping[int, int]
    """Seen by hour."""


@dataclass
class ScopeDay:
    """One scope's data of a day: the bill lines of its accounts, and the seen usage of its connections."""

    lines: dict[LineKey, Line] = field(default_factory=dict)
    usage: list[BillUsage] = field(default_factory=list)
    usage_known: bool = False
    hourly: bool = False
    seen: dict[tuple[str, str, str], dict[str | None, TokenTally]] = field(default_factory=dict)
    """By model, window and kind: by tier."""
    hours: dict[ModelKind, dict[int, int]] = field(default_factory=dict)
    """Seen tokens by hour."""
    written: dict[str, set[str]] = field(default_factory=dict)
    from_usage: set[LineKey] = field(default_factory=set)
    """Lines whose quantity is the usage report's."""

    def bill(self, key: LineKey, line: Line, sign: int = 1) -> None:
        """Add a line of the bill, or take it away."""
        have = self.lines.get(key)
        if have is None:
            have = Line(Fraction(0), quantity=0, list_amount=Fraction(0) if line.list_amount is not None else None)
        self.lines[key] = have.plus(line, sign)

    def see(self, seen: SeenDay, connections: Iterable[str]) -> None:
        """Add the seen usage of these connections."""
        mine = set(connections)
        found: dict[tuple[str, str, str], dict[str | None, list[TokenTally]]] = {}
        for key, tally in seen.tallies.items():
            if key.connection_id in mine:
                found.setdefault((key.model, key.window, key.kind), {}).setdefault(key.tier, []).append(tally)
        self.seen = {key: {tier: total(all_) for tier, all_ in tiers.items()} for key, tiers in found.items()}
        for (connection, model, kind, hour), tokens in seen.hours.items():
            if connection in mine:
                by_hour = self.hours.setdefault((model, kind), {})
                by_hour[hour] = by_hour.get(hour, 0) + tokens
        models = {model for model, _, _ in self.seen}
        self.written = {model: names for model, names in seen.written.items() if model in models}

    def edges(self) -> dict[ModelKind, Edge]:
        """Return, by model and kind, what the days before and after are compared with."""
        billed: dict[ModelKind, int] = {}
        for key, line in self.lines.items():
            if key.model is not None and key.kind is not None:
                billed[key.model, key.kind] = billed.get((key.model, key.kind), 0) + (line.quantity or 0)
        used: dict[ModelKind, dict[int, int]] = {}
        for one in self.usage:
            if one.hour is not None:
                by_hour = used.setdefault((one.model, one.kind), {})
                by_hour[one.hour] = by_hour.get(one.hour, 0) + one.tokens
        out = {}
        for at in {*billed, *self.hours}:
            seen = self.hours.get(at, {})
            hours = used.get(at) if self.hourly else None
            out[at] = Edge(hours, billed.get(at, 0) - sum(seen.values()), seen)
        return out


def moved_between(first: Edge | None, second: Edge | None) -> int:
    """Return tokens billed on the first of two days and seen on the second; negative: the other way."""
    if first is None or second is None:
        return 0
    last, early = HOURS - 1, 0
    if first.hours is not None and second.hours is not None:
        return moved_by_hours(
            first.hours.get(last, 0), first.seen.get(last, 0), second.hours.get(early, 0), second.seen.get(early, 0)
        )
    return moved_by_days(first.gap, second.gap, first.seen.get(last, 0), second.seen.get(early, 0))


def cells_of(day: ScopeDay, moved: Mapping[ModelKind, int], prices: Prices) -> dict[CellKey, tuple[DayCell, bool]]:
    """Return the cells, each with whether its quantity is the usage report's."""
    usage = _usage_by_line(day)
    keys: dict[CellKey, dict[str, LineKey]] = {}
    for key in day.lines:
        keys.setdefault((key.model, key.kind, key.window, key.product), {})[key.tier] = key
    for name, context, of_kind in day.seen:
        keys.setdefault((name, of_kind, context, None), {})
    first: dict[ModelKind, CellKey] = {}
    for at in sorted(keys, key=lambda at: (at[2] != SHORT, not keys[at], at[2])):
        if at[0] is not None and at[1] is not None and main_tier(_billed(day, keys[at], usage)):
            first.setdefault((at[0], at[1]), at)
    out: dict[CellKey, tuple[DayCell, bool]] = {}
    for at in sorted(keys, key=lambda at: tuple(part or "" for part in at)):
        model, kind, window, _ = at
        seen = {} if model is None or kind is None else day.seen.get((model, window, kind), {})
        billed = _billed(day, keys[at], usage)
        book: dict[str, Fraction | None] = {}
        if model is not None and kind is not None:
            told = {tier for tier in seen if tier is not None} | ({STANDARD} if None in seen else set())
            for tier in {*billed, STANDARD} - told:
                book[tier] = _price(prices, day, keys[at], model, tier, window, kind)
        place = (model or "", kind or "")
        cell = DayCell(
            billed,
            {tier: SeenUsage(tally.tokens, tally.price) for tier, tally in seen.items()},
            book,
            moved.get(place, 0) if first.get(place) == at else 0,
        )
        out[at] = cell, any(key in day.from_usage for key in keys[at].values())
    return out


def _price(
    prices: Prices, day: ScopeDay, keys: Mapping[str, LineKey], model: str, tier: str, window: str, kind: str
) -> Fraction | None:
    """Return the price of a model by its name in telemetry, in the bill or without a date: the first the book knows."""
    seen, billed = day.written.get(model, set()), _billed_names(day, keys)
    for name in dict.fromkeys((*sorted(seen), *sorted(billed), model)):
        if name and (found := prices(name, tier, window, kind)) is not None:
            return found
    return None


def _billed_names(day: ScopeDay, keys: Mapping[str, LineKey]) -> set[str]:
    return {name for key in keys.values() for name in day.lines[key].written}


def names_of(day: ScopeDay, at: CellKey) -> list[str]:
    """Return a cell's model as the bill and, where it was seen, telemetry write it: with the dates of snapshots."""
    model, kind, window, _ = at
    if model is None or kind is None:
        return []
    keys = {key.tier: key for key in day.lines if (key.model, key.kind, key.window) == (model, kind, window)}
    seen = day.written.get(model, set()) if (model, window, kind) in day.seen else set()
    return sorted((_billed_names(day, keys) | seen) - {""})


def _billed(day: ScopeDay, keys: Mapping[str, LineKey], usage: Mapping[LineKey, int]) -> dict[str, BilledUsage]:
    return {
        tier: BilledUsage(line.amount, line.quantity or 0, line.list_amount, usage.get(key), line.ulp)
        for tier, key in keys.items()
        if (line := day.lines[key]).amount or line.quantity
    }


def fill_quantities(day: ScopeDay) -> None:
    """Give lines of tokens without a quantity the usage report's count, where it can only be theirs."""
    for key, line in day.lines.items():
        if line.quantity is not None:
            continue
        line.quantity = 0
        if key.kind is None or not day.usage_known:
            continue
        others = [one for one in day.lines if (one.model, one.kind) == (key.model, key.kind)]
        told = [one for one in day.usage if (one.model, one.kind) == (key.model, key.kind)]
        same_window = [one for one in others if one.tier == key.tier]
        if len(others) == 1:
            line.quantity = sum(one.tokens for one in told)
        elif len(same_window) == 1 and all(one.tier is not None for one in told):
            line.quantity = sum(one.tokens for one in told if one.tier == key.tier)
        if line.quantity:
            day.from_usage.add(key)


def _usage_by_line(day: ScopeDay) -> dict[LineKey, int]:
    """Return the usage report's tokens of each line. The report does not know windows, and not always tiers, so what
    it lacks or has too much is shared in proportion to the lines. Audio and images are in its counts and lines of their
    own in the bill, so a model that has such lines cannot be compared.
    """
    out: dict[LineKey, int] = {}
    if not day.usage_known:
        return out
    groups: dict[ModelKind, list[LineKey]] = {}
    for key, line in day.lines.items():
        if key.model is not None and key.kind is not None and line.quantity and line.quantity > 0:
            groups.setdefault((key.model, key.kind), []).append(key)
    mixed = {key.model for key in day.lines if key.kind and key.kind.startswith(("audio_", "image_"))}
    for (model, kind), keys in groups.items():
        if model in mixed:
            continue
        told = [one for one in day.usage if (one.model, one.kind) == (model, kind)]
        if not told:
            continue  # possibly another name, so there is nothing to compare the bill with
        by_tier: dict[str | None, int] = {}
        for one in told:
            by_tier[one.tier] = by_tier.get(one.tier, 0) + one.tokens
        tiers = {key.tier for key in keys}
        if None not in by_tier and set(by_tier) <= tiers:
            for tier in tiers:
                out |= _shared(day, [key for key in keys if key.tier == tier], by_tier.get(tier, 0))
        else:
            out |= _shared(day, keys, sum(by_tier.values()))
    return out


def _shared(day: ScopeDay, keys: list[LineKey], tokens: int) -> dict[LineKey, int]:
    quantities = {"|".join(map(str, key)): day.lines[key].quantity or 0 for key in keys}
    lag = sum(quantities.values()) - tokens
    shares = apportion(abs(lag), quantities)
    sign = 1 if lag >= 0 else -1
    return {key: (day.lines[key].quantity or 0) - sign * shares["|".join(map(str, key))] for key in keys}


def split_all(cells: Mapping[CellKey, tuple[DayCell, bool]]) -> tuple[dict[CellKey, Split], Fraction | None]:
    """Return the splits of a scope's day, and the ratio of charged to book prices where one discount explains all."""
    splits = {at: split(cell) for at, (cell, _) in cells.items()}
    models: dict[tuple[str, str], dict[str, Split]] = {}
    for (model, kind, window, _), one in splits.items():
        if model is not None and kind is not None:
            models.setdefault((model, window), {})[kind] = one
    for kinds in models.values():
        net_kinds(kinds)
    return splits, name_discount(list(splits.values()))


def as_cells(
    day: ScopeDay, cells: Mapping[CellKey, tuple[DayCell, bool]], splits: Mapping[CellKey, Split]
) -> list[dict[str, Any]]:
    """Return ReconciledCells."""
    out = []
    for at, (cell, from_usage) in cells.items():
        model, kind, window, product = at
        one = splits[at]
        out.append(
            {
                "model": model,
                "kind": kind,
                "window": window if model is not None else None,
                "product": product,
                "bill_usd": decimals.text(one.bill),
                "estimate_usd": decimals.text(one.estimate),
                "difference_usd": decimals.text(one.difference),
                "causes": decimals.parts(one.causes, one.difference),
                "tiers": _tier_lines(cell, one),
                "quantity_from_usage": from_usage,
                "names": names_of(day, at),
            }
        )
    return out


def _tier_lines(cell: DayCell, one: Split) -> list[dict[str, Any]]:
    lines = []
    tiers: list[str | None] = [*sorted({*cell.billed, *one.placed, *(t for t in cell.seen if t is not None)})]
    for tier in [*tiers, *([None] if None in cell.seen else [])]:
        line = cell.billed.get(tier) if tier is not None else None
        seen = cell.seen.get(tier)
        price = seen.price if seen is not None else cell.book.get(tier or "")
        if seen is None and tier == STANDARD and None in cell.seen:
            price = cell.seen[None].price
        quantity = line.quantity if line is not None else 0
        lines.append(
            {
                "tier": tier,
                "seen_tokens": seen.tokens if seen is not None else 0,
                "placed_tokens": one.placed.get(tier, 0) if tier is not None else 0,
                "billed_tokens": quantity or None,
                "usage_tokens": line.usage if line is not None else None,
                "amount_usd": decimals.text(line.amount) if line is not None else None,
                "rounding_usd": decimals.rounded(line.ulp, decimals.DIGITS) if line is not None else None,
                "list_amount_usd": decimals.text(line.list_amount)
                if line is not None and line.list_amount is not None
                else None,
                "book_price_usd": decimals.per_million(price),
                "charged_price_usd": decimals.per_million(line.amount / quantity)
                if line is not None and quantity
                else None,
            }
        )
    return lines


def sums(cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums of a statement's cells; the causes are added as they are written, so nothing is lost."""
    bill = sum((Fraction(cell["bill_usd"]) for cell in cells), Fraction(0))
    estimate = sum((Fraction(cell["estimate_usd"]) for cell in cells), Fraction(0))
    causes = decimals.add([cell["causes"] for cell in cells], CAUSES)
    return {
        "bill_usd": decimals.text(bill),
        "estimate_usd": decimals.text(estimate),
        "difference_usd": decimals.text(bill - estimate),
        "causes": {name: decimals.text(value) for name, value in causes.items()},
        "seen_tokens": sum(tier["seen_tokens"] for cell in cells for tier in cell["tiers"]),
        "billed_tokens": sum(tier["billed_tokens"] or 0 for cell in cells for tier in cell["tiers"]),
    }
