"""The difference between a bill and our estimate, split into causes whose parts add up to exactly that difference.

A cell is one token kind of one model (and context window) in one account scope and UTC day. The bill has a line a
service tier, telemetry has tokens a tier and, under None, tokens whose tier the client did not say. Every number is an
int or a Fraction; nothing here rounds.

With S seen tokens of a tier, p their book price, q billed tokens, A the amount and r = A / q the charged price:

    A - p S  =  r (q - S)  +  (r - p) S
    q - S    =  moved  +  (q - usage)  +  gap        which defines the gap

so the first part is timing, lag and unseen or overseen tokens, and the second is a matter of prices. Unsaid tokens are
estimated at their own price and then placed on the tiers that lack them; what that changes is the cause `tier_unknown`.
Each step is an identity, so any placement and any `moved` keep the sum: a poor guess moves money between causes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from tallystream.schemas.billing.line_item import STANDARD

CAUSES = (
    "unseen", "overseen", "timing", "lag", "discount", "book_price", "free", "unpriced", "tier_unknown", "kind_moved",
    "no_token_line", "rounding",
)  # fmt: skip
"""All possible causes of a difference; docs/reconciliation.md explains each."""
Causes = dict[str, Fraction]
ZERO = Fraction(0)
FAMILIES = (("cache_write_5m", "cache_write_1h", "cache_write_12h"), ("input_uncached", "cache_read"))
"""Token kinds that a client and a provider may classify differently."""


@dataclass(frozen=True)
class BilledUsage:
    """One line of the bill: a tier of a cell. Dollars."""

    amount: Fraction
    quantity: int = 0
    """Tokens; 0 if the amount is not for a quantity of tokens."""
    list_amount: Fraction | None = None
    """Before discounts, if the provider reports it."""
    usage: int | None = None
    """Tokens by the provider's own usage report; None: not known, or the same."""
    ulp: Fraction = ZERO
    """How far the amount may be off: what one in its last transmitted digit is worth, added up over what it sums."""


@dataclass(frozen=True)
class SeenUsage:
    """Seen tokens of one tier, and their book price per token; None without a price."""

    tokens: int
    price: Fraction | None


@dataclass(frozen=True)
class DayCell:
    """The known data of one cell."""

    billed: Mapping[str, BilledUsage] = field(default_factory=dict)
    seen: Mapping[str | None, SeenUsage] = field(default_factory=dict)
    """By tier; None if the client did not report it."""
    book: Mapping[str, Fraction | None] = field(default_factory=dict)
    """Book price per token of tiers without telemetry."""
    moved: int = 0
    """Tokens of this day's bill that telemetry has on a neighbouring day; negative: the other way."""


@dataclass
class Gap:
    """Tokens billed and not seen (positive) or seen and not billed, and what a token of them counts for."""

    tokens: int
    price: Fraction


@dataclass(frozen=True)
class Rate:
    """A line with both prices, for judging whether a discount explains them."""

    amount: Fraction
    ulp: Fraction
    by_book: Fraction
    """What the line's quantity costs by the book."""


@dataclass
class Split:
    """A cell's difference, `bill - estimate`, and its causes."""

    bill: Fraction
    estimate: Fraction
    causes: Causes
    gaps: dict[str, Gap]
    """By tier."""
    placed: dict[str, int]
    """The tiers to which tokens without a reported tier were assigned."""
    rates: list[Rate]

    @property
    def difference(self) -> Fraction:
        """The sum of the causes."""
        return self.bill - self.estimate


def split(cell: DayCell) -> Split:
    """Split one cell."""
    unsaid = cell.seen.get(None, SeenUsage(0, None))
    known = {tier: seen for tier, seen in cell.seen.items() if tier is not None}
    room = {
        tier: max(0, line.quantity - known[tier].tokens if tier in known else line.quantity)
        for tier, line in cell.billed.items()
        if line.quantity
    }
    placed = place(unsaid.tokens, room)
    causes = dict.fromkeys(CAUSES, ZERO)
    base = unsaid.price or ZERO
    estimate = base * unsaid.tokens + sum(((seen.price or ZERO) * seen.tokens for seen in known.values()), ZERO)
    out = Split(sum((line.amount for line in cell.billed.values()), ZERO), estimate, causes, {}, placed, [])
    moved_on = main_tier(cell.billed)
    for tier in sorted({*cell.billed, *known, *placed}):
        line, own = cell.billed.get(tier), known.get(tier)
        price = own.price if own is not None else _book(cell, tier)
        tokens = placed.get(tier, 0)
        # Tokens without a reported tier get the price of the tier they are assigned to, if that is known.
        put = SeenUsage(tokens, price if price is not None else unsaid.price)
        causes["tier_unknown"] += ((put.price or ZERO) - base) * tokens
        parts = [part for part in (own, put) if part is not None and part.tokens]
        _tier(out, tier, line, parts, cell.moved if tier == moved_on else 0)
        if line is not None and line.quantity and line.amount and price:
            out.rates.append(Rate(line.amount, line.ulp, price * line.quantity))
    return out


def _book(cell: DayCell, tier: str) -> Fraction | None:
    """Return the price of a tier without seen tokens. The standard tier has that of tokens without a tier."""
    if tier in cell.book:
        return cell.book[tier]
    return cell.seen[None].price if tier == STANDARD and None in cell.seen else None


