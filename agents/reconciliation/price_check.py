"""Checks the price book against the bill: compares the charged price per token with the book's. Pure.

A line is a model's tokens of one kind, tier and context window. If the provider reports its list price, that is
compared with the book, so that a discount does not count as an error of the book. Otherwise the charged price is
compared or, if one ratio explains every line of a day, the price before that discount.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from tallystream.schemas.billing.line_item import LONG, STANDARD

MTOK = 10**6
TOLERANCE = Fraction(1, 10**6)
"""Relative difference below which two prices are equal, besides what the digits of the amount allow for."""
OVERLAY_KINDS = {
    "input_uncached": "input", "cache_read": "cache_read", "cache_write_5m": "cache_write_5m",
    "cache_write_1h": "cache_write_1h", "output": "output",
}  # fmt: skip
"""Names of the kinds in an overlay, in its order."""


class PriceLine(NamedTuple):
    """The line that a price belongs to."""

    provider: str
    model: str
    tier: str
    window: str
    kind: str


class ChargedPrices(Protocol):
    """The book."""

    def __call__(self, line: PriceLine, day: str) -> Fraction | None:
        """Return dollars per token on a day, None without a price."""
        ...


@dataclass(frozen=True)
class PriceCheck:
    """A line whose newest price is known. Prices are dollars per token."""

    line: PriceLine
    since: str
    """The first day of the newest stretch on which it was charged at this price."""
    until: str
    """The last day it was charged."""
    charged: Fraction
    paid: Fraction
    """Price actually paid per token on the last day, after any discount."""
    book: Fraction | None
    """What the book says: of several snapshots with prices of their own, the one that is nearest to `charged`."""
    tokens: int
    """Billed in that stretch."""
    tolerance: Fraction
    """How far `charged` may be off, because amounts have a last digit."""
    names: frozenset[str]
    """The model as bill and telemetry write it, with the dates of snapshots."""
    between: tuple[Fraction, Fraction] | None = None
    """The lowest and highest price of the book, if snapshots with different prices share this line. Any price between
    them may be the right one, because the bill does not say how many tokens each snapshot has."""

    @property
    def off(self) -> Fraction | None:
        """Share of the charged price by which the book is low (positive) or high; None without a price."""
        if self.book is None or not self.charged:
            return None
        return Fraction(0) if self._mixed else (self.charged - self.book) / self.charged

    @property
    def right(self) -> bool:
        """Whether the book agrees."""
        return self.book is not None and (self._mixed or abs(self.charged - self.book) <= self.tolerance)

    @property
    def _mixed(self) -> bool:
        return self.between is not None and self.between[0] < self.charged < self.between[1]


@dataclass
class _DaySums:
    """What a line came to on a day, over all account scopes. Dollars, and tokens."""

    listed: Fraction = Fraction(0)
    paid: Fraction = Fraction(0)
    rounding: Fraction = Fraction(0)
    tokens: int = 0
    names: frozenset[str] = frozenset()

    @property
    def price(self) -> Fraction:
        """Dollars per token, before discounts where they are known."""
        return self.listed / self.tokens

    @property
    def tolerance(self) -> Fraction:
        return max(self.rounding / self.tokens, TOLERANCE * self.price)


def check_prices(statements: Iterable[Mapping[str, Any]], prices: ChargedPrices) -> list[PriceCheck]:
    """Return a check per line; lines with wrong prices come first, ordered by the money involved."""
    days: dict[PriceLine, dict[str, _DaySums]] = {}
    for statement in statements:
        for line, amounts in _lines(statement):
            sums = days.setdefault(line, {}).setdefault(statement["day"], _DaySums())
            sums.listed += amounts.listed
            sums.paid += amounts.paid
            sums.rounding += amounts.rounding
            sums.tokens += amounts.tokens
            sums.names |= amounts.names
    found = []
    for line, by_day in days.items():
        until, last = max(by_day.items())
        since, billed = until, 0
        for day, sums in sorted(by_day.items(), reverse=True):
            if abs(sums.price - last.price) > sums.tolerance + last.tolerance:
                break
            since, billed = day, billed + sums.tokens
        paid = last.paid / last.tokens
        known = _known(line, last.names, until, prices)
        nearest = min(known, key=lambda price, last=last: abs(last.price - price), default=None)  # type: ignore[misc]
        between = (min(known), max(known)) if len(known) > 1 else None
        found.append(
            PriceCheck(line, since, until, last.price, paid, nearest, billed, last.tolerance, last.names, between)
        )
    return sorted(found, key=lambda one: (one.right, -abs(one.charged - (one.book or 0)) * one.tokens, one.line))


def _known(line: PriceLine, names: Iterable[str], day: str, prices: ChargedPrices) -> set[Fraction]:
    """Return the prices of the book for the names of a line; if it knows none of them, for the name without a date."""
    found = {prices(line._replace(model=name), day) for name in names} - {None}
    return {price for price in found or {prices(line, day)} if price is not None}


def _lines(statement: Mapping[str, Any]) -> Iterator[tuple[PriceLine, _DaySums]]:
    """Yield the lines with tokens that cost something."""
    ratio = Fraction(statement["discount_ratio"]) if statement["discount_ratio"] else Fraction(1)
    for cell in statement["cells"]:
        if cell["model"] is None or cell["kind"] not in OVERLAY_KINDS:
            continue
        for tier in cell["tiers"]:
            tokens, amount = tier["billed_tokens"], tier["amount_usd"]
            if tier["tier"] is None or not tokens or tokens < 0 or amount is None or Fraction(amount) <= 0:
                continue
            paid, listed = Fraction(amount), tier["list_amount_usd"]
            before = Fraction(listed) if listed is not None else paid / ratio
            rounding = Fraction(tier.get("rounding_usd") or 0) / (1 if listed is not None else ratio)
            line = PriceLine(statement["provider"], cell["model"], tier["tier"], cell["window"], cell["kind"])
            names = frozenset(cell.get("names") or (cell["model"],))
            yield line, _DaySums(before, paid, rounding, tokens, names)


def words(check: PriceCheck) -> str:
    """Describe the result of a check in one sentence."""
    line = check.line
    what = f"{line.model} {line.kind.replace('_', ' ')}"
    what += f", {line.tier}" if line.tier != STANDARD else ""
    what += ", long context" if line.window == LONG else ""
    price = f"${per_million(check.charged)} a million tokens since {check.since}"
    if per_million(check.paid) != per_million(check.charged):
        price += f", ${per_million(check.paid)} after the discount"
    if check.book is None:
        return f"{what}: the book has no price, {price} is charged"
    if check.right:
        known = ""
        if check.between is not None and check.charged != check.book:
            low, high = (per_million(one) for one in check.between)
            known = f", between the prices of its snapshots (${low} to ${high})"
        return f"{what}: the book is right, {price}{known}"
    assert check.off is not None
    lower = "low" if check.off > 0 else "high"
    return (
        f"{what}: the book is {float(abs(check.off)):.1%} {lower} ({price}, the book says ${per_million(check.book)})"
    )


def per_million(price: Fraction) -> str:
    """Return dollars per million tokens with at most six decimals, which is what an overlay takes."""
    units = round(price * MTOK * 10**6)
    whole, part = divmod(units, 10**6)
    return f"{whole}.{part:06}".rstrip("0").rstrip(".") if part else str(whole)


def overlay(checks: Iterable[PriceCheck], prices: ChargedPrices) -> str:
    """Return TOML for TALLYSTREAM_PRICES that mends what the book is wrong about. Prices that were right are repeated
    with it, for an entry replaces all of a model's. An entry names a snapshot if bill and telemetry name no other one.

    Two things are left to people: lines of long contexts, because the bill does not say above which size they begin,
    and snapshots with different prices, because the bill does not say which of them was charged.
    """
    groups: dict[tuple[str, str, str], dict[str, PriceCheck]] = {}
    for check in checks:
        if check.line.window != LONG:
            groups.setdefault((check.line.provider, check.line.model, check.line.tier), {})[check.line.kind] = check
    out = []
    for (provider, model, tier), kinds in sorted(groups.items()):
        wrong = [check for check in kinds.values() if not check.right]
        if not wrong:
            continue
        given = frozenset[str]().union(*(check.names for check in kinds.values()))
        if any(check.between for check in kinds.values()):
            out.append(
                f"# {model}: {', '.join(sorted(given))} have different prices, and the bill does not say which of them"
                " was charged.\n# Write an entry for the one that is wrong."
            )
            continue
        since = min(check.since for check in wrong)
        name = next(iter(given)) if len(given) == 1 else model
        known = {
            kind: kinds[kind].charged if kind in kinds
            else next(iter(_known(PriceLine(provider, name, tier, "short", kind), given, since, prices)), None)
            for kind in OVERLAY_KINDS
        }  # fmt: skip
        lines = ["[[price]]", f'provider = "{provider}"', f'model = "{name}"']
        lines += [f'tier = "{tier}"'] if tier != STANDARD else []
        lines.append(f"from = {since}")
        for kind, name in OVERLAY_KINDS.items():
            price = known[kind]
            if price is not None:
                lines.append(f'{name} = "{per_million(price)}"')
            elif name in ("input", "output"):
                lines.append(f'# {name} = ""   # neither the bills nor the book contain it: fill it in')
        out.append("\n".join(lines))
    return "\n\n".join(out) + ("\n" if out else "")