def _tier(out: Split, tier: str, line: BilledUsage | None, parts: Sequence[SeenUsage], moved: int) -> None:
    causes = out.causes
    seen = sum(part.tokens for part in parts)
    by_book = sum(((part.price or ZERO) * part.tokens for part in parts), ZERO)
    if line is None or not line.quantity:
        causes["no_token_line"] += line.amount if line is not None else ZERO
        causes["overseen"] -= by_book
        if seen:
            out.gaps[tier] = Gap(-seen, by_book / seen)
        return
    charged = line.amount / line.quantity
    lag = line.quantity - (line.quantity if line.usage is None else line.usage)
    gap = line.quantity - seen - moved - lag
    causes["timing"] += charged * moved
    causes["lag"] += charged * lag
    causes["unseen" if gap > 0 else "overseen"] += charged * gap
    out.gaps[tier] = Gap(gap, charged)
    listed = None if line.list_amount is None else line.list_amount / line.quantity
    for part in parts:
        price, tokens = part.price, part.tokens
        if price is None:
            causes["unpriced"] += charged * tokens
        elif not charged:
            causes["free"] -= price * tokens
        elif abs(line.amount - price * line.quantity) <= line.ulp:
            causes["rounding"] += (charged - price) * tokens
        elif listed is not None:
            causes["discount"] += (charged - listed) * tokens
            causes["book_price"] += (listed - price) * tokens
        else:
            causes["book_price"] += (charged - price) * tokens


def place(unsaid: int, room: Mapping[str, int]) -> dict[str, int]:
    """Assign tokens without a reported tier to tiers: in proportion to the unmatched tokens of each tier, as whole
    numbers by largest remainder, with ties broken by name. The rest goes to the standard tier.
    """
    taken = min(unsaid, sum(room.values()))
    out = apportion(taken, room)
    if unsaid > taken:
        out[STANDARD] = out.get(STANDARD, 0) + unsaid - taken
    return out


def apportion(total: int, weights: Mapping[str, int]) -> dict[str, int]:
    """Return `total` in whole parts in proportion to the weights (largest remainder, ties by name); all 0 without."""
    whole = sum(weights.values())
    if not whole:
        return dict.fromkeys(weights, 0)
    exact = {name: Fraction(total * weight, whole) for name, weight in weights.items()}
    out = {name: share.__floor__() for name, share in exact.items()}
    rest = total - sum(out.values())
    for name in sorted(exact, key=lambda name: (out[name] - exact[name], name))[:rest]:
        out[name] += 1
    return out


def main_tier(tiers: Mapping[str, BilledUsage]) -> str | None:
    """Return the tier that what cannot be told by tier is put on: the standard one if it is billed, else the largest
    (ties by name); None where no line has a quantity.
    """
    with_tokens = {tier: line.quantity for tier, line in tiers.items() if line.quantity}
    if STANDARD in with_tokens:
        return STANDARD
    return min(with_tokens, key=lambda tier: (-with_tokens[tier], tier), default=None)


def net_kinds(splits: Mapping[str, Split]) -> None:
    """Turn tokens that are unseen under one kind and overseen under a kind of its family into the cause `kind_moved`.

    `splits` are those of one model, day and window, by token kind; they are changed in place. The money of each pair of
    causes goes with them, so every difference still adds up: the part of an overseen kind is booked on its own cell.
    """
    for family in FAMILIES:
        for tier in sorted({tier for kind in family if kind in splits for tier in splits[kind].gaps}):
            for up, down in _pairs([splits[kind] for kind in family if kind in splits], tier):
                over, under = up.gaps[tier], down.gaps[tier]
                tokens = min(over.tokens, -under.tokens)
                if tokens <= 0:
                    continue
                up.causes["unseen"] -= over.price * tokens
                up.causes["kind_moved"] += over.price * tokens
                down.causes["overseen"] += under.price * tokens
                down.causes["kind_moved"] -= under.price * tokens
                over.tokens -= tokens
                under.tokens += tokens


def _pairs(splits: Sequence[Split], tier: str) -> Iterator[tuple[Split, Split]]:
    with_tier = [one for one in splits if tier in one.gaps]
    for up in with_tier:
        for down in with_tier:
            if up is not down and up.gaps[tier].tokens > 0 > down.gaps[tier].tokens:
                yield up, down


def one_discount(rates: Sequence[Rate]) -> tuple[Fraction, Fraction] | None:
    """Return the bounds of the one ratio of charged to book prices below 1 that holds over all lines, None where there
    is none, or fewer than two lines to tell by. Each line allows for its last transmitted digit.
    """
    if len(rates) < 2:
        return None
    low = max((rate.amount - rate.ulp) / rate.by_book for rate in rates)
    high = min((rate.amount + rate.ulp) / rate.by_book for rate in rates)
    return (low, high) if low <= high < 1 else None


def name_discount(splits: Sequence[Split]) -> Fraction | None:
    """Call the book price differences of a scope a discount when one ratio explains them all, and return that ratio."""
    bounds = one_discount([rate for one in splits for rate in one.rates])
    if bounds is None:
        return None
    for one in splits:
        one.causes["discount"] += one.causes["book_price"]
        one.causes["book_price"] = ZERO
    return (bounds[0] + bounds[1]) / 2
